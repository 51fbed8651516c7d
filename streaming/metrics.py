"""Counters of this process and their Prometheus form. Room: streaming.

The hot path only adds to plain integers; the text is made when somebody asks. With several processes on one port each
writes its samples to a file once a second, and whichever is asked shows all of them, told apart by ``process``.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

from streaming.core.context import Counts
from streaming.core.routing import Route

# Upper bounds in seconds, fine where the product's promises are.
LATENCY_BUCKETS = (
    0.0005, 0.001, 0.0015, 0.002, 0.0025, 0.003, 0.0035, 0.004, 0.005, 0.0065, 0.008, 0.01, 0.015, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip

Sample = tuple[str, dict[str, str], float]


class Histogram:
    """Counts by bucket of LATENCY_BUCKETS; who has many at once adds to ``counts`` and ``total`` by itself."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BUCKETS) + 1)
        self.total = 0.0

    def samples(self, name: str) -> list[Sample]:
        samples: list[Sample] = []
        running = 0
        for bound, count in zip((*map(str, LATENCY_BUCKETS), "+Inf"), self.counts, strict=True):
            running += count
            samples.append((f"{name}_bucket", {"le": bound}, running))
        return [*samples, (f"{name}_sum", {}, self.total), (f"{name}_count", {}, running)]


class Metrics:
    """What the shell counts beside the core's own counts."""

    def __init__(self) -> None:
        self.produce_latency = Histogram()
        self.closes: Counter[int] = Counter()
        self.connects_refused: Counter[tuple[int, str]] = Counter()
        # HTTP status -> requests
        self.requests_cut: Counter[int] = Counter()


HELP = {
    "gateway_connections": ("gauge", "Open terminal connections."),
    "gateway_messages_total": ("counter", "Messages by type and result."),
    "gateway_refusals_total": ("counter", "Messages refused, by nack code."),
    "gateway_bytes_total": ("counter", "Bytes of WebSocket messages, received and sent."),
    "gateway_produce_latency_seconds": ("histogram", "From the frame's receipt to Kafka's delivery report."),
    "gateway_in_flight_messages": ("gauge", "Messages published and not confirmed by Kafka yet."),
    "gateway_kafka_breaker_state": ("gauge", "1 while Kafka does not take messages, else 0."),
    "gateway_kafka_ill": ("gauge", "1 for each topic, or partition of one, that takes no messages while others do."),
    "gateway_kafka_failures_total": ("counter", "Messages that Kafka did not record, by topic and reason."),
    "gateway_failed_messages_total": ("counter", "Messages kept in failed-messages, by reason."),
    "gateway_frames_not_kept_total": ("counter", "Frames that failed-messages could not take, by reason."),
    "gateway_connects_refused_total": ("counter", "Handshakes refused, by HTTP status and code."),
    "gateway_requests_cut_total": ("counter", "Requests too slow or too large, by HTTP status."),
    "gateway_closes_total": ("counter", "Connections ended, by close code; 0: one that clients made up."),
    "gateway_loop_lag_seconds": ("gauge", "How late the event loop was at the last look, once a second."),
}


def samples_of(
    gauges: Mapping[str, float],
    counts: Counts,
    routes: Mapping[str, Route],
    metrics: Metrics,
    ill_parts: Iterable[tuple[str, str]] = (),
    failures: Mapping[tuple[str, str], int] | None = None,
) -> list[Sample]:
    """All of one process; ``gauges``: name to value now; ``ill_parts``: topics with the number of a partition or "";
    ``failures``: (topic, reason) to messages."""
    messages, refused, codes = "gateway_messages_total", Counter[str](), Counter[str]()
    for (message_type, code), count in counts.refusals.items():
        refused[message_type] += count
        codes[code] += count
    samples: list[Sample] = [(name, {}, value) for name, value in gauges.items()]
    samples += [
        ("gateway_bytes_total", {"direction": "received"}, counts.bytes_received),
        ("gateway_bytes_total", {"direction": "sent"}, counts.bytes_sent),
        (messages, {"type": "", "result": "duplicate"}, counts.duplicates),
    ]
    for name, route in routes.items():
        samples.append((messages, {"type": name, "result": "accepted"}, route.accepted))
        samples.append((messages, {"type": name, "result": "acknowledged"}, route.acknowledged))
        samples.append((messages, {"type": name, "result": "unrecorded"}, route.unrecorded))
    samples += [(messages, {"type": name, "result": "refused"}, count) for name, count in refused.items()]
    samples += [("gateway_refusals_total", {"code": code}, count) for code, count in codes.items()]
    samples += [("gateway_failed_messages_total", {"reason": r}, n) for r, n in counts.failed_messages.items()]
    samples += [("gateway_frames_not_kept_total", {"reason": r}, n) for r, n in counts.not_kept.items()]
    samples += [("gateway_closes_total", {"code": str(int(code))}, n) for code, n in metrics.closes.items()]
    samples += [("gateway_requests_cut_total", {"status": str(s)}, n) for s, n in metrics.requests_cut.items()]
    samples += [("gateway_kafka_ill", {"topic": topic, "partition": part}, 1) for topic, part in ill_parts]
    for (topic, reason), count in (failures or {}).items():
        samples.append(("gateway_kafka_failures_total", {"topic": topic, "reason": reason}, count))
    for (status, code), count in metrics.connects_refused.items():
        samples.append(("gateway_connects_refused_total", {"status": str(status), "code": code}, count))
    return samples + metrics.produce_latency.samples("gateway_produce_latency_seconds")


class _Snapshot:
    """A collector for one answer."""

    def __init__(self, by_process: dict[str, list[Sample]]) -> None:
        self._by_process = by_process

    def collect(self) -> Iterator[Metric]:
        for name, (kind, text) in HELP.items():
            family = name.removesuffix("_total")
            metric = Metric(family, text, kind)
            for process, samples in sorted(self._by_process.items()):
                for sample_name, labels, value in samples:
                    if sample_name == name or (kind == "histogram" and sample_name.rpartition("_")[0] == name):
                        metric.add_sample(sample_name, {"process": process, **labels}, value)
            yield metric


def render(by_process: dict[str, list[Sample]]) -> bytes:
    """The Prometheus text format, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(by_process))
    return generate_latest(registry)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class SharedSamples:
    """The files by which the processes behind one port know each other's samples. What a process has counted stays
    when it dies; how it stood (its gauges) does not."""

    def __init__(self, folder: Path | None, index: int) -> None:
        self._folder = folder
        self._index = index

    def write(self, samples: list[Sample]) -> None:
        if self._folder is not None:
            draft = self._folder / f"{self._index}.tmp"
            draft.write_bytes(msgspec.json.encode((os.getpid(), samples)))
            draft.replace(self._folder / f"{self._index}.json")

    def read(self, own: list[Sample]) -> dict[str, list[Sample]]:
        """The newest of every process, this one's live."""
        found: dict[str, list[Sample]] = {}
        if self._folder is not None:
            for path in self._folder.glob("*.json"):
                pid, rows = msgspec.json.decode(path.read_bytes(), type=tuple[int, list[Sample]])
                is_alive = _is_alive(pid)
                found[path.stem] = [row for row in rows if is_alive or HELP.get(row[0], ("",))[0] != "gauge"]
        found[str(self._index)] = own
        return found
