"""Percentiles of samples and of Prometheus histograms. Room: benchmarks."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TypedDict

from prometheus_client.parser import text_string_to_metric_families


class Spread(TypedDict):
    """A distribution in milliseconds; ``count`` samples stand behind it."""

    p50: float
    p99: float
    max: float
    count: int


def spread(microseconds: Sequence[int]) -> Spread | None:
    """None when there is no sample."""
    if not microseconds:
        return None
    ordered = sorted(microseconds)
    return {
        "p50": _nearest_rank(ordered, 0.50) / 1000,
        "p99": _nearest_rank(ordered, 0.99) / 1000,
        "max": ordered[-1] / 1000,
        "count": len(ordered),
    }


def median_spread(spreads: Sequence[Spread]) -> Spread | None:
    """The median of each percentile over several turns, the largest maximum, and the samples of all."""
    if not spreads:
        return None
    return {
        "p50": median(one["p50"] for one in spreads),
        "p99": median(one["p99"] for one in spreads),
        "max": max(one["max"] for one in spreads),
        "count": sum(one["count"] for one in spreads),
    }


def histogram(exposition: str, name: str) -> dict[float, float]:
    """The cumulative buckets (upper bound in the metric's unit → count) of one histogram, all its labels summed."""
    buckets: dict[float, float] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name == f"{name}_bucket":
                bound = float(sample.labels["le"])
                buckets[bound] = buckets.get(bound, 0.0) + sample.value
    return buckets


def histogram_spread(before: Mapping[float, float], after: Mapping[float, float]) -> Spread | None:
    """Percentiles (histogram in seconds, answer in milliseconds) of what came between two readings of a histogram.

    Within a bucket, samples are taken as evenly spread. ``max`` is the upper bound of the last bucket in use. None when
    nothing came.
    """
    bounds = sorted(after)
    counts = [after[bound] - before.get(bound, 0.0) for bound in bounds]
    if not counts or counts[-1] <= 0:
        return None
    highest = next(bound for bound, count in zip(bounds, counts, strict=True) if count >= counts[-1])
    return {
        "p50": _in_histogram(bounds, counts, 0.50) * 1000,
        "p99": _in_histogram(bounds, counts, 0.99) * 1000,
        "max": highest * 1000,
        "count": int(counts[-1]),
    }


def _in_histogram(bounds: Sequence[float], counts: Sequence[float], share: float) -> float:
    wanted = counts[-1] * share
    lower, below = 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= wanted:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = bound, count
    return lower


def _nearest_rank(ordered: Sequence[int], share: float) -> int:
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]
