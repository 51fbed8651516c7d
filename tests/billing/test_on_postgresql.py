"""The same on a real PostgreSQL: what two workers or two clicks do at once, and the paths of checkout and dunning."""

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


@pytest.mark.timeout(1200)
def test_paying_and_its_locks_hold_on_postgresql(postgres: Postgres) -> None:
    run_on_postgresql(postgres.url, __file__)
