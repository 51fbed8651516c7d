"""The worker's look at who is online: what it makes of a list that it cannot read."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError
from pytest_django import Settings

from streaming import presence
from streaming.cluster.live import LiveConnection
from streaming.live import LiveUnavailable
from streaming.presence import PresenceWatch
from tenants import access
from tests.streaming.shell_cast import Clock

Seen = set[tuple[str, str]]


def connection(user_id: str, *accounts: str) -> LiveConnection:
    return LiveConnection("s", "p", user_id, user_id, "alpha", "", 0.0, "idle", 0, 0, "", list(accounts), time.time())


class Door:
    """What was taken in, and whether accounts could go offline by it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
        settings.GATEWAY_PRESENCE_GRACE = 30.0
        self.rows: list[LiveConnection] | None = []
        self.calls: list[tuple[Seen, bool]] = []
        self.before: list[Seen | None] = []
        self.is_away = False
        monkeypatch.setattr(presence, "live_connections", self._list)
        monkeypatch.setattr(access, "observe", self._observe)

    def _list(self) -> list[LiveConnection]:
        if self.rows is None:
            raise LiveUnavailable("away")
        return self.rows

    def _observe(self, seen: Seen, *, before: Seen | None, may_end: bool, grace: Any) -> int:
        assert grace.total_seconds() == 30.0
        self.before.append(before)
        if self.is_away:
            raise OperationalError("the database is away")
        self.calls.append((seen, may_end))
        return 7


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Door:
    return Door(monkeypatch, settings)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    clock = Clock(monkeypatch, presence)
    return lambda elapsed: setattr(clock, "elapsed", elapsed)


def test_every_account_of_every_connection_is_seen(door: Door) -> None:
    door.rows = [connection("bob", "1", "2"), connection("alice"), connection("bob", "2")]
    assert PresenceWatch()() == 7
    assert door.calls == [({("bob", "1"), ("bob", "2")}, False)]


def test_nobody_goes_offline_before_the_watch_has_looked_for_the_grace(door: Door, at: Callable[[float], None]) -> None:
    watch = PresenceWatch()
    for elapsed in (0.0, 29.9, 30.0):
        at(elapsed)
        watch()
    assert [may_end for _, may_end in door.calls] == [False, False, True]


def test_grace_begins_anew_after_a_list_that_could_not_be_read(door: Door, at: Callable[[float], None]) -> None:
    watch = PresenceWatch()
    watch()
    at(31.0)
    watch()
    door.rows = None
    at(36.0)
    assert watch() == 0
    door.rows = []
    for elapsed in (41.0, 70.9, 71.0):
        at(elapsed)
        watch()
    assert [may_end for _, may_end in door.calls] == [False, True, False, False, True]


def test_each_look_tells_what_the_last_one_that_was_written_has_seen(door: Door) -> None:
    watch, one, two = PresenceWatch(), connection("bob", "1"), connection("bob", "2")
    door.rows = [one]
    watch()
    door.rows = [one, two]
    watch()
    door.rows = None
    watch()
    door.rows, door.is_away = [two], True
    with pytest.raises(OperationalError):
        watch()
    door.is_away = False
    watch()
    watch()
    first, both = {("bob", "1")}, {("bob", "1"), ("bob", "2")}
    assert door.before == [None, first, both, both, {("bob", "2")}]
