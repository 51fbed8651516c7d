"""What must be true before a first message goes out without waiting. Room: streaming.sinks."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from events.kafka import make_topics


def ensure_topics(
    producer: Producer, config: Mapping[str, Any], topics: list[str], partitions: int, replication: int
) -> None:
    """Creates the topics that are missing and makes the producer know the partitions of all. Blocks for seconds.

    Raises KafkaException when the broker is not reachable or a topic is not there.
    """
    for topic, error in make_topics(producer, config, topics, partitions, replication).items():
        raise KafkaException(KafkaError(error.code(), f"topic {topic} is not there: {error.str()}"))


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
