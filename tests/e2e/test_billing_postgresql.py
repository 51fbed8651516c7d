"""Billing on a real PostgreSQL: its rules, and what only row locks show."""

from collections.abc import Iterator

import pytest

from tests.support.postgres import Postgres
from tests.support.skips import run_on_postgresql


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.stop()


@pytest.mark.timeout(1200)
def test_billing_rules_hold_on_postgresql(postgres: Postgres) -> None:
    run_on_postgresql(postgres.url, __file__)
