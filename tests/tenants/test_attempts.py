"""Attempts are held back by name, for a bounded number of names."""

import pytest

from tenants import attempts
from tenants.attempts import AttemptLimiter


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(attempts, "time", clock)
    return clock


def test_burst_passes_and_one_more_waits(clock: Clock) -> None:
    limiter = AttemptLimiter(2.0, 3.0)
    assert [limiter.wait_for("bob") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_attempt_passes_after_the_wait_it_was_told(clock: Clock) -> None:
    limiter = AttemptLimiter(2.0, 1.0)
    limiter.wait_for("bob")
    clock.now += limiter.wait_for("bob") - 0.01
    assert limiter.wait_for("bob") == pytest.approx(0.01, abs=0.001)
    clock.now += 0.011
    assert limiter.wait_for("bob") == 0.0


def test_rest_gives_back_no_more_than_the_burst(clock: Clock) -> None:
    limiter = AttemptLimiter(2.0, 3.0)
    clock.now += 3_600
    assert [limiter.wait_for("bob") > 0 for _ in range(4)] == [False, False, False, True]


def test_one_name_does_not_hold_back_another(clock: Clock) -> None:
    limiter = AttemptLimiter(1.0, 1.0)
    limiter.wait_for("bob")
    assert limiter.wait_for("bob") > 0
    assert limiter.wait_for("charlie") == 0.0


def test_name_that_was_asked_longest_ago_is_forgotten_above_the_limit(clock: Clock) -> None:
    limiter = AttemptLimiter(1.0, 1.0, names_limit=2)
    limiter.wait_for("alice")
    limiter.wait_for("bob")
    assert limiter.wait_for("alice") > 0
    limiter.wait_for("charlie")
    assert limiter.wait_for("alice") > 0
    assert limiter.wait_for("bob") == 0.0
