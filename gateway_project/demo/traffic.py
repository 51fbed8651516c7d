"""What goes through the gateway, from two looks at its ``/metrics``. Room: gateway_project (demo)."""

import http.client
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

_LATENCY = "gateway_produce_latency_seconds_bucket"


@dataclass(frozen=True)
class Snapshot:
    """The sums over all serving processes at one moment; ``buckets``: upper bound in seconds to cumulative count."""

    at: float = 0.0
    accepted: float = 0.0
    acknowledged: float = 0.0
    refused: float = 0.0
    connections: float = 0.0
    buckets: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Traffic:
    """Rates a second; delays in milliseconds, None when nothing was acknowledged in between."""

    accepted: float
    acknowledged: float
    refused: float
    connections: int
    delay_p50: float | None
    delay_p99: float | None


def parse(text: str, at: float) -> Snapshot:
    """``text``: Prometheus text format; ``at``: seconds of any steady clock."""
    results: defaultdict[str, float] = defaultdict(float)
    buckets: defaultdict[float, float] = defaultdict(float)
    connections = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "gateway_messages_total":
                results[sample.labels["result"]] += sample.value
            elif sample.name == "gateway_connections":
                connections += sample.value
            elif sample.name == _LATENCY:
                buckets[float(sample.labels["le"])] += sample.value
    return Snapshot(
        at, results["accepted"], results["acknowledged"], results["refused"], connections, dict(sorted(buckets.items()))
    )


def between(before: Snapshot, after: Snapshot) -> Traffic:
    """After a restart of the gateway the counts begin at 0 again: then they are all new."""
    if after.accepted < before.accepted or _total(after.buckets) < _total(before.buckets):
        before = Snapshot(at=before.at)
    seconds = max(after.at - before.at, 0.001)
    new = {bound: count - before.buckets.get(bound, 0.0) for bound, count in after.buckets.items()}
    delays = [quantile(new, q) for q in (0.5, 0.99)]
    p50, p99 = (None if delay is None else delay * 1000 for delay in delays)
    return Traffic(
        accepted=(after.accepted - before.accepted) / seconds,
        acknowledged=(after.acknowledged - before.acknowledged) / seconds,
        refused=max(after.refused - before.refused, 0.0) / seconds,
        connections=int(after.connections),
        delay_p50=p50,
        delay_p99=p99,
    )


def quantile(buckets: Mapping[float, float], q: float) -> float | None:
    """As Prometheus' ``histogram_quantile``: linear inside a bucket; beyond the last finite bound it is that bound."""
    total = _total(buckets)
    if total <= 0:
        return None
    rank = q * total
    lower, below = 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= rank and count > below:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower


def fetch(port: int, path: str, *, token: str = "", timeout: float = 1.0) -> tuple[int, str]:
    """(status, body) of a GET on this machine; (0, "") when nobody answers in time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def _total(buckets: Mapping[float, float]) -> float:
    return max(buckets.values(), default=0.0)
