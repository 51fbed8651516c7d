"""Fixtures of the streaming room."""

from collections.abc import Iterator

import pytest

from tests.streaming.shell_cast import Tenants
from tests.support.audit import forget_audit


@pytest.fixture
def tenants(monkeypatch: pytest.MonkeyPatch) -> Tenants:
    """The database's twin, in the place of the doors of its rooms."""
    room = Tenants()
    room.install(monkeypatch)
    return room


@pytest.fixture
def committed_db(django_db_serialized_rollback: None, transactional_db: None) -> Iterator[None]:
    """The real database, where threads see what a test has written; its tiers are there."""
    yield
    forget_audit()
