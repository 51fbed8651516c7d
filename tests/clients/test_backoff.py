"""When a client connects again."""

import random

import pytest

from trading_gateway_client.backoff import CAP, STABLE_AFTER, Backoff
from trading_gateway_client.errors import seconds_of


class _Highest(random.Random):
    """Draws the upper end of every range."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_ceilings_double_up_to_the_cap() -> None:
    backoff = Backoff(base=1.0, cap=10.0, source=_Highest())
    assert [backoff.after_failure() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_jitter_is_full() -> None:
    delays = [Backoff(base=8.0, source=random.Random(seed)).after_failure() for seed in range(500)]
    assert min(delays) < 0.5
    assert max(delays) > 7.5
    assert all(0.0 <= delay <= 8.0 for delay in delays)


def test_a_crowd_of_failures_stays_at_the_cap() -> None:
    backoff = Backoff(source=_Highest())
    assert [backoff.after_failure() for _ in range(5000)][-1] == CAP


def test_only_a_stable_connection_clears_the_count() -> None:
    backoff = Backoff(base=1.0, source=_Highest())
    backoff.after_failure()
    backoff.connected_for(STABLE_AFTER - 0.1)
    assert backoff.after_failure() == 2.0
    backoff.connected_for(STABLE_AFTER)
    assert backoff.after_failure() == 1.0


def test_a_hint_is_its_delay_and_a_part_of_its_jitter() -> None:
    assert Backoff(source=_Highest()).after_hint(2000, 3000) == 5.0
    assert Backoff().after_hint(1500, 0) == 1.5
    delays = [Backoff(source=random.Random(seed)).after_hint(1000, 1000) for seed in range(200)]
    assert 1.0 <= min(delays) < 1.1
    assert 1.9 < max(delays) <= 2.0


def test_a_hint_leaves_the_count() -> None:
    backoff = Backoff(base=1.0, source=_Highest())
    backoff.after_hint(1000, 0)
    assert backoff.after_failure() == 1.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("", 0.0),
        ("-3", 0.0),
        ("1.5", 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        ("²", 0.0),
        ("9" * 500, 3600.0),
    ],
)
def test_retry_after(header: str, seconds: float) -> None:
    assert seconds_of(header) == seconds
