"""The same on a real PostgreSQL: what is recorded, who publishes, and that nothing is lost."""

from collections.abc import Iterator

import pytest

from tests.support.postgres import Postgres
from tests.support.skips import run_on_postgresql


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.stop()


def test_outbox_and_lease_hold_on_postgresql(postgres: Postgres) -> None:
    run_on_postgresql(postgres.url, __file__)
