"""One contract for every sink: the twin in memory and Kafka itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, TopicPartition

from streaming.core.ports import Receipt
from streaming.core.session import Session
from streaming.sinks.kafka import KafkaSink, producer_config
from streaming.sinks.memory import MemorySink
from tests.support.kafka import KafkaBroker

TOPICS = ["contract-a", "contract-b"]
Record = tuple[str, bytes, bytes, dict[str, bytes]]


@dataclass
class Bench:
    """A sink under test, what it reported, and how to make it report and to read what it wrote."""

    delivered: list[Receipt] = field(default_factory=list)
    failed: list[Receipt] = field(default_factory=list)
    room: list[bool] = field(default_factory=list)
    too_large: list[Receipt] = field(default_factory=list)
    sink: Any = None
    settle: Any = None
    read: Any = None

    def on_delivered(self, batch: list[Receipt]) -> None:
        self.delivered += batch

    def on_failed(self, batch: list[Receipt], reason: str) -> None:
        assert reason
        self.failed += batch

    def on_room(self) -> None:
        self.room.append(self.sink.is_full)

    def publish(self, number: int, *, topic: str = "contract-a", key: bytes = b"bob", **more: Any) -> None:
        value = b"%d" % number
        receipt: Receipt = (cast(Session, None), number, time.monotonic(), None, len(value), 0)
        self.sink.publish(topic, key, value, receipt, **more)


@pytest.fixture(params=["memory", "kafka"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    bench = Bench()
    if request.param == "memory":
        bench.sink = sink = MemorySink(bench.on_delivered, bench.on_failed, bench.on_room, in_flight_limit=100)

        async def deliver() -> None:
            sink.deliver()

        bench.settle = deliver
        bench.read = lambda: [(r.topic, r.key, r.value, dict(r.headers or ())) for r in sink.records]
        yield bench
        return
    broker: KafkaBroker = request.getfixturevalue("kafka")
    kafka = kafka_sink(bench, broker.bootstrap, timeout=10.0)
    await until(lambda: kafka.available, 30)
    before = watermarks(broker.bootstrap)

    async def drain() -> None:
        assert await kafka.drain(10.0)

    bench.settle = drain
    bench.read = lambda: read_from(broker.bootstrap, before)
    yield bench
    await kafka.close(5.0)


def kafka_sink(bench: Bench, bootstrap: str, *, timeout: float) -> KafkaSink:
    sink = KafkaSink(
        producer_config(bootstrap, 0.001, {}),
        TOPICS,
        bench.on_delivered,
        bench.on_failed,
        bench.on_room,
        bench.too_large.extend,
        in_flight_limit=100,
        in_flight_max_size=4_000_000,
        timeout=timeout,
    )
    bench.sink = sink
    sink.start()
    return sink


async def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)


def watermarks(bootstrap: str) -> dict[tuple[str, int], int]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "contract"})
    try:
        topics = consumer.list_topics(timeout=10).topics
        return {
            (topic, partition): consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1]
            for topic in TOPICS
            for partition in topics[topic].partitions
        }
    finally:
        consumer.close()


def read_from(bootstrap: str, start: dict[tuple[str, int], int]) -> list[Record]:
    """Everything between two looks at the watermarks, in order within a partition."""
    end = watermarks(bootstrap)
    wanted = sum(end[place] - start[place] for place in start)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "contract", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, partition, offset) for (topic, partition), offset in start.items()])
        records: list[Record] = []
        deadline = time.monotonic() + 15
        while len(records) < wanted and time.monotonic() < deadline:
            message = consumer.poll(1.0)
            if message is not None:
                assert message.error() is None
                headers = dict(message.headers() or [])
                records.append(cast(Record, (message.topic(), message.key(), message.value(), headers)))
        return records
    finally:
        consumer.close()


async def test_every_receipt_comes_back_once(bench: Bench) -> None:
    for number in range(50):
        bench.publish(number, key=b"user-%d" % (number % 7), topic=TOPICS[number % 2])
    assert bench.sink.in_flight == 50
    await bench.settle()
    assert sorted(receipt[1] for receipt in bench.delivered) == list(range(50))
    assert (bench.failed, bench.sink.in_flight) == ([], 0)


async def test_order_is_kept_for_each_key_of_a_topic(bench: Bench) -> None:
    for number in range(80):
        bench.publish(number, key=b"user-%d" % (number % 3))
    await bench.settle()
    by_key: dict[bytes, list[int]] = {}
    for _, key, value, _ in bench.read():
        by_key.setdefault(key, []).append(int(value))
    assert by_key == {b"user-%d" % k: list(range(k, 80, 3)) for k in range(3)}


async def test_headers_are_kept(bench: Bench) -> None:
    bench.publish(1, headers=[("reason", b"malformed"), ("user_id", b"bob")])
    await bench.settle()
    assert bench.read() == [("contract-a", b"bob", b"1", {"reason": b"malformed", "user_id": b"bob"})]


async def test_full_sink_says_so_and_says_when_it_has_room(bench: Bench) -> None:
    for number in range(99):
        bench.publish(number)
    assert not bench.sink.is_full
    bench.publish(99)
    assert bench.sink.is_full
    await bench.settle()
    assert (bench.sink.is_full, bench.room) == (False, [False])


async def test_kafka_sink_is_warm_when_it_says_available(kafka: KafkaBroker) -> None:
    bench = Bench()
    sink = kafka_sink(bench, kafka.bootstrap, timeout=10.0)
    await until(lambda: sink.available, 30)
    bench.publish(1)
    assert await sink.drain(10.0)
    await sink.close(5.0)
    assert len(bench.delivered) == 1


async def test_message_that_kafka_takes_at_no_time_is_told_apart(kafka: KafkaBroker) -> None:
    bench = Bench()
    sink = kafka_sink(bench, kafka.bootstrap, timeout=10.0)
    await until(lambda: sink.available, 30)
    large: Receipt = (cast(Session, None), 1, time.monotonic(), None, 2_000_000, 0)
    sink.publish(TOPICS[0], b"bob", b"x" * 2_000_000, large)
    bench.publish(2)
    assert await sink.drain(10.0)
    assert (bench.too_large, [receipt[1] for receipt in bench.delivered], bench.failed) == ([large], [2], [])
    assert sink.available
    await sink.close(5.0)


async def test_broker_away_fails_everything_at_once_and_the_sink_recovers(own_kafka: KafkaBroker) -> None:
    bench = Bench()
    sink = kafka_sink(bench, own_kafka.bootstrap, timeout=1.0)
    await until(lambda: sink.available, 30)
    before = watermarks(own_kafka.bootstrap)
    bench.publish(1)
    assert await sink.drain(10.0)
    own_kafka.kill()
    for number in range(2, 10):
        bench.publish(number)
    await until(lambda: not sink.available, 10)
    assert sorted(receipt[1] for receipt in bench.failed) == list(range(2, 10))
    assert (sink.in_flight, sink.in_flight_size) == (0, 0)
    own_kafka.start()
    await until(lambda: sink.available, 60)
    for number in range(2, 10):
        bench.publish(number)
    assert await sink.drain(20.0)
    await sink.close(5.0)
    values = [int(value) for _, _, value, _ in read_from(own_kafka.bootstrap, before)]
    assert list(dict.fromkeys(values)) == list(range(1, 10))


async def test_publish_without_a_connection_is_reported_as_failed() -> None:
    bench = Bench()
    sink = kafka_sink(bench, "127.0.0.1:1", timeout=1.0)
    bench.publish(1)
    await until(lambda: len(bench.failed) == 1, 5)
    assert not sink.available
    await sink.close(1.0)
