"""Follows one topic from where it ends now: every process hears everything, nothing is committed. Room: events.

Contract: at least once after ``ready``; after trouble at the broker older records may come again, so records carry what
tells (``event_id``, a version). A callback that raises is logged and loses that record only.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from events.kafka import LIBRARY_LOG

log = structlog.get_logger(__name__)

# Seconds.
_POLL_TIMEOUT = 1.0
_METADATA_TIMEOUT = 1.0
_RELIST_INTERVAL = 30.0
_ABSENT_RELIST_INTERVAL = 1.0
_STOP_TIMEOUT = 2.0
_OUTAGE = (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT)


class TopicFeed:
    """A thread around one consumer that is assigned all partitions."""

    def __init__(
        self,
        config: Mapping[str, Any],
        topic: str,
        on_record: Callable[[bytes, bytes], None],
        *,
        relist_interval: float = _RELIST_INTERVAL,
    ) -> None:
        """``config``: librdkafka's settings of a client (bootstrap.servers, security); ``on_record`` gets key and value
        in the feed's thread, whose owner brings them where they are wanted; ``relist_interval``: seconds between two
        looks for partitions that were added."""
        self._config = dict(config)
        self._topic = topic
        self._on_record = on_record
        self._relist_interval = relist_interval
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_down = False
        # What the log has said of the topic last.
        self._refusal = ""
        self._relist_at = 0.0
        # A listing has answered without the topic: whatever is in it when it appears is news.
        self._was_absent = False
        # By partition: where to go on, whatever becomes of a consumer.
        self._next: dict[int, int] = {}
        # Set once records that are published from now on will be heard.
        self.ready = threading.Event()

    def start(self) -> None:
        """A second call changes nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"feed-{self._topic}", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Returns within two seconds; no callback begins afterwards."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_TIMEOUT)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except Exception:
                log.exception("feed_crashed", topic=self._topic)
                self._stopping.wait(_POLL_TIMEOUT)

    def _follow(self) -> None:
        """Until the feed is stopped; raises what a new consumer may be better at."""
        consumer = Consumer({
            **self._config,
            # Required by the library; nobody joins it and nothing is committed to it.
            "group.id": "gateway-feed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Where the place to go on from is there no more: again rather than never.
            "auto.offset.reset": "earliest",
            "allow.auto.create.topics": False,
            "reconnect.backoff.ms": 100,
            "reconnect.backoff.max.ms": 1_000,
            "error_cb": self._on_error,
            "logger": LIBRARY_LOG,
        })  # fmt: skip
        try:
            assigned: set[int] = set()
            self._relist_at = 0.0
            while not self._stopping.is_set():
                if time.monotonic() >= self._relist_at:
                    is_whole = self._assign_new(consumer, assigned)
                    interval = self._relist_interval if is_whole else _ABSENT_RELIST_INTERVAL
                    self._relist_at = time.monotonic() + interval
                if not assigned:
                    # For the callbacks; there is nothing to read.
                    consumer.poll(0)
                    self._stopping.wait(0.1)
                    continue
                message = consumer.poll(_POLL_TIMEOUT)
                if message is None or self._stopping.is_set():
                    continue
                error = message.error()
                if error is None:
                    self._refusal = ""
                    self._next[message.partition() or 0] = (message.offset() or 0) + 1
                    self._hand_on(message.key() or b"", message.value() or b"")
                elif error.retriable() or error.code() in _OUTAGE:
                    self._relist_at = 0.0
                elif error.name() != self._refusal:
                    self._refusal = error.name()
                    log.warning("feed_refused", topic=self._topic, reason=self._refusal)
        finally:
            consumer.close()

    def _assign_new(self, consumer: Consumer, assigned: set[int]) -> bool:
        """Takes in partitions that are not read yet; False: ask again soon."""
        try:
            # All topics: asking for one by name would make it where brokers make topics on demand.
            found = consumer.list_topics(timeout=_METADATA_TIMEOUT).topics.get(self._topic)
            if found is None or found.error is not None or not found.partitions:
                self._was_absent = self._was_absent or not self._next
                # What is published from now on is read from the beginning once the topic is there.
                self.ready.set()
                return False
            starts = {number: self._start_of(consumer, number) for number in found.partitions if number not in assigned}
        except KafkaException as error:
            self._note_down(error.args[0].name())
            return False
        if starts:
            self._next.update(starts)
            consumer.incremental_assign([TopicPartition(self._topic, *start) for start in sorted(starts.items())])
            assigned.update(starts)
        self._note_up()
        self.ready.set()
        return True

    def _start_of(self, consumer: Consumer, number: int) -> int:
        if number in self._next:
            return self._next[number]
        if self._was_absent or self._next:
            # Made since the feed began: all of it is news.
            return 0
        # A number, not "the end": an end that is looked up after an outage would lie behind what came meanwhile.
        _, end = consumer.get_watermark_offsets(TopicPartition(self._topic, number), timeout=_METADATA_TIMEOUT)
        return end

    def _hand_on(self, key: bytes, value: bytes) -> None:
        try:
            self._on_record(key, value)
        except Exception:
            log.exception("feed_callback_failed", topic=self._topic)

    def _on_error(self, error: KafkaError) -> None:
        """Runs inside poll(); the library goes on by itself."""
        if error.code() in _OUTAGE:
            # Whether Kafka is away is judged by one thing only: whether it lists its topics.
            self._relist_at = 0.0

    def _note_down(self, reason: str) -> None:
        if not self._is_down:
            self._is_down = True
            log.warning("feed_down", topic=self._topic, reason=reason)

    def _note_up(self) -> None:
        if self._is_down:
            self._is_down = False
            log.info("feed_back", topic=self._topic)
