"""``compose.yaml``: valid, tight, and its parts agree with each other and with the gateway's settings."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.deploy.conftest import DEPLOY
from tests.support.tools import judge, python_tool

_GATEWAYS = ("gateway-1", "gateway-2")


@pytest.fixture
def services(operators_folder: Path) -> dict[str, Any]:
    """As compose itself reads them, with all names filled in."""
    text = judge(
        *(python_tool("docker-compose"), "--env-file", ".env.production", "-f", "compose.yaml"),
        *("config", "--format", "json"),
        cwd=operators_folder,
    )
    return json.loads(text[text.index("{") :])["services"]  # type: ignore[no-any-return]


def test_linters_find_compose_good(operators_folder: Path) -> None:
    judge(python_tool("yamllint"), "--strict", "compose.yaml", cwd=operators_folder)
    config = ("--strict-config", "--config", ".compose-lint.yml")
    judge(python_tool("compose-lint"), "--fail-on", "low", *config, "compose.yaml", cwd=operators_folder)


def test_every_service_runs_tight_and_says_whether_it_is_well(services: dict[str, Any]) -> None:
    assert set(services) == {*_GATEWAYS, "worker", "prepare", "nginx", "postgres", "valkey", "kafka"}
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name
        assert "mem_limit" in service, name
        # The image of the gateway has a check of its own.
        assert name in (*_GATEWAYS, "prepare") or service["healthcheck"]["test"], name
        assert "ports" not in service or name == "nginx", name


def test_gateways_believe_nginx_and_nobody_else(services: dict[str, Any]) -> None:
    nginx = services["nginx"]["networks"]["front"]["ipv4_address"]
    for name in _GATEWAYS:
        assert services[name]["environment"]["GATEWAY_TRUSTED_PROXIES"] == nginx
        address = services[name]["networks"]["front"]["ipv4_address"]
        # By address: a name would be looked up once, and a new container has another one.
        assert f"server {address}:8000 " in services["nginx"]["environment"]["SITE_UPSTREAMS"]


def test_nginx_is_given_every_name_of_its_template(services: dict[str, Any]) -> None:
    wanted = set(re.findall(r"\$\{(SITE_\w+)\}", (DEPLOY / "nginx/nginx.conf.template").read_text()))
    assert wanted <= set(services["nginx"]["environment"])


def test_only_one_service_changes_the_database_and_all_others_wait_for_it(services: dict[str, Any]) -> None:
    assert "migrate" in services["prepare"]["command"][0]
    for name in (*_GATEWAYS, "worker"):
        assert services[name]["depends_on"]["prepare"]["condition"] == "service_completed_successfully"
        assert "migrate" not in str(services[name].get("command", ""))


def test_gateway_is_left_the_time_of_its_drain(services: dict[str, Any]) -> None:
    for name in _GATEWAYS:
        minutes, seconds = re.fullmatch(r"(?:(\d+)m)?(\d+)s", services[name]["stop_grace_period"]).groups()  # type: ignore[union-attr]
        assert int(minutes or 0) * 60 + int(seconds) >= settings.GATEWAY_DRAIN_TIMEOUT * 2 + 30
