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


def test_bucket_whose_rate_is_let_pass_elsewhere_says_to_wait() -> None:
    bucket = TokenBucket(10.0, 10.0, 0.0)
    bucket.change(0.0, 0.0)
    assert [bucket.take(0.0), bucket.take(5.0)] == [True, False]
    assert bucket.retry_after_ms() == 1_000
    bucket.change(10.0, 10.0)
    assert bucket.take(5.2)


def test_newcomer_has_a_small_part_of_the_burst_and_at_least_one_event() -> None:
    bucket = TokenBucket(50.0, 50.0, 0.0)
    bucket.shrink(0.1)
    assert [bucket.take(0.0) for _ in range(6)] == [True] * 5 + [False]
    small = TokenBucket(2.0, 2.0, 0.0)
    small.shrink(0.1)
    assert [small.take(0.0), small.take(0.0)] == [True, False]
