"""The demo's rates and delays come out of two looks at the counters (demo: live line)."""

import math
from typing import Any

import pytest

from gateway_project.demo.traffic import Snapshot, between, fetch, parse, quantile
from streaming.core.context import Counts
from streaming.core.routing import build_routes
from streaming.metrics import Metrics, render, samples_of


def exposition(accepted: int, delays: int) -> str:
    """Two processes with the same counts, as the gateway shows them."""
    routes = build_routes({"tick_data": "tick-data"})
    routes["tick_data"].accepted = accepted
    routes["tick_data"].acknowledged = accepted - 1
    counts, metrics = Counts(), Metrics()
    counts.refusals["tick_data", "pair_not_active"] = 3
    metrics.produce_latency.counts[3] = delays
    samples = samples_of({"gateway_connections": 2}, counts, routes, metrics)
    return render({"0": samples, "1": samples}).decode()


def test_parse_sums_over_processes() -> None:
    snapshot = parse(exposition(10, 9), at=5.0)
    assert (snapshot.accepted, snapshot.acknowledged, snapshot.refused, snapshot.connections) == (20, 18, 6, 4)
    assert (snapshot.buckets[0.0015], snapshot.buckets[0.002], snapshot.buckets[math.inf]) == (0, 18, 18)


def test_between_gives_rates_and_delays_of_the_time_between() -> None:
    traffic = between(parse(exposition(10, 9), at=5.0), parse(exposition(110, 109), at=7.0))
    assert (traffic.accepted, traffic.acknowledged, traffic.refused, traffic.connections) == (100, 100, 0, 4)
    assert traffic.delay_p50 == pytest.approx(1.75)
    assert traffic.delay_p99 == pytest.approx(1.995)


def test_restarted_gateway_counts_from_zero() -> None:
    traffic = between(parse(exposition(1000, 900), at=0.0), parse(exposition(10, 9), at=1.0))
    assert (traffic.accepted, traffic.acknowledged, traffic.refused) == (20, 18, 6)
    assert traffic.delay_p50 is not None


def test_quiet_second_has_no_delay() -> None:
    same = parse(exposition(10, 9), at=0.0)
    assert between(same, same).delay_p99 is None
    assert between(Snapshot(), Snapshot()).accepted == 0


@pytest.mark.parametrize(
    ("buckets", "q", "expected"),
    [
        ({}, 0.5, None),
        ({0.001: 0.0, math.inf: 0.0}, 0.5, None),
        ({0.001: 10.0, 0.002: 10.0, math.inf: 10.0}, 0.5, 0.0005),
        ({0.001: 5.0, 0.002: 10.0, math.inf: 10.0}, 0.75, 0.0015),
        # Nobody knows how much longer than the last bound.
        ({0.001: 0.0, 0.002: 0.0, math.inf: 4.0}, 0.99, 0.002),
        ({0.001: 0.0, 0.002: 4.0, math.inf: 4.0}, 0.0, 0.001),
    ],
)
def test_quantile(buckets: dict[float, float], q: float, expected: float | None) -> None:
    found: Any = quantile(buckets, q)
    assert found == (expected if expected is None else pytest.approx(expected))


def test_fetch_of_nobody_is_no_error() -> None:
    assert fetch(1, "/readyz") == (0, "")
