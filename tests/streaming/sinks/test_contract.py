"""One contract for every sink: the twin in memory and Kafka itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, TopicPartition

from streaming.core.codes import NackAction
from streaming.core.errors import MessageRefused
from streaming.core.ports import Receipt
from streaming.core.session import Session
from streaming.sinks.config import producer_config
from streaming.sinks.kafka import KafkaSink
from streaming.sinks.memory import MemorySink
from tests.support.kafka import KafkaBroker
from tests.support.kafka.rules import deny, forget_rules

TOPICS = ["contract-a", "contract-b"]
FAILED = "contract-failed"
Record = tuple[str, bytes, bytes, dict[str, bytes]]


@dataclass
class Bench:
    """A sink under test, what it reported, and how to make it report and to read what it wrote."""

    delivered: list[Receipt] = field(default_factory=list)
    failed: list[Receipt] = field(default_factory=list)
    room: list[bool] = field(default_factory=list)
    refused: list[tuple[Receipt, MessageRefused]] = field(default_factory=list)
    sink: Any = None
    settle: Any = None
    read: Any = None
    # Makes a topic refuse what it gets; heals it again.
    make_ill: Any = None
    heal: Any = None

    def on_delivered(self, batch: list[Receipt]) -> None:
        self.delivered += batch

    def on_failed(self, batch: list[Receipt], reason: str) -> None:
        assert reason
        self.failed += batch

    def on_room(self) -> None:
        self.room.append(self.sink.is_full)

    def publish(
        self, number: int, *, topic: str = "contract-a", key: bytes = b"bob", size: int = 0, **more: Any
    ) -> None:
        value = b"%0*d" % (size, number)
        receipt: Receipt = (cast(Session, None), number, time.monotonic(), None, len(value), 0)
        self.sink.publish(topic, key, value, receipt, **more)


@pytest.fixture(params=["memory", "kafka"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    bench = Bench()
    if request.param == "memory":
        bench.sink = sink = MemorySink(
            bench.on_delivered, bench.on_failed, bench.on_room, bench.refused.extend, in_flight_limit=100
        )

        async def deliver() -> None:
            sink.deliver()

        bench.settle = deliver
        bench.make_ill, bench.heal = sink.make_ill, lambda _topic: sink.heal()
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
    bench.make_ill = lambda topic: deny(broker.bootstrap, topic)
    bench.heal = lambda topic: forget_rules(broker.bootstrap, topic)
    yield bench
    await kafka.close(5.0)


def kafka_sink(bench: Bench, bootstrap: str, *, timeout: float) -> KafkaSink:
    sink = KafkaSink(
        producer_config(bootstrap, 0.001, {}),
        TOPICS,
        FAILED,
        bench.on_delivered,
        bench.on_failed,
        bench.on_room,
        bench.refused.extend,
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
    assert (bench.failed, bench.refused, bench.sink.in_flight) == ([], [], 0)
    assert (bench.sink.is_ill, bench.sink.ill_parts(), bench.sink.takes_user(b"bob")) == (False, [], True)


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


async def test_message_that_is_too_large_by_itself_is_refused_for_good_and_alone(bench: Bench) -> None:
    for number in range(10):
        bench.publish(number, size=1_200_000 if number == 4 else 0)
    await bench.settle()
    [(receipt, error)] = bench.refused
    assert (receipt[1], error.code, error.action) == (4, "too_large", NackAction.FINAL)
    assert [receipt[1] for receipt in bench.delivered] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert (bench.failed, bench.sink.in_flight, bench.sink.available) == ([], 0, True)
    assert bench.sink.failures == {("contract-a", "too_large"): 1}


async def test_topic_that_refuses_settles_its_messages_and_delays_no_other(bench: Bench) -> None:
    bench.make_ill("contract-b")
    for number in range(60):
        bench.publish(number, topic=TOPICS[number % 2], key=b"user-%d" % (number % 7))
    await bench.settle()
    assert sorted(receipt[1] for receipt in bench.delivered) == list(range(0, 60, 2))
    assert sorted(receipt[1] for receipt, _ in bench.refused) == list(range(1, 60, 2))
    assert {(error.code, error.action) for _, error in bench.refused} == {("backend_unavailable", NackAction.REOFFER)}
    assert (bench.failed, bench.sink.available, bench.sink.is_ill) == ([], True, True)
    assert bench.sink.ill_parts() == [("contract-b", "")]
    assert bench.sink.takes("contract-a", b"bob")
    assert not bench.sink.takes("contract-b", b"bob")
    # Its users still have everything else.
    assert bench.sink.takes_user(b"bob")
    bench.heal("contract-b")
    await until(lambda: not bench.sink.is_ill, 20)
    bench.publish(60, topic="contract-b")
    await bench.settle()
    assert bench.delivered[-1][1] == 60
    assert bench.sink.failures == {("contract-b", "not_allowed"): 30}


async def test_kafka_sink_is_warm_when_it_says_available(kafka: KafkaBroker) -> None:
    bench = Bench()
    sink = kafka_sink(bench, kafka.bootstrap, timeout=10.0)
    await until(lambda: sink.available, 30)
    bench.publish(1)
    assert await sink.drain(10.0)
    await sink.close(5.0)
    assert len(bench.delivered) == 1


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
