"""``manage.py check --deploy`` names what would be wrong in production, and nothing else (gateway_project: checks).

That it is silent where nothing is wrong, and what it says of a database, is in ``tests/e2e/test_production.py``.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from pytest_django import Settings

from gateway_project import checks, deploy_checks
from gateway_project.static import CollectedFiles, uncollected
from tests.support.gateway import run_manage
from tests.support.production import production_environment

_IDENTIFIER = re.compile(r"\((\w+\.[EW]\d+)\)")
# Of every run here: nothing listens at the address of the database, and nothing was collected.
_OF_THE_MACHINE = {"gateway.E018", "gateway.E023"}


@pytest.mark.parametrize(
    ("wrong", "identifiers"),
    [
        ({}, set()),
        ({"GATEWAY_ENVIRONMENT": "development"}, {"gateway.E010"}),
        (
            {
                "GATEWAY_SECRET_KEY": "",
                "GATEWAY_JWT_KEYS": "",
                "GATEWAY_METRICS_TOKEN": "",
                "GATEWAY_KAFKA_BOOTSTRAP_SERVERS": "",
                "REDIS_URL": "",
                "GATEWAY_ALLOWED_HOSTS": "",
                "GATEWAY_PUBLIC_URL": "",
                "GATEWAY_TRUSTED_PROXIES": "",
                "GATEWAY_EMAIL_URL": "",
                "GATEWAY_EMAIL_FROM": "",
                "GATEWAY_SELLER_NAME": "",
                "MIDTRANS_SERVER_KEY": "",
            },
            {
                *("security.W009", "tenants.E001", "gateway.E011", "gateway.E014", "gateway.E012", "gateway.E013"),
                *("gateway.E015", "security.W020", "gateway.E019", "gateway.E022", "gateway.W012", "gateway.W014"),
                *("billing.E004", "billing.E001", "billing.E002"),
            },
        ),
        (
            {
                "GATEWAY_DEBUG": "1",
                "GATEWAY_SECRET_KEY": "short",
                "GATEWAY_JWT_KEYS": "k:HS256:c2hvcnQ=",
                "GATEWAY_TOKEN_TTL": "25h",
                "GATEWAY_BENCHMARK": "1",
                "GATEWAY_TOPIC_REPLICATION": "1",
                "GATEWAY_TWO_FACTOR": "optional",
                "GATEWAY_PROT": "8000",
                "GATEWAY_ROUTES": "tick=tick-data",
                "GATEWAY_DRAIN_SPREAD": "21s",
                "GATEWAY_BACKEND_TIMEOUT": "61s",
                "GATEWAY_MESSAGE_SIZE_LIMIT": "983041",
                "GATEWAY_ALLOWED_HOSTS": "*",
                "GATEWAY_PUBLIC_URL": "http://localhost:8000",
                "MIDTRANS_SERVER_KEY": "SB-Mid-server-x",
                "MIDTRANS_BASE_URL": "http://api.sandbox.midtrans.com",
            },
            {
                *("security.W018", "security.W009", "tenants.E001", "tenants.E002", "gateway.E017", "gateway.W010"),
                *("gateway.W011", "gateway.W001", "gateway.E001", "gateway.E002", "gateway.E003", "gateway.E004"),
                *("gateway.E021", "gateway.E019", "billing.W001", "billing.E003"),
            },
        ),
    ],
    ids=["right", "development", "missing", "unsafe"],
)
def test_operator_is_told_of_all_that_is_wrong_and_of_nothing_else(
    tmp_path: Path, wrong: dict[str, str], identifiers: set[str]
) -> None:
    environment = production_environment(tmp_path, GATEWAY_STATIC_DIR=str(tmp_path / "static"), **wrong)
    done = run_manage("check", "--deploy", environment=environment)
    assert done.returncode != 0
    found = set(_IDENTIFIER.findall(done.stderr))
    if "GATEWAY_ENVIRONMENT" in wrong:
        # What Django says of settings that only production has is not the point.
        assert identifiers <= found
        assert not found & _OF_THE_MACHINE
    else:
        assert found == identifiers | _OF_THE_MACHINE, done.stderr


def test_operator_is_told_of_a_database_that_is_a_file(tmp_path: Path) -> None:
    environment = production_environment(tmp_path, GATEWAY_STATIC_DIR=str(tmp_path / "static"), DATABASE_URL="")
    found = set(_IDENTIFIER.findall(run_manage("check", "--deploy", environment=environment).stderr))
    assert found == {"gateway.E016", "gateway.E018"}


@pytest.fixture
def production(settings: Settings) -> Settings:
    settings.IS_PRODUCTION = True
    settings.ALLOWED_HOSTS = ["gateway.example"]
    settings.GATEWAY_PUBLIC_URL = "https://gateway.example"
    return settings


def identifiers_of(check: Any) -> list[str]:
    return [found.id for found in check(None)]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://gateway.example", []),
        ("https://gateway.example:8443", []),
        ("", ["gateway.E019"]),
        ("gateway.example", ["gateway.E019"]),
        ("http://gateway.example", ["gateway.E019"]),
        ("https://localhost", ["gateway.E019"]),
        ("https://console.localhost", ["gateway.E019"]),
        ("https://127.0.0.1:8000", ["gateway.E019"]),
        ("https://[::1]", ["gateway.E019"]),
        ("https://0.0.0.0", ["gateway.E019"]),
        ("https://[broken", ["gateway.E019"]),
        ("https://", ["gateway.E019"]),
        # The console is at the top of the host.
        ("https://gateway.example/gateway", ["gateway.E019"]),
        ("https://other.example", ["gateway.E020"]),
    ],
)
def test_public_address_is_one_that_others_reach(production: Settings, address: str, expected: list[str]) -> None:
    production.GATEWAY_PUBLIC_URL = address
    assert identifiers_of(deploy_checks.public_address) == expected


@pytest.mark.parametrize(("proxies", "expected"), [(["127.0.0.1"], []), ([], ["gateway.E022"])])
def test_production_names_its_proxies(production: Settings, proxies: list[str], expected: list[str]) -> None:
    production.GATEWAY_TRUSTED_PROXIES = proxies
    assert identifiers_of(deploy_checks.trusted_proxies) == expected


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("Trading gateway <gateway@mail.example>", []),
        ("gateway@mail.example", []),
        ("Trading gateway <gateway@localhost>", ["gateway.W014"]),
        ("nobody", ["gateway.W014"]),
    ],
)
def test_mails_have_a_sender_that_others_take(production: Settings, sender: str, expected: list[str]) -> None:
    production.DEFAULT_FROM_EMAIL = sender
    assert identifiers_of(deploy_checks.sender) == expected


def test_static_files_are_collected_when_each_is_there_as_this_version_has_it(
    production: Settings, tmp_path: Path
) -> None:
    production.STATIC_ROOT = tmp_path
    production.STORAGES = {
        **production.STORAGES,
        "staticfiles": {"BACKEND": "gateway_project.static.CollectedFiles"},
    }
    assert "console/console.css" in uncollected()
    # A page is shown even so.
    assert CollectedFiles().url("console/console.css") == "/static/console/console.css"
    call_command("collectstatic", interactive=False, verbosity=0)
    assert uncollected() == []
    assert identifiers_of(deploy_checks.static_files) == []
    assert re.fullmatch(r"/static/console/console\.[0-9a-f]{12}\.css", CollectedFiles().url("console/console.css"))

    (tmp_path / "console/console.css").write_text("/* of the version before */")
    (tmp_path / "live/live.js").unlink()
    assert sorted(uncollected()) == ["console/console.css", "live/live.js"]
    assert identifiers_of(deploy_checks.static_files) == ["gateway.E018"]


@pytest.mark.parametrize(
    ("proxies", "expected"),
    [
        (["10.0.0.5", "10.1.0.0/16", "fd00::/8"], []),
        (["10.0.0.5", "proxy.example"], ["gateway.E005"]),
        (["*"], ["gateway.W013"]),
        (["10.0.0.5", "::/0"], ["gateway.W013"]),
    ],
)
def test_operator_is_told_of_a_proxy_that_cannot_be_known_or_is_everybody(
    production: Settings, proxies: list[str], expected: list[str]
) -> None:
    production.GATEWAY_TRUSTED_PROXIES = proxies
    assert identifiers_of(checks.trusted_proxies) == expected
