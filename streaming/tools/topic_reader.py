"""Reads a topic for the command line: every partition, no group, nothing committed. Room: streaming.tools."""

import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition
from django.conf import settings

_METADATA_TIMEOUT = 10.0


class TopicUnreadable(Exception):
    """The message names what to do."""


def client_config() -> dict[str, Any]:
    """librdkafka's settings for a client of the configured Kafka; raises TopicUnreadable when there is none."""
    if not settings.GATEWAY_KAFKA_BOOTSTRAP_SERVERS:
        raise TopicUnreadable("no Kafka is known: start make run, or set GATEWAY_KAFKA_BOOTSTRAP_SERVERS")
    return {
        **settings.GATEWAY_KAFKA_OPTIONS,
        "bootstrap.servers": settings.GATEWAY_KAFKA_BOOTSTRAP_SERVERS,
        "log_level": 2,
    }


class TopicReader:
    """A context manager around one consumer; every call blocks and raises TopicUnreadable."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        group = {"group.id": "gateway-tools", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
        self._consumer = Consumer({**client_config(), **group, "fetch.wait.max.ms": 100})
        try:
            found = self._consumer.list_topics(timeout=_METADATA_TIMEOUT).topics.get(topic)
        except KafkaException as error:
            self.close()
            where = settings.GATEWAY_KAFKA_BOOTSTRAP_SERVERS
            raise TopicUnreadable(f"Kafka does not answer at {where}: {error.args[0].str()}") from None
        if found is None or found.error is not None:
            self.close()
            raise TopicUnreadable(f"there is no topic {topic}")
        self.partitions = sorted(found.partitions)

    def __enter__(self) -> "TopicReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._consumer.close()

    def follow(self, *, from_beginning: bool, idle_timeout: float | None = None) -> Iterator[Message]:
        """Messages as they come, without end; ``idle_timeout``: seconds without a message after which it ends."""
        start = OFFSET_BEGINNING if from_beginning else OFFSET_END
        self._consumer.assign([TopicPartition(self.topic, partition, start) for partition in self.partitions])
        last = time.monotonic()
        while idle_timeout is None or time.monotonic() - last < idle_timeout:
            message = self._poll(0.2)
            if message is not None:
                last = time.monotonic()
                yield message

    def stored(self) -> Iterator[Message]:
        """What the topic holds now, one partition after another, oldest first."""
        for partition in self.partitions:
            low, high = self._watermarks(partition)
            if low >= high:
                continue
            self._consumer.assign([TopicPartition(self.topic, partition, low)])
            deadline = time.monotonic() + _METADATA_TIMEOUT
            while True:
                message = self._poll(0.2)
                if message is not None:
                    yield message
                    deadline = time.monotonic() + _METADATA_TIMEOUT
                    if (message.offset() or 0) >= high - 1:
                        break
                elif self._position(partition) >= high:
                    # The last records were compacted or belonged to a transaction: nothing more comes.
                    break
                elif time.monotonic() > deadline:
                    raise TopicUnreadable(f"Kafka stopped sending {self.topic}: try again")

    def at(self, partition: int, offset: int) -> Message:
        """The message of one place."""
        if partition not in self.partitions:
            raise TopicUnreadable(f"{self.topic} has no partition {partition}")
        low, high = self._watermarks(partition)
        if not low <= offset < high:
            raise TopicUnreadable(f"{self.topic} partition {partition} holds offsets {low} to {high - 1}")
        self._consumer.assign([TopicPartition(self.topic, partition, offset)])
        deadline = time.monotonic() + _METADATA_TIMEOUT
        while time.monotonic() < deadline:
            message = self._poll(0.2)
            if message is not None and message.offset() == offset:
                return message
        raise TopicUnreadable(f"Kafka did not send {self.topic} {partition}:{offset} in time")

    def _watermarks(self, partition: int) -> tuple[int, int]:
        try:
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(self.topic, partition), timeout=_METADATA_TIMEOUT
            )
        except KafkaException as error:
            raise TopicUnreadable(f"Kafka does not answer: {error.args[0].str()}") from None
        return low, high

    def _position(self, partition: int) -> int:
        return int(self._consumer.position([TopicPartition(self.topic, partition)])[0].offset)

    def _poll(self, seconds: float) -> Message | None:
        message = self._consumer.poll(seconds)
        error = None if message is None else message.error()
        if error is None:
            return message
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT) or error.retriable():
            return None
        raise TopicUnreadable(f"Kafka refuses {self.topic}: {error.str()}")
