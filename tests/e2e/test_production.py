"""The first hour of a production machine, by the files of ``deploy/`` and the commands of the README."""

import base64
import json
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django_otp.oath import TOTP
from playwright.sync_api import Browser, Page, expect

from tests.support.chromium import chromium, complaints
from tests.support.deployment import NAME, Deployment
from tests.support.kafka import KafkaBroker
from tests.support.postgres import Postgres
from tests.support.streamer import Streamer
from tests.support.valkey import Valkey

_PASSWORD = "a password nobody guesses"
_IDENTIFIER = re.compile(r"\((\w+\.[EW]\d+)\)")
# What the operator's first company would type into the console's forms; the forms have tests of their own.
_FIRST_COMPANY = """
from tenants.models import ActivePair, Company, MT5Account, SubscriptionTier, User
company = Company.objects.create(name="Semeru", slug="semeru", tier=SubscriptionTier.objects.get(code="PRO"))
user = User.objects.create(username="semeru.dewi", email="dewi@semeru.example", company=company)
MT5Account.objects.create(company=company, owner=user, login="5012345", broker_server="Broker-Live01")
ActivePair.objects.create(user=user, symbol="EURUSD")
print(user.pk)
"""


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def machine(tmp_path: Path, postgres: Postgres, own_valkey: Valkey, kafka: KafkaBroker) -> Iterator[Deployment]:
    deployment = Deployment(
        tmp_path,
        DATABASE_URL=postgres.url,
        REDIS_URL=own_valkey.url,
        GATEWAY_KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap,
    )
    yield deployment
    deployment.stop()


@pytest.fixture
def by_name(machine: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The public name leads to this machine, for whatever resolves it in this process."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **keywords: Any) -> Any:
        return resolve("127.0.0.1" if host in (NAME, NAME.encode()) else host, *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_operator_brings_a_fresh_machine_into_production_and_a_terminal_online(
    machine: Deployment, by_name: None, postgres: Postgres, tmp_path: Path
) -> None:
    # In the order of the README; the check names the next step each time.
    assert said(machine) == {"gateway.E018", "gateway.E024", "gateway.W010"}
    with ThreadPoolExecutor() as beside:
        beside.submit(machine.manage, "migrate", "-v0")
        beside.submit(machine.manage, "collectstatic", "--noinput", "-v0")
    assert said(machine) == {"gateway.E025", "gateway.W010"}
    machine.manage(
        *("createsuperuser", "--noinput", "--username", "operator", "--email", f"operator@{NAME}"),
        DJANGO_SUPERUSER_PASSWORD=_PASSWORD,
    )
    # One broker is all there is on this machine; with three of them all is said to be well.
    assert said(machine, GATEWAY_TOPIC_REPLICATION="3") == set()
    machine.start()
    user_id = machine.manage("shell", "--no-imports", "-v0", "-c", _FIRST_COMPANY).split()[-1]
    with chromium(f"--host-resolver-rules=MAP {NAME}:443 127.0.0.1:{machine.nginx.port}") as browser:
        key, address = issue_key(browser, user_id, tmp_path)
    assert address == f"wss://{NAME}/ws/mt5"
    _check_proxy(machine)

    port = machine.nginx.port
    trust = ssl.create_default_context(cafile=str(machine.nginx.certificate))
    with Streamer(f"wss://{NAME}:{port}/ws/mt5", f"https://{NAME}:{port}", key, "5012345", tls=trust) as terminal:
        terminal.wait_for_more(5)
        for gateway in machine.ports:
            assert machine.restart_gateway(gateway) == 0
            terminal.wait_for_more(5)
    assert terminal.is_settled
    outcomes = terminal.outcomes
    assert (outcomes.refused, outcomes.unanswered, outcomes.sent) == (0, 0, outcomes.acknowledged)
    assert '"level": "error"' not in machine.logs()
    assert machine.is_worker_busy()
    path = f"{postgres.programs}:{os.environ['PATH']}"
    machine.run("backup", str(tmp_path / "backups"), DATABASE_URL=postgres.url, PATH=path)


def said(machine: Deployment, **environment: str) -> set[str]:
    """The identifiers in what ``check --deploy`` says."""
    done = machine.check(**environment)
    found = set(_IDENTIFIER.findall(done.stdout + done.stderr))
    assert done.returncode == any(".E" in identifier for identifier in found), done.stderr
    return found


def issue_key(browser: Browser, user_id: str, folder: Path) -> tuple[str, str]:
    """As an operator who signs in for the first time; the key and the address that the console shows."""
    page = browser.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(20_000)
    errors = complaints(page)
    page.goto(f"https://{NAME}/")
    _is_styled(page)
    page.fill("input[name=username]", "operator")
    page.fill("input[name=password]", _PASSWORD)
    page.press("input[name=password]", "Enter")
    secret = page.locator("code.secret").inner_text().replace(" ", "")
    code = TOTP(base64.b32decode(secret + "=" * (-len(secret) % 8)))
    code.time = time.time()
    page.get_by_label("Six-digit code").fill(f"{code.token():06d}")
    page.get_by_role("button", name="Confirm").click()
    page.get_by_role("link", name="I have kept them").click()
    expect(page.get_by_role("heading", name="Operator: all companies")).to_be_visible()
    _is_styled(page)
    page.screenshot(path=folder / "console.png", full_page=True)
    page.goto(f"https://{NAME}/admin/tenants/apikey/add/?user={user_id}")
    page.get_by_role("textbox", name="Name").fill("VPS Jakarta")
    page.get_by_role("button", name="Save", exact=True).click()
    key, address = page.locator("#console-key").inner_text(), page.locator("#console-address").inner_text()
    page.screenshot(path=folder / "key.png", full_page=True)
    assert errors == []
    return key, address


def _is_styled(page: Page) -> None:
    """Every style sheet of the page came, by a name that holds the hash of its content, with rules in it."""
    sheets = page.evaluate("[...document.styleSheets].map(sheet => [sheet.href, sheet.cssRules.length])")
    assert len(sheets) > 3
    for address, rules in sheets:
        assert re.search(r"\.[0-9a-f]{12}\.css$", address), address
        assert rules > 0, address


def _check_proxy(machine: Deployment) -> None:
    """What nobody outside may have, and what nobody may pretend."""
    for path in ("/metrics", "/livez", "/readyz"):
        assert _ask(machine, path)[0] == 404
    status, headers, _ = _ask(machine, "/admin/login/", {"X-Forwarded-Proto": "http", "X-Forwarded-For": "10.1.1.1"})
    assert status == 200
    assert headers["Strict-Transport-Security"].startswith("max-age=31536000")
    assert len(headers.get_all("Strict-Transport-Security")) == 1
    status, _, body = _ask(machine, "/api/v1/tokens", {"Content-Type": "application/json"}, b"{" + b" " * 8_000)
    assert (status, json.loads(body)["code"]) == (413, "too_large")


def _ask(
    machine: Deployment, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> tuple[int, Any, str]:
    trust = ssl.create_default_context(cafile=str(machine.nginx.certificate))
    request = urllib.request.Request(f"https://{NAME}:{machine.nginx.port}{path}", headers=headers or {}, data=body)
    try:
        with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode()
