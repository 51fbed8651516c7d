"""People of two companies, and live connections of theirs as Redis would have them."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from streaming.cluster.live import LiveConnection
from streaming.console import listing
from streaming.live import LiveUnavailable
from tenants.models import User
from tests.tenants.cast import Cast, make_cast


@dataclass
class LiveRows:
    """Stands in for Redis; ``is_away`` for its absence."""

    rows: list[LiveConnection] = field(default_factory=list)
    is_away: bool = False
    # What each question was about.
    asked: list[list[str] | None] = field(default_factory=list)

    def add(self, user: User, **fields: Any) -> LiveConnection:
        now = time.time()
        values: dict[str, Any] = {
            "session_id": f"{len(self.rows) + 1:016x}",
            "process": "p1",
            "user_id": str(user.pk),
            "username": user.username,
            "company_id": str(user.company_id),
            "address": "192.0.2.1",
            "opened_at": now - 60 + len(self.rows),
            "state": "idle",
            "messages": 0,
            "in_flight": 0,
            "stream_id": "s1",
            "accounts": [],
            "seen_at": now,
        }
        self.rows.append(LiveConnection(**{**values, **fields}))
        return self.rows[-1]

    def __call__(self, company_ids: Iterable[str] | None = None) -> list[LiveConnection]:
        chosen = None if company_ids is None else list(company_ids)
        self.asked.append(chosen)
        if self.is_away:
            raise LiveUnavailable("Redis does not answer: the list of live connections comes back with it")
        found = [row for row in self.rows if chosen is None or row.company_id in chosen]
        return sorted(found, key=lambda one: -one.opened_at)


@pytest.fixture
def cast(db: None, settings: Settings) -> Cast:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    return make_cast()


@pytest.fixture
def operator(db: None) -> User:
    return User.objects.create_superuser("olga", password="a long enough password")


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> LiveRows:
    rows = LiveRows()
    monkeypatch.setattr(listing, "live_connections", rows)
    return rows


@pytest.fixture
def as_operator(operator: User) -> Client:
    return client_of(operator)


@pytest.fixture
def as_alice(cast: Cast) -> Client:
    """The admin of company Alpha."""
    return client_of(cast.alice)


def client_of(user: User, **options: Any) -> Client:
    client = Client(**options)
    client.force_login(user)
    return client
