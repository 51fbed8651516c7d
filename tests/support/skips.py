"""Which tests may be skipped, and where each of them runs instead. Whatever else is skipped has failed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection

ROOT = Path(__file__).resolve().parents[2]


def _files(room: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/{room}/test_{name}.py" for name in names)


# The test files that start a PostgreSQL, and what each of them runs there.
ON_POSTGRESQL: dict[str, tuple[str, ...]] = {
    "tests/e2e/test_postgresql.py": ("tests/tenants",),
    # Where locks, triggers, indexes or kinds of columns matter; the rest has no other side there.
    "tests/e2e/test_billing_postgresql.py": _files(
        "billing", "races", "ledger", "webhooks", "entitlements", "books", "audit_of_books"
    ),
    "tests/billing/test_on_postgresql.py": _files(
        "billing", "two_workers", "checkout", "refunds", "renewals", "methods", "dunning"
    ),
    "tests/events/test_on_postgresql.py": _files("events", "outbox", "lease", "two_relays"),
}
_ROW_LOCKS = "SQLite has one writer and no row locks; the same suite runs this on PostgreSQL"
# Each reason that is accepted, and the files that may give it. On PostgreSQL nothing is skipped.
ALLOWED: dict[str, frozenset[str]] = {}
if connection.vendor == "sqlite":
    ALLOWED[_ROW_LOCKS] = frozenset(path for paths in ON_POSTGRESQL.values() for path in paths)
# On tests that only row locks make sense of.
needs_row_locks = pytest.mark.skipif(connection.vendor == "sqlite", reason=_ROW_LOCKS)


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Makes a failure of a report that says "skipped" or "failed as expected" where the list does not allow that."""
    if not report.skipped:
        return
    file = report.nodeid.partition("::")[0]
    told = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = told.removeprefix("Skipped: ")
    if hasattr(report, "wasxfail") or file not in ALLOWED.get(reason, ()):
        vars(report).pop("wasxfail", None)
        report.outcome = "failed"
        report.longrepr = f"{file} is skipped for a reason that tests/support/skips.py does not allow: {reason}"


def run_on_postgresql(url: str, test_file: str) -> None:
    """Runs there what the list says of ``test_file``, the caller's own; everything must pass and nothing be skipped."""
    paths = ON_POSTGRESQL[str(Path(test_file).relative_to(ROOT))]
    environment = {**os.environ, "TESTS_DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    command = [sys.executable, "-m", "pytest", *paths, "-v", "--create-db"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout
