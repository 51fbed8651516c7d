"""The same on a real PostgreSQL: the tenant rules, and the way from a terminal to Kafka."""

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.gateway import Gateway, clean_environment, manage, until
from tests.support.postgres import Postgres
from tests.support.skips import run_on_postgresql
from tests.support.terminal import Terminal


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.stop()


@pytest.mark.timeout(1200)
def test_tenant_rules_hold_on_postgresql(postgres: Postgres) -> None:
    run_on_postgresql(postgres.url, __file__)


def test_terminal_streams_with_its_company_in_postgresql(
    make_gateway: Callable[..., Gateway], postgres: Postgres, tmp_path: Path
) -> None:
    gateway = make_gateway(DATABASE_URL=postgres.url)
    manage("migrate", "-v0", environment=gateway.environment)
    # The keys in the copied state belong to the rows of another database.
    (gateway.state_dir / "demo.json").unlink()
    gateway.manage("seed_demo")
    gateway.start()
    terminal = Terminal(gateway, gateway.manage("issue_token", "--user", "rinjani-sari").strip())
    assert terminal.welcome["policy"]["tier"] == "ENTERPRISE"
    terminal.tick(1)
    terminal.wait_for_ack(1)
    gateway.stop()
    assert gateway.errors() == []


def held_by_clients(postgres: Postgres) -> int:
    """Connections but this one, without the processes that the server runs for itself, whose number it decides."""
    clients = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
    with psycopg.connect(postgres.url) as connection:
        row = connection.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {clients}").fetchone()  # noqa: S608
    assert row is not None
    return int(row[0])


def test_requests_leave_no_connection_behind(make_gateway: Callable[..., Gateway], postgres: Postgres) -> None:
    gateway = make_gateway(DATABASE_URL=postgres.url, GATEWAY_DATABASE_CONNECTION_LIMIT="4")
    manage("migrate", "-v0", environment=gateway.environment)
    gateway.start()
    for _ in range(40):
        request = urllib.request.Request(
            f"http://127.0.0.1:{gateway.port}/api/v1/tokens",
            data=json.dumps({"api_key": f"gwk_{'a' * 8}_{secrets.token_urlsafe(32)}"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code in (401, 429)
        refused.value.close()
    # One that is ending may still be listed; one that was left behind stays.
    until(lambda: held_by_clients(postgres) <= 4, 20, "no more connections than the pool has")
    assert held_by_clients(postgres) >= 1


def test_settings_of_the_product_reach_postgresql(postgres: Postgres, tmp_path: Path) -> None:
    environment = clean_environment(tmp_path, DATABASE_URL=postgres.url)
    assert "postgresql" in manage("shell", "--no-imports", "-c", _VENDOR, environment=environment)


_VENDOR = "from django.db import connection; connection.ensure_connection(); print(connection.vendor)"
