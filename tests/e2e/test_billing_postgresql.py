"""Billing on a real PostgreSQL: its rules, and what only row locks show."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.gateway import ROOT
from tests.support.postgres import Postgres

# Where locks, triggers, indexes or kinds of columns matter; the rest has no other side there.
_TESTS = ("races", "ledger", "webhooks", "entitlements", "books", "audit_of_books")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.stop()


@pytest.mark.timeout(600)
def test_billing_rules_hold_on_postgresql(postgres: Postgres) -> None:
    environment = {**os.environ, "TESTS_DATABASE_URL": postgres.url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    files = [f"tests/billing/test_{name}.py" for name in _TESTS]
    command = [sys.executable, "-m", "pytest", *files, "-v", "--create-db"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout
