"""Topics of a test's own on a shared broker, and all that is in them."""

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from confluent_kafka import Consumer, TopicPartition

from proto.gateway.v1 import envelope_pb2

_TYPES = {
    "tick_data": "tick-data",
    "trading_signal": "trading-signals",
    "user_event": "user-events",
    "notification": "notifications",
}
# (user_id, stream_id, sequence): what names a message for good.
Name = tuple[str, str, int]


@dataclass(frozen=True)
class Record:
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: dict[str, bytes]

    @property
    def envelope(self) -> envelope_pb2.MessageEnvelope:
        return envelope_pb2.MessageEnvelope.FromString(self.value)


@dataclass(frozen=True)
class Topics:
    """``settings`` makes a gateway use them."""

    bootstrap: str
    prefix: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}-")

    @property
    def routes(self) -> dict[str, str]:
        return {kind: self.prefix + name for kind, name in _TYPES.items()}

    @property
    def failed(self) -> str:
        return self.prefix + "failed-messages"

    @property
    def settings(self) -> dict[str, str]:
        routes = ",".join(f"{kind}={topic}" for kind, topic in self.routes.items())
        return {
            "GATEWAY_ROUTES": routes,
            "GATEWAY_FAILED_MESSAGES_TOPIC": self.failed,
            "GATEWAY_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
        }

    def read(self, *kinds: str) -> list[Record]:
        """Everything in the topics of these message types (all when none is named), in order within a partition."""
        return read_topics(self.bootstrap, [self.routes[kind] for kind in kinds or _TYPES])

    def read_failed(self) -> list[Record]:
        return read_topics(self.bootstrap, [self.failed])


def read_topics(bootstrap: str, topics: Iterable[str]) -> list[Record]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "tests", "enable.auto.commit": False})
    try:
        records: list[Record] = []
        for topic in topics:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            places = [TopicPartition(topic, partition) for partition in partitions]
            ends = {place.partition: consumer.get_watermark_offsets(place, timeout=10)[1] for place in places}
            wanted, found = sum(ends.values()), 0
            consumer.assign([TopicPartition(topic, place.partition, 0) for place in places])
            deadline = time.monotonic() + 30
            while found < wanted:
                assert time.monotonic() < deadline, f"{topic}: {found} of {wanted} records came"
                for message in consumer.consume(1000, timeout=0.5):
                    assert message.error() is None, message.error()
                    found += 1
                    headers = dict(cast("list[tuple[str, bytes]]", message.headers() or []))
                    records.append(
                        Record(
                            topic,
                            message.partition() or 0,
                            message.offset() or 0,
                            message.key() or b"",
                            message.value() or b"",
                            headers,
                        )
                    )
        return records
    finally:
        consumer.close()


def names_of(records: Iterable[Record]) -> list[Name]:
    return [(e.user_id, e.stream_id, e.sequence) for e in (record.envelope for record in records)]


def assert_in_order(records: Iterable[Record]) -> None:
    """Duplicates left out, the sequences of each stream ascend within a topic, and a user lives in one partition."""
    seen: set[Name] = set()
    last: dict[tuple[str, str, str], int] = {}
    homes: dict[tuple[str, bytes], int] = {}
    for record in records:
        envelope = record.envelope
        assert record.key == envelope.user_id.encode()
        assert homes.setdefault((record.topic, record.key), record.partition) == record.partition
        name = (envelope.user_id, envelope.stream_id, envelope.sequence)
        if name in seen:
            continue
        seen.add(name)
        stream = (record.topic, envelope.user_id, envelope.stream_id)
        assert envelope.sequence > last.get(stream, 0), f"{name} came after {last[stream]}"
        last[stream] = envelope.sequence
