"""The token bucket at its limit and one above."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.core.throttle import MirroredBucket, TokenBucket


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


# --- A copy of a bucket that other processes take from, too ----------------------------------------------------------


def emptied(share: float = 50.0) -> MirroredBucket:
    """Of 50 a second, just refused for the first time."""
    bucket = MirroredBucket(50.0, 50.0, 0.0)
    bucket.share(share)
    assert [bucket.take(0.0) for _ in range(51)] == [True] * 50 + [False]
    return bucket


def test_copy_that_nobody_else_takes_from_is_the_bucket_itself() -> None:
    mirrored, plain = MirroredBucket(20.0, 20.0, 0.0), TokenBucket(20.0, 20.0, 0.0)
    times = [place * place * 0.0013 % 4 for place in range(400)]
    for now in sorted(times):
        assert mirrored.take(now) == plain.take(now)
        assert mirrored.retry_after_ms() == plain.retry_after_ms()
    assert (mirrored.passed + mirrored.refused, mirrored.refused > 0) == (400, True)


def test_what_others_let_pass_is_a_debt_that_the_rate_pays_back() -> None:
    bucket = emptied()
    bucket.charge(100.0)
    assert not bucket.take(0.0)
    assert bucket.retry_after_ms() == 2_020
    assert not bucket.take(2.01)
    assert bucket.take(2.021)


def test_user_who_was_refused_gets_the_share_only_and_pays_debts_with_the_whole_rate() -> None:
    bucket = emptied(share=10.0)
    assert bucket.retry_after_ms() == 100
    bucket.charge(25.0)
    # Half a second for the debt, a tenth for the token.
    assert bucket.retry_after_ms() == 600
    assert not bucket.take(0.59)
    assert bucket.take(0.601)
    assert not bucket.take(0.65)


def test_what_was_left_to_others_who_did_not_use_it_comes_back() -> None:
    bucket = emptied(share=10.0)
    bucket.advance(0.5)
    bucket.charge(0.0)
    assert [bucket.take(0.5) for _ in range(6)] == [True] * 5 + [False]
    bucket.release()
    assert [bucket.take(0.5) for _ in range(21)] == [True] * 20 + [False]


def test_what_was_left_to_others_pays_for_what_they_let_pass() -> None:
    bucket = emptied(share=10.0)
    bucket.advance(0.5)
    bucket.charge(20.0)
    bucket.release()
    assert [bucket.take(0.5) for _ in range(6)] == [True] * 5 + [False]


def test_user_who_is_within_the_plan_again_has_the_whole_rate_again() -> None:
    bucket = emptied(share=10.0)
    # A quarter of the burst, at the share; then a tenth of a second at the rate.
    bucket.advance(1.26)
    assert [bucket.take(1.36) for _ in range(18)] == [True] * 17 + [False]


def test_share_counts_for_nobody_who_was_never_refused() -> None:
    bucket = MirroredBucket(50.0, 50.0, 0.0)
    bucket.share(1.0)
    now = 0.0
    for _ in range(1_000):
        now += 0.0201
        assert bucket.take(now)
    assert (bucket.passed, bucket.refused) == (1_000, 0)


def test_refill_of_a_full_bucket_is_remembered_as_overflow() -> None:
    bucket = MirroredBucket(50.0, 50.0, 0.0)
    bucket.advance(1.0)
    assert bucket.overflow == 50.0
    assert bucket.take(1.0)
    assert bucket.take(2.0)
    assert bucket.overflow == 99.0


def test_what_comes_back_to_a_full_bucket_is_overflow_too() -> None:
    bucket = emptied(share=25.0)
    # A quarter of the burst is back after half a second, 15 of 30; as much was withheld, and from there it is the rate.
    bucket.advance(0.6)
    bucket.advance(1.1)
    assert bucket.overflow == 0.0
    bucket.release()
    assert bucket.overflow == pytest.approx(5.0)


def test_change_of_plan_keeps_debts_and_the_proportion_of_the_share() -> None:
    bucket = emptied(share=10.0)
    bucket.charge(50.0)
    bucket.change(100.0, 100.0)
    assert not bucket.take(0.0)
    assert bucket.retry_after_ms() == 550
    bucket.change(5.0, 5.0)
    assert not bucket.take(0.0)
    assert bucket.retry_after_ms() == 11_000


@given(
    debt=st.floats(0.0, 500.0),
    rate=st.floats(0.5, 500.0),
    part=st.floats(0.05, 1.0),
    pauses=st.lists(st.floats(0.0, 3.0), max_size=5),
)
def test_client_that_waits_as_long_as_it_is_told_is_let_pass_and_a_little_earlier_is_not(
    debt: float, rate: float, part: float, pauses: list[float]
) -> None:
    bucket, now = MirroredBucket(rate, rate, 0.0), 0.0
    bucket.share(rate * part)
    for pause in pauses:
        now += pause
        bucket.take(now)
    while bucket.take(now):
        pass
    bucket.charge(debt)
    bucket.take(now)
    wait = bucket.retry_after_ms() / 1000
    if wait > 0.002:
        assert not bucket.take(now + wait - 0.0011)
    assert bucket.take(now + wait + 1e-6)
