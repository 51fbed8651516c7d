"""The Kafka of a run: its own or a given one, topics for one measurement each, and how many records they hold.

Room: benchmarks.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import OffsetSpec as _OffsetSpec  # type: ignore[attr-defined]  # public, but not in __all__
from confluent_kafka.cimpl import NewTopic

from benchmarks.children import BenchmarkError, Child, clean_environment, free_port

PARTITIONS = 6
ROUTES = {
    "tick_data": "tick-data",
    "trading_signal": "trading-signals",
    "user_event": "user-events",
    "notification": "notifications",
}


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one server's turn."""

    routes: dict[str, str]
    failed: str

    @property
    def data(self) -> list[str]:
        return list(self.routes.values())

    @property
    def setting(self) -> str:
        """``message_type=topic`` pairs separated by commas."""
        return ",".join(f"{kind}={topic}" for kind, topic in self.routes.items())


class Kafka:
    """What a run needs of a broker; every call waits for the broker and raises KafkaException."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._admin = AdminClient({"bootstrap.servers": address, "log_level": 2})

    def wait(self, timeout: float) -> None:
        """Raises BenchmarkError when the broker does not answer within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._admin.list_topics(timeout=2)
                return
            except KafkaException as error:
                if time.monotonic() > deadline:
                    raise BenchmarkError(f"No Kafka answers at {self.address}: {error}") from error

    @contextmanager
    def topics(self) -> Iterator[Topics]:
        """Fresh topics, deleted at the end."""
        prefix = f"bench-{secrets.token_hex(4)}-"
        topics = Topics({kind: prefix + name for kind, name in ROUTES.items()}, prefix + "failed-messages")
        names = [*topics.data, topics.failed]
        created = self._admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
        for future in created.values():
            future.result(30)
        try:
            yield topics
        finally:
            for future in self._admin.delete_topics(names).values():
                future.result(30)

    def count(self, names: list[str]) -> int:
        """Records in the topics: the sum of the high watermarks of all partitions."""
        latest = _OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the package types this call nowhere
        wanted = {TopicPartition(name, partition): latest for name in names for partition in range(PARTITIONS)}
        return sum(future.result(10).offset for future in self._admin.list_offsets(wanted, request_timeout=10).values())


@contextmanager
def running_kafka(given: str, directory: Path) -> Iterator[Kafka]:
    """The broker at the given ``HOST:PORT``, or a real Apache Kafka of this run's own when that is empty."""
    if given:
        kafka = Kafka(given)
        kafka.wait(10)
        yield kafka
        return
    port = free_port()
    arguments = ["-m", "tests.support.kafka", "--port", str(port), "--dir", str(directory / "kafka")]
    with Child("Apache Kafka", arguments, directory / "kafka.log", clean_environment()):
        kafka = Kafka(f"127.0.0.1:{port}")
        kafka.wait(120)
        yield kafka
