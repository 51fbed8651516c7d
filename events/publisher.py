"""Kafka's side of the relay: one idempotent producer, made anew after each failure. Room: events.

Contract: rows of one key reach the topic in the order in which they were given, repetitions left out; a row is
confirmed when Kafka's delivery report is there. After any failure everything in flight is given up, never a part: an
early row that failed and went out again would otherwise land behind its successors.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from events.kafka import LIBRARY_LOG, make_topics
from events.models import OutboxEvent

log = structlog.get_logger(__name__)

# Seconds: without a report before Kafka counts as away; that rows of a refused topic wait; between two producers.
_OUTAGE_AFTER = 3.0
_SET_ASIDE_TIME = 10.0
_PAUSE = 0.2
_PAUSE_LIMIT = 2.0
# What is wrong with one topic and not with Kafka.
_CODES_OF_A_TOPIC = frozenset({
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.POLICY_VIOLATION,
    KafkaError.INVALID_REPLICATION_FACTOR,
})  # fmt: skip


class Publisher:
    """Belongs to one thread. Nothing raises for what Kafka does: rows wait, and the log says why, once an outage."""

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        topics: Sequence[str] = (),
        partitions: int = 6,
        replication: int = 1,
        make_producer: Callable[[dict[str, Any]], Producer] = Producer,
    ) -> None:
        """``config``: librdkafka's settings of a producer; ``topics`` are made at once where they are missing, so that
        their first events need not wait for it; ``partitions`` and ``replication`` are for topics made here."""
        self._config = {
            **config,
            "acks": "all",
            "enable.idempotence": True,
            # A batch that Kafka refuses stops those behind it.
            "enable.gapless.guarantee": True,
            # Messages do not expire one by one: they wait for Kafka, in order.
            "delivery.timeout.ms": 0,
            "logger": LIBRARY_LOG,
            "error_cb": self._on_error,
        }
        self._topics = list(topics)
        self._partitions = partitions
        self._replication = replication
        self._make_producer = make_producer
        self._producer: Producer | None = None
        self._ready_topics: set[str] = set()
        # Topics that Kafka refuses, until when their rows wait; and those that the log has named.
        self._set_aside: dict[str, float] = {}
        self._refused: set[str] = set()
        self._failures: list[tuple[str, KafkaError]] = []
        self._in_flight: set[int] = set()
        # Rows whose report is there; the relay takes them out when the database has them.
        self.confirmed: list[int] = []
        self._reported_at = 0.0
        self._connect_at = 0.0
        self._pause = _PAUSE
        self._is_down = False
        # Whether the last try to connect failed.
        self._is_unreachable = False

    @property
    def in_hand(self) -> set[int]:
        """Rows that must not be given again now."""
        return self._in_flight.union(self.confirmed)

    @property
    def is_busy(self) -> bool:
        """Whether reports are to come."""
        return bool(self._in_flight)

    def topics_set_aside(self) -> list[str]:
        """Topics whose rows need not be given at this moment."""
        now = time.monotonic()
        self._set_aside = {topic: until for topic, until in self._set_aside.items() if until > now}
        return list(self._set_aside)

    def poll(self, wait: float) -> bool:
        """Takes reports, for ``wait`` seconds at most while some are to come; whether rows can be given.

        Makes a new producer where there is none, which blocks for seconds while Kafka is away."""
        if self._producer is None:
            if time.monotonic() < self._connect_at:
                return False
            self._connect()
        if self._producer is not None:
            self._serve(self._producer, wait if self._in_flight else 0)
            self._judge()
        return self._producer is not None

    def publish(self, rows: Iterable[OutboxEvent], may_go_on: Callable[[], bool]) -> None:
        """Hands rows over in their order, until ``may_go_on`` says no or something fails; the rest is given again."""
        rows = list(rows)
        producer = self._producer
        if producer is None:
            return
        if new := sorted({row.topic for row in rows} - self._ready_topics):
            # Takes its time, in which the caller's right to publish may end: the rows are to be given again.
            self._make_ready(producer, new)
            return
        if not self._in_flight:
            self._reported_at = time.monotonic()
        for row in rows:
            if not may_go_on():
                break
            try:
                producer.produce(
                    row.topic,
                    bytes(row.value),
                    row.key.encode(),
                    headers=[("event_id", str(row.event_id).encode())],
                    on_delivery=partial(self._report, producer, row.pk, row.topic),
                )
            except BufferError:
                break
            except KafkaException as error:
                self._failures.append((row.topic, error.args[0]))
                break
            self._in_flight.add(row.pk)
        self._serve(producer, 0)
        self._judge()

    def finish(self, timeout: float) -> None:
        """Waits for reports for at most ``timeout`` seconds, then gives up what has none."""
        deadline = time.monotonic() + timeout
        while self._producer is not None and self._in_flight and time.monotonic() < deadline:
            self.poll(0.05)
        self._drop()

    def _connect(self) -> None:
        try:
            producer = self._make_producer(self._config)
            self._ready_topics.clear()
            self._make_ready(producer, self._topics)
        except KafkaException as error:
            self._is_unreachable = True
            self._note_down(error.args[0].name())
            self._wait_before_next()
        else:
            self._producer = producer
            if self._is_unreachable:
                self._is_unreachable = False
                self._note_up()

    def _make_ready(self, producer: Producer, topics: Sequence[str]) -> None:
        try:
            refused = make_topics(producer, self._config, topics, self._partitions, self._replication)
        except KafkaException as error:
            if producer is not self._producer:
                raise
            self._failures.append(("", error.args[0]))
            self._judge()
            return
        for topic, reason in refused.items():
            self._put_aside(topic, reason)
        self._ready_topics.update(set(topics) - set(refused))

    def _report(self, producer: Producer, pk: int, topic: str, error: KafkaError | None, _message: object) -> None:
        """Runs inside poll(); must not raise."""
        if producer is not self._producer:
            # Given up; the row is published again.
            return
        self._reported_at = time.monotonic()
        if error is not None:
            self._failures.append((topic, error))
            return
        self._in_flight.discard(pk)
        self.confirmed.append(pk)
        self._pause = _PAUSE
        self._note_up()
        if topic in self._refused:
            self._refused.discard(topic)
            log.info("relay_topic_accepted", topic=topic)

    def _serve(self, producer: Producer, wait: float) -> None:
        """Has librdkafka call back; after a fatal error it raises instead, with the reports still to come."""
        for timeout in (wait, 0):
            try:
                producer.poll(timeout)
            except KafkaException as error:
                self._failures.append(("", error.args[0]))
            else:
                return

    def _judge(self) -> None:
        """Whether what was reported ends this producer."""
        if self._failures:
            topic, error = next((f for f in self._failures if f[1].code() in _CODES_OF_A_TOPIC), self._failures[0])
            if topic and error.code() in _CODES_OF_A_TOPIC:
                self._put_aside(topic, error)
            else:
                self._note_down(error.name())
            self._drop()
            self._wait_before_next()
        elif self._in_flight and time.monotonic() - self._reported_at > _OUTAGE_AFTER:
            # It goes on by itself, in order, when Kafka is back.
            self._note_down("no delivery report")

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        self._in_flight.clear()
        self._failures.clear()
        if producer is not None:
            producer.purge(in_queue=True, in_flight=True, blocking=False)
            self._serve(producer, 0)
            # Those were its last words.
            self._failures.clear()

    def _wait_before_next(self) -> None:
        self._connect_at = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, _PAUSE_LIMIT)

    def _put_aside(self, topic: str, error: KafkaError) -> None:
        self._set_aside[topic] = time.monotonic() + _SET_ASIDE_TIME
        if topic not in self._refused:
            self._refused.add(topic)
            log.error("relay_topic_refused", topic=topic, reason=error.name(), again_in_s=_SET_ASIDE_TIME)

    def _on_error(self, error: KafkaError) -> None:
        """Runs inside poll(); librdkafka recovers by itself from all but fatal errors."""
        if error.fatal():
            self._failures.append(("", error))
        elif error.code() == KafkaError._ALL_BROKERS_DOWN and self._in_flight:
            # Otherwise it may only be that an idle connection was closed.
            self._note_down(error.name())

    def _note_down(self, reason: str) -> None:
        if not self._is_down:
            self._is_down = True
            log.warning("relay_kafka_down", reason=reason)

    def _note_up(self) -> None:
        if self._is_down:
            self._is_down = False
            log.info("relay_kafka_back")
