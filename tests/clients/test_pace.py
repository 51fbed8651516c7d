"""A client keeps under the rate of its plan."""

import pytest

from trading_gateway_client.pace import Pace


def _sent(pace: Pace, seconds: float) -> int:
    """How many messages go out from time 0 on, when the client always has one."""
    now, sent = 0.0, 0
    while now < seconds:
        wait = pace.take(now)
        if wait:
            assert now + wait > now, "the wait is lost in the clock's rounding: the client would spin"
            now += wait
        else:
            sent += 1
    return sent


def test_half_a_second_goes_at_once() -> None:
    pace = Pace(100.0, 0.0)
    assert [pace.take(0.0) for _ in range(50)] == [0.0] * 50
    assert pace.take(0.0) == pytest.approx(1 / 97)


@pytest.mark.parametrize("rate", [5.0, 50.0, 1000.0])
def test_never_above_the_rate(rate: float) -> None:
    seconds = 60.0
    sent = _sent(Pace(rate, 0.0), seconds)
    assert 0.95 * rate * seconds <= sent <= rate * seconds + rate / 2


def test_after_the_told_wait_one_may_go() -> None:
    pace = Pace(10.0, 0.0)
    now = 0.0
    for _ in range(100):
        wait = pace.take(now)
        if wait:
            now += wait
            assert pace.take(now) == 0.0


def test_a_rest_gives_no_more_than_the_burst() -> None:
    pace = Pace(10.0, 0.0)
    assert [pace.take(1e6) for _ in range(6)] == [0.0] * 5 + [pytest.approx(1 / 9.7)]


def test_a_rate_of_nothing_is_still_finite() -> None:
    pace = Pace(0.0, 0.0)
    assert pace.take(0.0) == 0.0
    assert pace.take(0.0) == pytest.approx(10.0)
