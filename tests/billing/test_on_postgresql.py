"""The same on a real PostgreSQL: what two workers or two clicks do at once, and the paths of checkout and dunning."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.gateway import ROOT
from tests.support.postgres import Postgres


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.stop()


@pytest.mark.timeout(900)
def test_paying_and_its_locks_hold_on_postgresql(postgres: Postgres) -> None:
    environment = {**os.environ, "TESTS_DATABASE_URL": postgres.url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    names = ("two_workers", "checkout", "refunds", "renewals", "methods", "dunning")
    files = [f"tests/billing/test_{name}.py" for name in names]
    command = [sys.executable, "-m", "pytest", *files, "-v", "--create-db"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
