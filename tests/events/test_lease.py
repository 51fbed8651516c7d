"""One relay at a time, and another when it is gone (events.lease)."""

import datetime

import pytest
from django.db.models import Value
from django.utils import timezone

from events.lease import LEASE_TTL, Lease
from events.models import RelayLease

pytestmark = pytest.mark.django_db


class Clock:
    """The database's time and that of the processes, as the test says."""

    def __init__(self) -> None:
        self.start = timezone.now()
        self.passed = 0.0

    def now(self) -> Value:
        return Value(self.start + datetime.timedelta(seconds=self.passed))

    def monotonic(self) -> float:
        return 1_000.0 + self.passed

    def lease(self, holder: str) -> Lease:
        return Lease("lease", holder, now=self.now, monotonic=self.monotonic)


def test_only_one_of_two_holds_it() -> None:
    clock = Clock()
    first, second = clock.lease("first"), clock.lease("second")
    assert first.keep() is True
    assert second.keep() is False
    assert (first.is_held, second.is_held) == (True, False)


def test_holder_that_renews_keeps_it() -> None:
    clock = Clock()
    first, second = clock.lease("first"), clock.lease("second")
    for _ in range(30):
        assert first.keep() is True
        assert second.keep() is False
        clock.passed += 1.0
    assert clock.passed > 3 * LEASE_TTL


def test_another_takes_over_when_the_holder_is_gone() -> None:
    clock = Clock()
    first, second = clock.lease("first"), clock.lease("second")
    first.keep()
    clock.passed = LEASE_TTL - 0.1
    assert second.keep() is False
    clock.passed = LEASE_TTL + 0.5
    assert second.keep() is True
    assert first.keep() is False


def test_holder_stops_before_another_may_begin() -> None:
    clock = Clock()
    first = clock.lease("first")
    first.keep()
    clock.passed = LEASE_TTL - 1.1
    assert first.is_held is True
    clock.passed = LEASE_TTL - 0.9
    assert first.is_held is False


def test_holder_that_slept_through_its_time_does_not_believe_in_it() -> None:
    clock = Clock()
    first, second = clock.lease("first"), clock.lease("second")
    first.keep()
    clock.passed = 2 * LEASE_TTL
    assert second.keep() is True
    assert first.is_held is False
    assert first.keep() is False


def test_released_lease_is_free_at_once() -> None:
    clock = Clock()
    first, second = clock.lease("first"), clock.lease("second")
    first.keep()
    first.release()
    assert first.is_held is False
    assert second.keep() is True


def test_release_leaves_anothers_lease_alone() -> None:
    clock = Clock()
    first, second = clock.lease("first"), clock.lease("second")
    first.keep()
    second.release()
    assert RelayLease.objects.get().holder == "first"


def test_times_are_the_databases_own() -> None:
    first, second = Lease("lease", "first"), Lease("lease", "second")
    assert first.keep() is True
    row = RelayLease.objects.get()
    remaining = (row.expires_at - timezone.now()).total_seconds()
    assert LEASE_TTL - 2 < remaining < LEASE_TTL + 2
    assert second.keep() is False
    RelayLease.objects.update(expires_at=timezone.now() - datetime.timedelta(seconds=1))
    assert Lease("lease", "third").keep() is True
