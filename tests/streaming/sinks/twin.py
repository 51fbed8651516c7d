"""A twin of librdkafka's producer whose brokers do what a test says, and a sink on it."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, murmur2

from streaming.core.errors import MessageRefused
from streaming.core.ports import Receipt
from streaming.core.session import Session
from streaming.sinks.kafka import KafkaSink
from streaming.sinks.look import Look, TopicState

Report = Callable[[KafkaError | None, Any], None]
PARTITIONS = 4
DATA, SIGNALS, FAILED = "data", "signals", "failed"
WARM = '{"eos":{"idemp_state":"Assigned"}}'


def key_of(partition: int) -> bytes:
    """A key that lands there."""
    return next(key for n in range(1_000) if murmur2(key := b"user-%d" % n, PARTITIONS) == partition)


class Message:
    def __init__(self, topic: str, value: bytes, key: bytes, report: Report) -> None:
        self.topic, self.value, self.key, self.report = topic, value, key, report
        self.place = (topic, murmur2(key, PARTITIONS))


class Brokers:
    """What all producers of a test write to."""

    def __init__(self) -> None:
        self.log: list[tuple[str, bytes, bytes]] = []
        # Partitions without a leader, topics with the error of their batches, and values with theirs.
        self.leaderless: set[tuple[str, int]] = set()
        self.refusing: dict[str, int] = {}
        self.poison: dict[bytes, int] = {}
        # Bytes of values that a batch of one partition may have.
        self.batch_limit = 10**9
        # Partitions of which this producer never hears that they are there again.
        self.is_away = False
        self.looks = 0

    def look(self, _config: Any, topics: list[str], *_: Any) -> Look:
        self.looks += 1
        if self.is_away:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return {topic: self._state(topic) for topic in topics}

    def _state(self, topic: str) -> TopicState:
        leaders = tuple((topic, number) not in self.leaderless for number in range(PARTITIONS))
        return TopicState("not_allowed" if topic in self.refusing else "", leaders, None)


class Producer:
    """Idempotent and gapless: the first batch that is refused stops it, and what it has not sent comes back.

    ``purges_at_once``: what confluent-kafka's ``blocking=False`` does today; else reports come with later polls only.
    """

    def __init__(self, brokers: Brokers, config: dict[str, Any], *, purges_at_once: bool = True) -> None:
        self.brokers = brokers
        self.config = config
        self.waiting: list[Message] = []
        self.reports: list[tuple[Message, KafkaError | None]] = []
        self.is_fatal = False
        self.is_stuck = False
        # Said of each message instead of sending it.
        self.error: KafkaError | None = None
        self.purged_polls = 0 if purges_at_once else 3
        self.purge_is_deaf = False
        self.purging: list[Message] = []
        self.is_gone = False

    def list_topics(self, *_: Any, **__: Any) -> None: ...

    def produce(self, topic: str, value: bytes, key: bytes, *, on_delivery: Report, headers: Any = None) -> None:
        if self.is_fatal:
            raise KafkaException(KafkaError(KafkaError._FATAL))
        self.waiting.append(Message(topic, value, key, on_delivery))

    def poll(self, _timeout: float) -> int:
        self.config["stats_cb"](WARM)
        if self.purging:
            self.purged_polls -= 1
            if self.purged_polls <= 0:
                self.reports += [(m, KafkaError(KafkaError._PURGE_INFLIGHT)) for m in self.purging]
                self.purging = []
        elif not self.is_stuck:
            self._send()
        reports, self.reports = self.reports, []
        for message, error in reports:
            message.report(error, None)
        return len(reports)

    def _send(self) -> None:
        brokers = self.brokers
        waiting, self.waiting = self.waiting, []
        batches: dict[tuple[str, int], list[Message]] = {}
        for message in waiting:
            batches.setdefault(message.place, []).append(message)
        for place, batch in batches.items():
            if brokers.is_away or place in brokers.leaderless:
                self.waiting += batch
            elif self.error is not None:
                self.reports += [(message, self.error) for message in batch]
            else:
                self._send_batches(place[0], batch)

    def _send_batches(self, topic: str, messages: list[Message]) -> None:
        """In batches of at most ``batch.size`` bytes."""
        while messages and not self.is_fatal:
            size, count = 0, 0
            while count < len(messages) and (
                not count or size + len(messages[count].value) <= self.config["batch.size"]
            ):
                size += len(messages[count].value)
                count += 1
            batch, messages = messages[:count], messages[count:]
            codes = [self.brokers.poison[m.value] for m in batch if m.value in self.brokers.poison]
            code = self.brokers.refusing.get(topic) or (codes[0] if codes else 0)
            if size > self.brokers.batch_limit:
                code = KafkaError.MSG_SIZE_TOO_LARGE
            if code:
                self.is_fatal = True
                self.reports += [(message, KafkaError(code)) for message in batch]
            else:
                self.brokers.log += [(m.topic, m.key, m.value) for m in batch]
                self.reports += [(message, None) for message in batch]
        # What was not sent when the producer stopped.
        self.reports += [(message, KafkaError(KafkaError._PURGE_QUEUE)) for message in messages]
        if self.is_fatal:
            self.reports += [(message, KafkaError(KafkaError._PURGE_QUEUE)) for message in self.waiting]
            self.waiting = []

    def purge(self, **_: bool) -> None:
        if not self.purge_is_deaf:
            self.purging, self.waiting = self.waiting, []


class Bench:
    """A sink on such producers, and what it reported."""

    def __init__(self, timeout: float = 0.3, in_flight_limit: int = 10_000) -> None:
        self.brokers = Brokers()
        self.delivered: list[int] = []
        self.failed: list[int] = []
        self.refused: list[tuple[int, MessageRefused]] = []
        self.producers: list[Producer] = []
        self.purges_at_once = True
        self.on_failed: Callable[[list[Receipt], str], None] = self.note_failed
        self.sink = KafkaSink(
            {},
            [DATA, SIGNALS],
            FAILED,
            lambda batch: self.delivered.extend(receipt[1] for receipt in batch),
            lambda batch, reason: self.on_failed(batch, reason),
            lambda: None,
            lambda batch: self.refused.extend((receipt[1], error) for receipt, error in batch),
            in_flight_limit=in_flight_limit,
            in_flight_max_size=10**9,
            timeout=timeout,
            make_producer=cast("Any", self.make_producer),
            look=self.brokers.look,
        )

    def note_failed(self, batch: list[Receipt], reason: str) -> None:
        assert reason
        self.failed += [receipt[1] for receipt in batch]

    def make_producer(self, config: dict[str, Any]) -> Producer:
        self.producers.append(Producer(self.brokers, config, purges_at_once=self.purges_at_once))
        return self.producers[-1]

    @property
    def main(self) -> Producer:
        """The producer that has the data now."""
        return cast("Producer", self.sink._main._producer)

    def publish(self, number: int, topic: str = DATA, key: bytes = b"bob", value: bytes | None = None) -> None:
        value = b"%d" % number if value is None else value
        receipt = (cast(Session, None), number, time.monotonic(), None, len(value), 0)
        self.sink.publish(topic, key, value, receipt)

    @property
    def told(self) -> list[int]:
        """Every number that was reported, as often as it was."""
        return sorted(self.delivered + self.failed + [number for number, _ in self.refused])

    def recorded(self, topic: str = DATA) -> list[int]:
        return [int(value) for name, _, value in self.brokers.log if name == topic]

    async def start(self) -> "Bench":
        self.sink.start()
        await until(lambda: self.sink.available)
        return self

    async def settle(self) -> None:
        await until(lambda: not self.sink.in_flight)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)
