"""``.env.production.example``: once it is filled in, nothing is missing, misspelt or unsafe."""

import re
import subprocess
from pathlib import Path

from gateway_project.settings import env
from tests.deploy.conftest import DEPLOY, settings_of
from tests.support.gateway import clean_environment, run_manage

# Of compose.yaml and nginx, not of the product.
_OTHERS = {"SITE_NAME", "SITE_TLS", "SITE_VERSION", "POSTGRES_PASSWORD", "VALKEY_PASSWORD", "KAFKA_CLUSTER_ID"}
_SECRETS = re.compile(r"PASSWORD|_KEY|_KEYS|TOKEN|CLUSTER_ID|EMAIL_URL")


def example() -> dict[str, str]:
    return settings_of((DEPLOY / ".env.production.example").read_text())


def test_example_names_settings_that_exist_and_holds_no_secret() -> None:
    assert set(example()) - _OTHERS <= env.known
    assert {name: value for name, value in example().items() if _SECRETS.search(name) and value} == {}


def test_operator_who_has_filled_in_the_example_has_all_that_the_check_asks_for(
    tmp_path: Path, filled: dict[str, str]
) -> None:
    by_compose = {
        "GATEWAY_ENVIRONMENT": "production",
        "DATABASE_URL": "postgresql://gateway:secret@127.0.0.1:1/gateway",
        "REDIS_URL": "redis://:secret@valkey:6379/0",
        "GATEWAY_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
        "GATEWAY_TRUSTED_PROXIES": "172.30.20.2",
        "GATEWAY_STATIC_DIR": str(tmp_path / "static"),
    }
    done = run_manage("check", "--deploy", environment=clean_environment(tmp_path, **by_compose) | filled)
    # The steps that follow, and the one broker of compose.yaml.
    assert set(re.findall(r"\(([\w.]+)\)", done.stderr)) == {"gateway.E018", "gateway.E023", "gateway.W010"}, (
        done.stderr
    )


def test_shell_reads_the_file_as_it_is_meant(operators_folder: Path, filled: dict[str, str]) -> None:
    """The commands of the README run in a shell that has read it; a sender's angle brackets are no redirect."""
    script = f"set -a; . {operators_folder / '.env.production'}; env -0"
    done = subprocess.run(["sh", "-euc", script], env={}, capture_output=True, text=True, check=True)
    read = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    assert read.items() >= filled.items()
    # The lines that the example fills in itself, as they stand.
    script = f". {DEPLOY / '.env.production.example'}"
    assert subprocess.run(["sh", "-euc", script], env={}, capture_output=True, check=True).stderr == b""
