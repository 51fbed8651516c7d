"""The Kafka sink when librdkafka reports in ways that a healthy broker does not: a twin of the producer plays them."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError

from streaming.core.ports import Receipt
from streaming.core.session import Session
from streaming.sinks import kafka as module
from streaming.sinks.kafka import KafkaSink

Report = Callable[[KafkaError | None, Any], None]


class Producer:
    """Reports each message at the next poll, but those of the key ``stuck`` only when purged."""

    def __init__(self) -> None:
        self.waiting: list[tuple[bytes, Report]] = []
        self.error: KafkaError | None = None

    def produce(self, _topic: str, _value: bytes, key: bytes, *, on_delivery: Report) -> None:
        self.waiting.append((key, on_delivery))

    def poll(self, _timeout: float) -> int:
        ready = [item for item in self.waiting if item[0] != b"stuck"]
        self.waiting = [item for item in self.waiting if item[0] == b"stuck"]
        for _, report in ready:
            report(self.error, None)
        return len(ready)

    def purge(self, **_: bool) -> None:
        self.waiting = [(b"", self._purged(report)) for _, report in self.waiting]

    @staticmethod
    def _purged(report: Report) -> Report:
        return lambda _error, message: report(KafkaError(KafkaError._PURGE_INFLIGHT), message)


class Bench:
    """A sink on such producers, and what it reported."""

    def __init__(self, timeout: float) -> None:
        self.delivered: list[int] = []
        self.failed: list[int] = []
        self.producers: list[Producer] = []
        self.on_failed: Callable[[list[Receipt], str], None] = self.note_failed
        self.sink = KafkaSink(
            {},
            [],
            lambda batch: self.delivered.extend(receipt[1] for receipt in batch),
            lambda batch, reason: self.on_failed(batch, reason),
            lambda: None,
            lambda batch: None,
            in_flight_limit=100,
            in_flight_max_size=100_000,
            timeout=timeout,
        )

    def note_failed(self, batch: list[Receipt], reason: str) -> None:
        assert reason
        self.failed += [receipt[1] for receipt in batch]

    def make_producer(self, _config: dict[str, Any]) -> Producer:
        self.producers.append(Producer())
        return self.producers[-1]

    def publish(self, number: int, key: bytes = b"bob") -> None:
        self.sink.publish("topic", key, b"x", (cast(Session, None), number, time.monotonic(), None, 1, 0))


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(timeout=0.3)

    async def warm(*_: object) -> None:
        return None

    monkeypatch.setattr(module, "Producer", bench.make_producer)
    monkeypatch.setattr(module, "ensure_topics", lambda *_: None)
    monkeypatch.setattr(module, "wait_for_producer_id", warm)
    bench.sink.start()
    await until(lambda: bench.sink.available)
    return bench


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_stuck_partition_gives_up_all_that_is_in_flight_although_others_report(bench: Bench) -> None:
    bench.publish(1, b"stuck")
    number = 2
    while not bench.failed:
        bench.publish(number)
        number += 1
        await asyncio.sleep(0.01)
    assert bench.failed[0] == 1
    await until(lambda: bench.sink.available)
    assert len(bench.producers) == 2
    assert sorted(bench.failed + bench.delivered) == list(range(1, number))
    await bench.sink.close(1.0)


async def test_single_failure_gives_up_everything(bench: Bench) -> None:
    bench.publish(1, b"stuck")
    await asyncio.sleep(0.02)
    bench.producers[0].error = KafkaError(KafkaError._MSG_TIMED_OUT)
    bench.publish(2)
    await until(lambda: len(bench.failed) == 2)
    assert (sorted(bench.failed), bench.delivered) == ([1, 2], [])
    await until(lambda: bench.sink.available)
    await bench.sink.close(1.0)


async def test_listener_that_raises_does_not_stop_the_sink(bench: Bench) -> None:
    crashed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: crashed.append(context))

    def crash(_batch: list[Receipt], _reason: str) -> None:
        raise RuntimeError("a listener's own mistake")

    bench.on_failed = crash
    bench.publish(1, b"stuck")
    await until(lambda: len(bench.producers) == 2 and bench.sink.available)
    assert len(crashed) == 1
    bench.publish(2)
    await until(lambda: bench.delivered == [2])
    await bench.sink.close(1.0)


async def test_close_returns_as_soon_as_everything_is_reported(bench: Bench) -> None:
    for number in range(50):
        bench.publish(number)
    async with asyncio.timeout(5):
        await bench.sink.close(60.0)
    assert (bench.delivered, bench.failed) == (list(range(50)), [])


async def test_close_fails_what_is_never_reported(bench: Bench) -> None:
    bench.publish(1, b"stuck")
    await bench.sink.close(0.1)
    assert (bench.failed, bench.sink.in_flight) == ([1], 0)


async def test_turn_that_is_due_is_not_put_off(bench: Bench) -> None:
    bench.sink._next_turn()
    # As the end of a reconnect does in the same round of the loop.
    bench.sink._schedule(60.0)
    await asyncio.sleep(0.01)
    bench.publish(1)
    await until(lambda: bench.delivered == [1])
    await bench.sink.close(1.0)
