"""What Prometheus reads from a process, and from several behind one port."""

import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from streaming.core.context import Counts
from streaming.core.routing import build_routes
from streaming.metrics import HELP, LATENCY_BUCKETS, Histogram, Metrics, Sample, SharedSamples, render, samples_of
from tests.streaming.core.cast import ROUTES, signal, ticks
from tests.streaming.shell_cast import Process, Tenants, token_of
from tests.support.gateway import ROOT

GAUGES = {
    "gateway_connections": 3,
    "gateway_in_flight_messages": 7,
    "gateway_kafka_breaker_state": 0,
    "gateway_loop_lag_seconds": 0.25,
}


@pytest.fixture
async def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    tenants = Tenants()
    tenants.install(monkeypatch)
    return Process(tenants)


def busy() -> list[Sample]:
    """Samples of a process in which everything has happened that is counted."""
    counts, routes, metrics = Counts(), build_routes(ROUTES), Metrics()
    counts.bytes_received, counts.bytes_sent, counts.duplicates = 1_000, 200, 4
    counts.refusals = {("tick_data", "rate_limited"): 5, ("trading_signal", "rate_limited"): 1, ("", "malformed"): 2}
    counts.failed_messages = {"malformed": 2}
    counts.not_kept = {"unknown_type": 1}
    routes["tick_data"].accepted, routes["tick_data"].acknowledged, routes["tick_data"].unrecorded = 30, 20, 3
    metrics.closes[1012] = 6
    metrics.connects_refused[(429, "connect_rate")] = 8
    metrics.requests_cut[408] = 3
    metrics.produce_latency.counts[0] = 9
    metrics.produce_latency.counts[-1] = 1
    metrics.produce_latency.total = 61.5
    ill = [("failed-messages", ""), ("tick-data", "3")]
    return samples_of(GAUGES, counts, routes, metrics, ill, {("failed-messages", "not_allowed"): 7})


def families_of(text: bytes) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def value_of(text: bytes, sample_name: str, **labels: str) -> float:
    """The one sample of this name with exactly these labels besides ``process``."""
    [value] = [
        sample.value
        for family in families_of(text).values()
        for sample in family.samples
        if sample.name == sample_name and {"process": "0", **sample.labels} == {"process": "0", **labels}
    ]
    return value


def test_every_family_is_shown_with_its_kind_and_help() -> None:
    families = families_of(render({"0": busy()}))
    shown = {name: (family.type, family.documentation) for name, family in families.items()}
    assert shown == {name.removesuffix("_total"): about for name, about in HELP.items()}
    assert all(family.samples for family in families.values())


def test_every_sample_is_shown() -> None:
    samples = busy()
    families = families_of(render({"0": samples}))
    shown = [(s.name, sorted(s.labels.items()), s.value) for family in families.values() for s in family.samples]
    given = [(name, sorted({"process": "0", **labels}.items()), float(value)) for name, labels, value in samples]
    assert sorted(shown) == sorted(given)


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("gateway_connections", {}, 3),
        ("gateway_in_flight_messages", {}, 7),
        ("gateway_loop_lag_seconds", {}, 0.25),
        ("gateway_bytes_total", {"direction": "received"}, 1_000),
        ("gateway_bytes_total", {"direction": "sent"}, 200),
        ("gateway_messages_total", {"type": "", "result": "duplicate"}, 4),
        ("gateway_messages_total", {"type": "tick_data", "result": "accepted"}, 30),
        ("gateway_messages_total", {"type": "tick_data", "result": "acknowledged"}, 20),
        ("gateway_messages_total", {"type": "tick_data", "result": "unrecorded"}, 3),
        ("gateway_messages_total", {"type": "tick_data", "result": "refused"}, 5),
        ("gateway_messages_total", {"type": "trading_signal", "result": "refused"}, 1),
        ("gateway_messages_total", {"type": "notification", "result": "accepted"}, 0),
        ("gateway_refusals_total", {"code": "rate_limited"}, 6),
        ("gateway_refusals_total", {"code": "malformed"}, 2),
        ("gateway_failed_messages_total", {"reason": "malformed"}, 2),
        ("gateway_kafka_ill", {"topic": "failed-messages", "partition": ""}, 1),
        ("gateway_kafka_ill", {"topic": "tick-data", "partition": "3"}, 1),
        ("gateway_kafka_failures_total", {"topic": "failed-messages", "reason": "not_allowed"}, 7),
        ("gateway_closes_total", {"code": "1012"}, 6),
        ("gateway_connects_refused_total", {"status": "429", "code": "connect_rate"}, 8),
        ("gateway_produce_latency_seconds_bucket", {"le": "0.0005"}, 9),
        ("gateway_produce_latency_seconds_bucket", {"le": "60.0"}, 9),
        ("gateway_produce_latency_seconds_bucket", {"le": "+Inf"}, 10),
        ("gateway_produce_latency_seconds_count", {}, 10),
        ("gateway_produce_latency_seconds_sum", {}, 61.5),
    ],
)
def test_figure_is_the_count(name: str, labels: dict[str, str], value: float) -> None:
    assert value_of(render({"0": busy()}), name, **labels) == value


def test_fresh_process_shows_text_that_parses() -> None:
    fresh = samples_of({}, Counts(), build_routes(ROUTES), Metrics())
    text = render({"0": fresh})
    assert value_of(text, "gateway_produce_latency_seconds_count") == 0
    assert set(families_of(text)) == {name.removesuffix("_total") for name in HELP}


def test_buckets_rise_to_infinity() -> None:
    assert list(LATENCY_BUCKETS) == sorted(set(LATENCY_BUCKETS))
    histogram = Histogram()
    histogram.counts = [1] * len(histogram.counts)
    buckets = [(float(labels["le"]), value) for _, labels, value in histogram.samples("x")[:-2]]
    assert buckets == [(bound, n + 1) for n, bound in enumerate((*LATENCY_BUCKETS, math.inf))]


async def test_figures_of_a_process_follow_its_traffic(process: Process) -> None:
    bob, alice = await process.connect(), await process.connect(token_of("alice"))
    bob.send(sequence=1)
    bob.send("trading_signal", signal(), sequence=2)
    bob.send("nonsense", ticks(), sequence=3)
    alice.send("trading_signal", signal(symbol="AUDNZD"), sequence=1)
    text = process.runtime.exposition()
    assert value_of(text, "gateway_connections") == 2
    assert value_of(text, "gateway_in_flight_messages") == 3
    process.sink.deliver()
    alice.leave(1001)
    text = process.runtime.exposition()
    assert value_of(text, "gateway_connections") == 1
    assert value_of(text, "gateway_in_flight_messages") == 0
    assert value_of(text, "gateway_messages_total", type="tick_data", result="acknowledged") == 1
    assert value_of(text, "gateway_messages_total", type="trading_signal", result="acknowledged") == 1
    assert value_of(text, "gateway_messages_total", type="trading_signal", result="refused") == 1
    assert value_of(text, "gateway_failed_messages_total", reason="unknown_type") == 1
    assert value_of(text, "gateway_refusals_total", code="pair_not_active") == 1
    assert value_of(text, "gateway_produce_latency_seconds_count") == 3
    assert value_of(text, "gateway_closes_total", code="1001") == 1


async def test_messages_that_kafka_did_not_take_are_counted(process: Process) -> None:
    bob = await process.connect()
    bob.send(sequence=1)
    process.sink.available = False
    process.sink.fail()
    text = process.runtime.exposition()
    assert value_of(text, "gateway_messages_total", type="tick_data", result="unrecorded") == 1
    assert value_of(text, "gateway_kafka_breaker_state") == 1


async def test_part_of_kafka_that_is_ill_is_shown_while_it_is(process: Process) -> None:
    bob = await process.connect()
    bob.send("trading_signal", signal(), sequence=1)
    process.sink.make_ill("trading-signals")
    process.sink.make_ill("tick-data", b"alice")
    bob.send(sequence=2)
    process.sink.deliver()
    text = process.runtime.exposition()
    assert value_of(text, "gateway_kafka_ill", topic="trading-signals", partition="") == 1
    assert value_of(text, "gateway_kafka_ill", topic="tick-data", partition="0") == 1
    assert value_of(text, "gateway_kafka_failures_total", topic="trading-signals", reason="not_allowed") == 1
    assert value_of(text, "gateway_kafka_breaker_state") == 0
    process.sink.heal()
    assert not families_of(process.runtime.exposition())["gateway_kafka_ill"].samples


async def test_no_label_names_a_user_a_company_or_what_a_client_made_up(process: Process) -> None:
    bob = await process.connect(query="stream=bobs-stream")
    bob.send("made-up-type", ticks(), sequence=1)
    bob.send(sequence=2, correlation_id="c" * 65)
    bob.send(sequence=9, stream_id="bobs-stream")
    process.sink.deliver()
    samples = [s for f in families_of(process.runtime.exposition()).values() for s in f.samples]
    shown = {value for sample in samples for value in sample.labels.values()}
    for name in ("bob", "alpha", "1001", "EURUSD", "made-up", bob.connection.session.session_id):
        assert not any(name in value for value in shown)
    labels = {label for sample in samples for label in sample.labels}
    assert labels <= {"process", "direction", "type", "result", "code", "reason", "status", "le", "topic", "partition"}


@pytest.fixture
def shared(tmp_path: Path) -> Callable[[int], SharedSamples]:
    return lambda index: SharedSamples(tmp_path, index)


def test_any_process_shows_all_of_them_apart(shared: Callable[[int], SharedSamples], tmp_path: Path) -> None:
    first, second = shared(0), shared(1)
    first.write([("gateway_connections", {}, 3)])
    second.write([("gateway_connections", {}, 4), ("gateway_closes_total", {"code": "1012"}, 2)])
    text = render(second.read([("gateway_connections", {}, 5)]))
    samples = {tuple(sorted(s.labels.items())): s.value for s in families_of(text)["gateway_connections"].samples}
    # Another's as it last wrote it, its own as it is now.
    assert samples == {(("process", "0"),): 3, (("process", "1"),): 5}
    assert families_of(render(first.read([])))["gateway_closes"].samples[0].labels == {"code": "1012", "process": "1"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.json", "1.json"]


def test_process_that_has_died_leaves_its_counts_and_takes_its_gauges_along(
    shared: Callable[[int], SharedSamples], tmp_path: Path
) -> None:
    script = f"""
from pathlib import Path
from streaming.metrics import SharedSamples
samples = [("gateway_connections", {{}}, 7), ("gateway_kafka_ill", {{"topic": "t", "partition": ""}}, 1),
           ("gateway_closes_total", {{"code": "1012"}}, 2), ("gateway_produce_latency_seconds_count", {{}}, 5)]
SharedSamples(Path({str(tmp_path)!r}), 1).write(samples)
input()
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, cwd=ROOT)
    try:
        seen: dict[str, list[Sample]] = {}
        deadline = time.monotonic() + 30
        while "1" not in seen and time.monotonic() < deadline:
            seen = shared(0).read([])
        assert [name for name, _, _ in seen["1"]] == [
            "gateway_connections",
            "gateway_kafka_ill",
            "gateway_closes_total",
            "gateway_produce_latency_seconds_count",
        ]
    finally:
        child.kill()
        child.communicate()
    assert shared(0).read([])["1"] == [
        ("gateway_closes_total", {"code": "1012"}, 2),
        ("gateway_produce_latency_seconds_count", {}, 5),
    ]


def test_files_hold_what_was_measured(shared: Callable[[int], SharedSamples]) -> None:
    samples = busy()
    shared(0).write(samples)
    assert shared(1).read([])["0"] == samples
    shared(0).write([])
    assert shared(1).read([])["0"] == []


def test_single_process_writes_nothing() -> None:
    alone = SharedSamples(None, 0)
    alone.write(busy())
    assert alone.read([("gateway_connections", {}, 1)]) == {"0": [("gateway_connections", {}, 1)]}
