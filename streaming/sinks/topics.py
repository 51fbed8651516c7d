"""What must be true before a first message goes out without waiting. Room: streaming.sinks."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

_METADATA_TIMEOUT = 5.0
# librdkafka's settings for a client that is no producer; the rest would only make it warn.
_CLIENT_SETTINGS = ("bootstrap.servers", "security.", "sasl.", "ssl.", "socket.", "client.", "reconnect.")


def ensure_topics(
    producer: Producer, config: Mapping[str, Any], topics: list[str], partitions: int, replication: int
) -> None:
    """Creates the topics that are missing and makes the producer know the partitions of all. Blocks for seconds.

    Raises KafkaException when the broker is not reachable or a topic cannot be made.
    """
    # Asking for all topics, not for one by name, creates none by accident where the broker would make them on demand.
    known = producer.list_topics(timeout=_METADATA_TIMEOUT).topics
    missing = [topic for topic in topics if topic not in known]
    if missing:
        admin = AdminClient({k: v for k, v in config.items() if k.startswith(_CLIENT_SETTINGS)})
        wanted = [NewTopic(topic, num_partitions=partitions, replication_factor=replication) for topic in missing]
        for topic, future in admin.create_topics(wanted, operation_timeout=5, request_timeout=5).items():
            try:
                future.result()
            except KafkaException as error:
                code = error.args[0].code()
                # Another process was faster, or a broker in memory makes its topics on first use.
                if code not in (
                    KafkaError.TOPIC_ALREADY_EXISTS,
                    KafkaError._TIMED_OUT,
                    KafkaError._UNSUPPORTED_FEATURE,
                ):
                    raise KafkaException(
                        KafkaError(code, f"topic {topic} cannot be made: {error.args[0].str()}")
                    ) from error
    for topic in topics:
        _await_topic(producer, topic)


def _await_topic(producer: Producer, topic: str) -> None:
    deadline = time.monotonic() + _METADATA_TIMEOUT
    while True:
        found = producer.list_topics(topic, timeout=_METADATA_TIMEOUT).topics[topic]
        if found.error is None and found.partitions and all(p.leader >= 0 for p in found.partitions.values()):
            return
        if time.monotonic() > deadline:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, f"topic {topic} is not there"))
        time.sleep(0.05)


async def wait_for_producer_id(producer: Producer, statistics: deque[str], timeout: float) -> None:
    """Polls until librdkafka's statistics say that the idempotent producer has its id; raises TimeoutError.

    The id is what the first message of a new producer otherwise waits for, 400 to 1,000 ms.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        producer.poll(0)
        while statistics:
            state = msgspec.json.decode(statistics.popleft())
            if state.get("eos", {}).get("idemp_state") == "Assigned":
                return
        await asyncio.sleep(0.02)
    raise TimeoutError("no producer id from the broker")
