"""The token bucket at its limit and one above."""

from hypothesis import given
from hypothesis import strategies as st

from streaming.core.throttle import TokenBucket


def test_burst_passes_and_the_next_waits() -> None:
    bucket = TokenBucket(10.0, 10.0, 0.0)
    assert [bucket.take(0.0) for _ in range(11)] == [True] * 10 + [False]
    assert bucket.retry_after_ms() == 100
    assert not bucket.take(0.099)
    assert bucket.take(0.2)


def test_rest_fills_no_more_than_the_burst() -> None:
    bucket = TokenBucket(10.0, 10.0, 0.0)
    assert [bucket.take(1_000.0) for _ in range(11)].count(True) == 10


def test_change_of_rate_gives_no_free_burst() -> None:
    bucket = TokenBucket(10.0, 10.0, 0.0)
    for _ in range(10):
        bucket.take(0.0)
    bucket.change(100.0, 100.0)
    assert not bucket.take(0.0)
    bucket.change(1.0, 1.0)
    assert [bucket.take(60.0) for _ in range(2)] == [True, False]


@given(st.lists(st.floats(min_value=0, max_value=0.5), max_size=200))
def test_no_pattern_of_arrivals_gets_more_than_rate_and_burst(pauses: list[float]) -> None:
    bucket, now, passed = TokenBucket(20.0, 20.0, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        passed += bucket.take(now)
    assert passed <= 20 + now * 20 + 1e-6
