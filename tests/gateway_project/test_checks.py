"""``manage.py check --deploy`` says what would be wrong in production, and nothing when nothing is."""

from pathlib import Path

import pytest

from tests.support.gateway import run_manage
from tests.support.production import production_environment


def test_operator_sees_no_remark_on_production_settings(tmp_path: Path) -> None:
    done = run_manage("check", "--deploy", "--fail-level", "WARNING", environment=production_environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("settings", "identifier"),
    [
        ({"GATEWAY_ENVIRONMENT": "development"}, "gateway.E010"),
        ({"GATEWAY_SECRET_KEY": ""}, "gateway.E011"),
        ({"GATEWAY_KAFKA_BOOTSTRAP_SERVERS": ""}, "gateway.E012"),
        ({"REDIS_URL": ""}, "gateway.E013"),
        ({"GATEWAY_METRICS_TOKEN": ""}, "gateway.E014"),
        ({"GATEWAY_ALLOWED_HOSTS": ""}, "gateway.E015"),
        ({"DATABASE_URL": ""}, "gateway.E016"),
        ({"GATEWAY_BENCHMARK": "1"}, "gateway.E017"),
        ({"GATEWAY_TOPIC_REPLICATION": "1"}, "gateway.W010"),
        ({"GATEWAY_TWO_FACTOR": "optional"}, "gateway.W011"),
        ({"GATEWAY_EMAIL_URL": ""}, "gateway.W012"),
        ({"GATEWAY_PROT": "8000"}, "gateway.W001"),
        ({"GATEWAY_ROUTES": "tick=tick-data"}, "gateway.E001"),
        ({"GATEWAY_DRAIN_SPREAD": "21s"}, "gateway.E002"),
        ({"GATEWAY_BACKEND_TIMEOUT": "61s"}, "gateway.E003"),
        ({"GATEWAY_MESSAGE_SIZE_LIMIT": "983041"}, "gateway.E004"),
        ({"GATEWAY_TRUSTED_PROXIES": "10.0.0.5,proxy.example"}, "gateway.E005"),
        ({"GATEWAY_TRUSTED_PROXIES": "*"}, "gateway.W013"),
        ({"GATEWAY_TRUSTED_PROXIES": "10.0.0.5,::/0"}, "gateway.W013"),
        ({"GATEWAY_JWT_KEYS": ""}, "tenants.E001"),
        ({"GATEWAY_JWT_KEYS": "k:HS256:c2hvcnQ="}, "tenants.E001"),
        ({"GATEWAY_TOKEN_TTL": "25h"}, "tenants.E002"),
        ({"GATEWAY_SELLER_NAME": ""}, "billing.E004"),
    ],
)
def test_operator_is_told_what_is_wrong(tmp_path: Path, settings: dict[str, str], identifier: str) -> None:
    environment = production_environment(tmp_path, **settings)
    done = run_manage("check", "--deploy", "--fail-level", "WARNING", environment=environment)
    assert done.returncode != 0
    assert identifier in done.stderr, done.stderr
