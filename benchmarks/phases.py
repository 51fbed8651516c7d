"""The measurements: one server under one kind of load for one bounded time. Room: benchmarks."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

from benchmarks.children import Child, clean_environment, http_get
from benchmarks.load import Order
from benchmarks.procfs import cpu_seconds, resident_bytes
from benchmarks.servers import Bench, Running
from benchmarks.stats import Spread, histogram, histogram_spread

PACED_RATE = 6_000.0
PACED_CONNECTIONS = 120
SATURATED_CONNECTIONS = 20
IDLE_CONNECTIONS = 5_000
# Opened before the first reading, so that what a server allocates once is not counted to the connections.
IDLE_PRELUDE = 200
_PRODUCE_HISTOGRAM = "gateway_produce_latency_seconds"


class Duration(TypedDict):
    """Seconds before the measurement and of it."""

    warm_up: float
    measure: float


class Sample(TypedDict):
    """One server, one load, one time. Latencies in milliseconds, None where there is none."""

    server: str
    phase: str
    acks: bool
    messages: int
    messages_per_second: float
    cpu_us_per_message: float
    # Client's send to an independent consumer.
    consumer: Spread | None
    tick_ack: Spread | None
    signal_ack: Spread | None
    # Receipt of the frame to Kafka's delivery report, by the gateway's own histogram.
    produce: Spread | None
    refused: int
    unsettled: int
    closed_by_server: int
    # How far the generator itself fell behind its schedule, milliseconds.
    generator_late: float


class IdleSample(TypedDict):
    server: str
    connections: int
    bytes_per_connection: float


def measure(bench: Bench, running: Running, phase: str, duration: Duration, *, acks: bool) -> Sample:
    """``phase`` is saturated or paced; raises BenchmarkError when a process does not do its part."""
    paced = phase == "paced"
    server, root = running.server, running.child.pid
    connections = PACED_CONNECTIONS if paced else SATURATED_CONNECTIONS
    with (
        _consumer(bench, running, wanted=paced and server.produces) as consumer,
        _load(bench, running, phase, connections, duration, acks=acks) as load,
    ):
        time.sleep(duration["warm_up"])
        load.tell({"do": "measure"})
        histogram_before = _histogram(running, wanted=paced)
        since, started = time.time_ns() // 1000, time.monotonic()
        cpu_before, count_before = cpu_seconds(root), _count(bench, running)
        time.sleep(duration["measure"])
        until, seconds = time.time_ns() // 1000, time.monotonic() - started
        cpu, messages = cpu_seconds(root) - cpu_before, _count(bench, running) - count_before
        histogram_after = _histogram(running, wanted=paced)
        load.tell({"do": "stop"})
        done = load.expect("done", 15)
        latency: Spread | None = None
        if consumer is not None:
            consumer.tell({"since": since, "until": until})
            latency = consumer.expect("latency", 15)["spread"]
    return {
        "server": server.name,
        "phase": phase,
        "acks": acks,
        "messages": messages,
        "messages_per_second": messages / seconds,
        "cpu_us_per_message": cpu / messages * 1e6 if messages else float("nan"),
        "consumer": latency,
        "tick_ack": done["tick_ack"] if paced else None,
        "signal_ack": done["signal_ack"] if paced else None,
        "produce": histogram_spread(histogram_before, histogram_after),
        "refused": done["refused"],
        "unsettled": done["unsettled"],
        "closed_by_server": done["closed_by_server"],
        "generator_late": done["latest_ms"],
    }


def measure_idle(bench: Bench, running: Running, settle: float) -> IdleSample:
    """Growth of resident memory by connections that send nothing; ``settle`` seconds pass before each reading."""
    idle: Duration = {"warm_up": 0.0, "measure": 60.0}
    with _load(bench, running, "idle", IDLE_PRELUDE, idle, acks=False):
        time.sleep(settle)
        before = resident_bytes(running.child.pid)
        with _load(bench, running, "idle", IDLE_CONNECTIONS, idle, acks=False):
            time.sleep(settle)
            growth = resident_bytes(running.child.pid) - before
    return {
        "server": running.server.name,
        "connections": IDLE_CONNECTIONS,
        "bytes_per_connection": growth / IDLE_CONNECTIONS,
    }


@contextmanager
def _load(
    bench: Bench, running: Running, mode: str, connections: int, duration: Duration, *, acks: bool
) -> Iterator[Child]:
    order: Order = {
        "mode": mode,
        "terminals": running.terminals(bench.users, connections),
        "symbols": bench.symbols,
        "acks": acks,
        "rate": PACED_RATE,
        "bunch": bench.bunch,
        # Ends a generator that nobody stops.
        "seconds_limit": duration["warm_up"] + duration["measure"] + 30,
    }
    child = Child(
        "load generator", ["-m", "benchmarks.load"], bench.directory / "load.log", clean_environment(), talks=True
    )
    with child:
        child.tell(order)
        child.expect("connected", 60)
        yield child


@contextmanager
def _consumer(bench: Bench, running: Running, *, wanted: bool) -> Iterator[Child | None]:
    if not wanted:
        yield None
        return
    log = bench.directory / "consumer.log"
    with Child("consumer", ["-m", "benchmarks.consumer"], log, clean_environment(), talks=True) as child:
        child.tell({"kafka": bench.kafka.address, "topics": running.topics.data})
        child.expect("ready", 20)
        yield child


def _count(bench: Bench, running: Running) -> int:
    """Messages that have arrived: records in the topics, or frames read where nothing is produced."""
    if running.server.produces:
        return bench.kafka.count(running.topics.data)
    return int(json.loads(http_get(running.port, "/count")[1]))


def _histogram(running: Running, *, wanted: bool) -> dict[float, float]:
    if not wanted or running.server.gateway_processes != 1:
        return {}
    return histogram(http_get(running.port, "/metrics")[1], _PRODUCE_HISTOGRAM)
