"""A sink on a real broker, with topics of its own for each test."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import uuid4

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streaming.core.errors import MessageRefused
from streaming.core.ports import Receipt
from streaming.core.session import Session
from streaming.sinks.config import producer_config
from streaming.sinks.kafka import KafkaSink


def new_topic(bootstrap: str, partitions: int = 1, *, replicas: list[list[int]] | None = None, **config: str) -> str:
    """Its name; ``config`` in Kafka's words with _ for the dot; ``replicas``: the brokers of each partition."""
    name = f"sink-{uuid4().hex[:12]}"
    settings = {key.replace("_", "."): value for key, value in config.items()}
    if replicas is None:
        topic = NewTopic(name, partitions, 1, config=settings)
    else:
        topic = NewTopic(name, len(replicas), replica_assignment=replicas, config=settings)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([topic])[name].result(timeout=20)
    return name


class Bench:
    def __init__(self, bootstrap: str, topics: list[str], failed: str, **more: Any) -> None:
        self.bootstrap = bootstrap
        self.delivered: list[int] = []
        self.failed: list[int] = []
        self.refused: list[tuple[int, MessageRefused]] = []
        self.resets: list[str] = []
        options: Mapping[str, str] = more.pop("options", {})
        self.sink = KafkaSink(
            producer_config(bootstrap, 0.0, options),
            topics,
            failed,
            lambda batch: self.delivered.extend(receipt[1] for receipt in batch),
            self._note_failed,
            lambda: None,
            lambda batch: self.refused.extend((receipt[1], error) for receipt, error in batch),
            in_flight_limit=100_000,
            in_flight_max_size=10**9,
            timeout=more.pop("timeout", 10.0),
            **more,
        )

    def _note_failed(self, batch: list[Receipt], reason: str) -> None:
        self.failed += [receipt[1] for receipt in batch]
        self.resets.append(reason)

    def publish(self, number: int, topic: str, key: bytes = b"bob", size: int = 0, headers: Any = None) -> None:
        value = b"%0*d" % (size, number)
        self.sink.publish(
            topic, key, value, (cast(Session, None), number, time.monotonic(), None, len(value), 0), headers
        )

    @property
    def told(self) -> list[int]:
        return sorted(self.delivered + self.failed + [number for number, _ in self.refused])

    async def settle(self) -> None:
        await until(lambda: not self.sink.in_flight)

    def read(self, topic: str) -> list[tuple[int, bytes, int]]:
        """Partition, key and number of every record, in order within a partition."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": topic, "enable.auto.commit": False})
        try:
            places = [
                TopicPartition(topic, n, 0) for n in consumer.list_topics(topic, timeout=10).topics[topic].partitions
            ]
            wanted = sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places)
            consumer.assign(places)
            records: list[tuple[int, bytes, int]] = []
            deadline = time.monotonic() + 20
            while len(records) < wanted and time.monotonic() < deadline:
                for message in consumer.consume(500, 0.5):
                    assert message.error() is None
                    place, key, value = message.partition(), message.key(), message.value()
                    assert place is not None
                    assert key is not None
                    assert value is not None
                    records.append((place, key, int(value[-9:])))
            return records
        finally:
            consumer.close()


@asynccontextmanager
async def sink_on(bootstrap: str, topics: list[str], failed: str, **more: Any) -> AsyncIterator[Bench]:
    """Connected."""
    bench = Bench(bootstrap, topics, failed, **more)
    bench.sink.start()
    try:
        await until(lambda: bench.sink.available)
        yield bench
    finally:
        await bench.sink.close(1.0)


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
