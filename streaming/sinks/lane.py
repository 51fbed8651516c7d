"""One librdkafka producer and what it has in flight, each message reported exactly once. Room: streaming.sinks.

Order within a partition and what cannot be recorded are made to agree like this: the producer is gapless, so the first
batch that a broker refuses stops it. What it had not sent comes back, what is on the way gets its report, and a new
producer takes all of it over in the old order, without the message that was refused. Nobody but the sender of that one
notices more than a pause.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Container, Mapping
from functools import partial
from typing import Any

import msgspec
import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from events.kafka import LIBRARY_LOG
from streaming.core.errors import MessageRefused
from streaming.core.ports import Receipt
from streaming.sinks import faults
from streaming.sinks.faults import Kind
from streaming.sinks.handover import Entry, Failure, Handover
from streaming.sinks.health import Health, Place

log = structlog.get_logger(__name__)

# Seconds: for which what is on the way may still be reported when a producer stops; the same when all is given up.
_STOP_TIMEOUT = 1.0
_PURGE_TIMEOUT = 0.5
# Bytes: librdkafka's own, and what is left free of a topic's limit for a batch's frame.
_BATCH_SIZE = 1_000_000
_FRAME_SIZE = 512
# Bytes of key and framing that the quick look at a message's size leaves room for.
_SLACK = 1_024


class Lane:
    """The messages of some topics. The sink calls ``serve`` in turns and takes what is in ``delivered``, ``failed`` and
    ``refused`` after it."""

    def __init__(
        self,
        config: Mapping[str, Any],
        topics: list[str],
        health: Health,
        make_producer: Callable[[dict[str, Any]], Producer] = Producer,
    ) -> None:
        self.topics = topics
        self.queue: list[Entry] = []
        self.delivered: list[Receipt] = []
        self.failed: list[Receipt] = []
        self.refused: list[tuple[Receipt, MessageRefused]] = []
        # Why messages are in ``failed``.
        self.reason = ""
        # Why nothing of this lane goes on any more; "" while it does.
        self.broken = ""
        # While it stops: whether it still waits for a look at the brokers, which decides how the next producer is made.
        self.is_held = False
        self.statistics: deque[str] = deque(maxlen=1)
        self._config = dict(config)
        self._health = health
        self._make_producer = make_producer
        self._producer: Producer | None = None
        # Those with messages that have no report yet, the oldest first.
        self._handovers: deque[Handover] = deque()
        # Those with reports of this turn.
        self._touched: list[Handover] = []
        self._count = 0
        # While the producer stops because of a message that was refused: what came back, and until when it waits.
        self._came_back: list[Failure] = []
        self._stopping_until = 0.0
        # Bytes of the largest batch that the topics are believed to take.
        self._batch_size = _BATCH_SIZE
        # Bytes; a message whose value is not larger is too large for none of the topics. ``has_large`` is set when a
        # larger one may be in the queue.
        self.small = 0
        self.has_large = False
        self.note_limits()

    @property
    def is_open(self) -> bool:
        return self._producer is not None

    # --- Producers ---------------------------------------------------------------------------------------------------

    def make_producer(self) -> Producer:
        """A new one, whose batches no topic of this lane finds too large; raises KafkaException for bad settings."""
        is_known = all(topic in self._health.limits for topic in self.topics)
        self._batch_size = min([_BATCH_SIZE if is_known else self._batch_size, *self._limits()])
        size = max(1, self._batch_size - _FRAME_SIZE)
        size = min(size, int(self._config.get("batch.size", size)))
        config = {**self._config, "batch.size": size, "error_cb": self._on_error, "stats_cb": self.statistics.append}
        return self._make_producer({**config, "logger": LIBRARY_LOG})

    def open(self, producer: Producer) -> None:
        self._producer = producer

    def _limits(self) -> list[int]:
        return [limit for topic in self.topics if (limit := self._health.limit_of(topic)) is not None]

    def note_limits(self) -> None:
        """To be called when the limits of topics have changed."""
        self.small = min([_BATCH_SIZE, *self._limits()]) - _SLACK
        # What is in the queue was judged by the limits before.
        self.has_large = True

    # --- One turn ----------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Hands over what has gathered, takes reports and judges them. Sets ``broken`` when all has to be given up."""
        if self.queue and not self._stopping_until:
            self._hand_over()
        producer = self._producer
        if producer is not None:
            try:
                producer.poll(0)
            except KafkaException as error:
                # After a fatal error it raises as soon as its reports are taken.
                self._on_error(error.args[0])
        if self._touched:
            self._collect()
        if self._stopping_until and not self.broken:
            self._go_on_when_stopped()

    def _hand_over(self) -> None:
        """librdkafka's thread wakes once for all of it."""
        # The list itself stays: whoever publishes holds it.
        entries = self.queue.copy()
        self.queue.clear()
        if self._producer is None or self._health.is_ill or self.has_large:
            self.has_large = False
            entries = self._sift(entries)
            if not entries:
                return
        self._count += 1
        handover = Handover(self._count, time.monotonic(), entries)
        self._handovers.append(handover)
        produce, report = self._producer.produce, self._report  # type: ignore[union-attr]
        for topic, key, value, receipt, headers in entries:
            try:
                if headers is None:
                    produce(topic, value, key, on_delivery=partial(report, handover, receipt))
                else:
                    produce(topic, value, key, on_delivery=partial(report, handover, receipt), headers=list(headers))
            except KafkaException as error:
                self._not_taken(handover, receipt, error.args[0])
            except BufferError as error:
                self._not_taken(handover, receipt, KafkaError(KafkaError._QUEUE_FULL, str(error)))

    def _is_too_large(self, entry: Entry) -> bool:
        topic, key, value, _, headers = entry
        limit = self._health.limit_of(topic)
        return limit is not None and faults.batch_size_of(key, value, headers) > limit

    def _sift(self, entries: list[Entry]) -> list[Entry]:
        """Those that can go out now; the others are answered."""
        health, taken = self._health, []
        for entry in entries:
            topic, key, _, receipt, _ = entry
            if self._producer is None:
                self._fail(topic, receipt, faults.NOT_CONNECTED, "not connected")
            elif self._is_too_large(entry):
                self._refuse(entry, faults.TOO_LARGE, faults.record_refused(faults.TOO_LARGE))
            elif topic in health.topics:
                self._refuse(entry, health.topics[topic].reason, faults.topic_refused())
            elif not health.takes(topic, key):
                # As what was given up before it: its client sends both again, in order.
                self._fail(topic, receipt, faults.NO_REPORT, "no report from its partition")
            else:
                taken.append(entry)
        return taken

    # --- Reports -----------------------------------------------------------------------------------------------------

    def _report(self, handover: Handover, receipt: Receipt, error: KafkaError | None, _message: object) -> None:
        """Runs inside poll(); must not raise."""
        if error is None:
            fresh = handover.fresh
            if not fresh:
                self._touched.append(handover)
            fresh.append(receipt)
        elif not handover.was_given_up(receipt) and handover.left:
            self._note_failure(handover, receipt, error)

    def _collect(self) -> None:
        touched, self._touched = self._touched, []
        for handover in touched:
            self.delivered += handover.collect()

    def _not_taken(self, handover: Handover, receipt: Receipt, error: KafkaError) -> None:
        """librdkafka did not take one message."""
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            handover.close(receipt)
            entry = handover.entries[handover.index_of(receipt)]
            self._refuse(entry, faults.TOO_LARGE, faults.record_refused(faults.TOO_LARGE))
        elif error.code() == KafkaError._FATAL:
            self._note_failure(handover, receipt, KafkaError(KafkaError._GAPLESS_GUARANTEE))
        else:
            self._note_failure(handover, receipt, error)

    def _note_failure(self, handover: Handover, receipt: Receipt, error: KafkaError) -> None:
        handover.close(receipt)
        index, code = handover.index_of(receipt), error.code()
        entry = handover.entries[index]
        kind = faults.kind_of(code)
        if kind is Kind.TOPIC:
            self._health.topic_fails(entry[0], faults.reason_of(code))
            self._refuse(entry, faults.reason_of(code), faults.topic_refused())
        elif kind is not Kind.UNKNOWN or self._stopping_until:
            self._bring_back(Failure((handover.number, index), entry, code, is_unknown=kind is Kind.UNKNOWN))
        else:
            self._fail(entry[0], entry[3], faults.reason_of(code), error.str())
            self.broken = self.broken or error.str()

    def _bring_back(self, failure: Failure) -> None:
        self._came_back.append(failure)
        self.stop()

    def _refuse(self, entry: Entry, reason: str, error: MessageRefused) -> None:
        self._count_failure(entry[0], reason)
        self.refused.append((entry[3], error))

    def _fail(self, topic: str, receipt: Receipt, reason: str, text: str) -> None:
        self._count_failure(topic, reason)
        self.failed.append(receipt)
        self.reason = text

    def _count_failure(self, topic: str, reason: str) -> None:
        self._health.failures[topic, reason] += 1

    def _on_error(self, error: KafkaError) -> None:
        """Runs inside poll(); librdkafka recovers by itself from all but fatal errors."""
        if error.code() == KafkaError._GAPLESS_GUARANTEE:
            self.stop()
        elif error.fatal() and not self._stopping_until:
            self.broken = self.broken or f"fatal producer error: {error.str()}"

    # --- A producer that stops, and the next one ---------------------------------------------------------------------

    def stop(self) -> None:
        """Hands nothing over until everything has been reported, then goes on with a new producer."""
        if not self._stopping_until and self._producer is not None:
            self._stopping_until = time.monotonic() + _STOP_TIMEOUT
            self.is_held = True

    def _go_on_when_stopped(self) -> None:
        if self.is_held and time.monotonic() < self._stopping_until:
            return
        if any(handover.left for handover in self._handovers):
            if time.monotonic() < self._stopping_until:
                return
            # What has no report by now may be recorded or not; sent again, it is at least there and in order.
            self._purge()
        leftovers = self._came_back + [
            Failure((handover.number, index), entry, KafkaError._TIMED_OUT, is_unknown=True)
            for handover in self._handovers
            for index, entry in handover.open_entries()
        ]
        self._forget_handovers()
        self._came_back, self._stopping_until, self.is_held, self._producer = [], 0.0, False, None
        leftovers.sort(key=lambda failure: failure.order)
        log.warning("kafka_producer_replaced", sent_again=len(leftovers), waiting=len(self.queue))
        self.queue[:0] = self._sort_out(leftovers)
        self.has_large = True
        try:
            self.open(self.make_producer())
        except KafkaException as error:
            self.broken = f"no new producer: {error.args[0].str()}"

    def _sort_out(self, leftovers: list[Failure]) -> list[Entry]:
        """What is to be sent again, in order; messages that are to blame themselves are refused here."""
        blamed = [failure for failure in leftovers if faults.kind_of(failure.code) is Kind.BATCH]
        batches = Counter(self._place(failure.entry) for failure in blamed)
        innocent = {
            self._place(failure.entry) for failure in leftovers if failure.code == KafkaError._INVALID_DIFFERENT_RECORD
        }
        again: list[Entry] = []
        is_split = False
        given_up: set[Place] = set()
        for failure in leftovers:
            entry, place = failure.entry, self._place(failure.entry)
            if faults.kind_of(failure.code) is Kind.BATCH:
                reason = faults.reason_of(failure.code)
                if batches[place] == 1 or place in innocent or self._batch_size == 1:
                    self._learn(entry, reason)
                    self._refuse(entry, reason, faults.record_refused(reason))
                    continue
                is_split = True
            if place in given_up or (failure.is_unknown and not self._health.takes(entry[0], entry[1])):
                # It may be there, and cannot be sent now: nothing behind it may go before it.
                given_up.add(place)
                self._fail(entry[0], entry[3], faults.NO_REPORT, "no report from its partition")
            else:
                again.append(entry)
        self._fail_waiting(given_up)
        if is_split and min(self._limits(), default=_BATCH_SIZE) >= self._batch_size:
            # What is known of the limits explains nothing: smaller batches find the message that is to blame.
            self._batch_size = max(1, self._batch_size // 4)
            for topic, _ in batches:
                self._health.limits.pop(topic, None)
        return again

    def _learn(self, entry: Entry, reason: str) -> None:
        """Messages as large as one that was refused are refused before they stop a producer."""
        if reason == faults.TOO_LARGE:
            topic, key, value, _, headers = entry
            self._health.learn_limit(topic, faults.batch_size_of(key, value, headers) - 1)
            self.note_limits()

    def _place(self, entry: Entry) -> Place:
        return (entry[0], self._health.partition_of(entry[0], entry[1]))

    # --- What takes too long -----------------------------------------------------------------------------------------

    def waiting_since(self) -> float | None:
        """When the oldest message without a report was handed over, in seconds of the monotonic clock."""
        handovers = self._handovers
        while handovers and not handovers[0].left:
            handovers.popleft()
        return handovers[0].at if handovers else None

    def give_up_overdue(self, before: float, among: Container[Place] | None = None) -> None:
        """Fails everything in partitions (only those ``among`` these, if any are named) that have a message handed over
        at or before ``before``; they are ill from now on, and what the producer still has of them is no longer waited
        for."""
        overdue = {
            self._place(entry)
            for handover in self._handovers
            if handover.at <= before
            for _, entry in handover.open_entries()
        }
        illnesses = {
            place: self._health.partition_fails(place, "no report")
            for place in overdue
            if among is None or place in among
        }
        for handover in self._handovers:
            for index, entry in handover.open_entries():
                if (illness := illnesses.get(self._place(entry))) is not None:
                    handover.give_up(index, illness)
                    self._fail(entry[0], entry[3], faults.NO_REPORT, "no report from its partition")
        self._fail_waiting(illnesses)

    def _fail_waiting(self, places: Collection[Place]) -> None:
        """What came back or is not handed over yet goes with what was given up before it: these partitions may be well
        again before its turn comes, and it would be in front of what its client sends again."""
        if not places:
            return
        waiting = [failure.entry for failure in self._came_back] + self.queue
        self._came_back = [failure for failure in self._came_back if self._place(failure.entry) not in places]
        # The list itself stays: whoever publishes holds it.
        self.queue[:] = [entry for entry in self.queue if self._place(entry) not in places]
        for entry in waiting:
            if self._place(entry) in places:
                self._fail(entry[0], entry[3], faults.NO_REPORT, "no report from its partition")

    def give_up_all(self, reason: str) -> None:
        """Fails everything that has no report, and drops the producer."""
        if self._producer is not None:
            self._purge()
            self._producer = None
        lost = [failure.entry for failure in self._came_back]
        lost += [entry for handover in self._handovers for _, entry in handover.open_entries()]
        for entry in lost + self.queue:
            self._fail(entry[0], entry[3], faults.NO_REPORT, reason)
        self._forget_handovers()
        self.queue.clear()
        self._came_back, self._stopping_until, self.is_held, self.broken = [], 0.0, False, ""

    def _purge(self) -> None:
        """Takes the producer's last reports: whatever its ``blocking`` means, purging may end in the background."""
        producer = self._producer
        if producer is None:
            return
        # Not judged any more: what comes back now belongs to those that are given up or sent again.
        self._stopping_until = self._stopping_until or time.monotonic()
        deadline = time.monotonic() + _PURGE_TIMEOUT
        producer.purge(in_queue=True, in_flight=True, blocking=False)
        while True:
            try:
                producer.poll(0 if not any(handover.left for handover in self._handovers) else 0.01)
            except KafkaException:
                # Fatal, which is known; its reports still come.
                pass
            self._collect()
            if time.monotonic() >= deadline or not any(handover.left for handover in self._handovers):
                return

    def _forget_handovers(self) -> None:
        """Reports that still come from the old producer find nothing to report."""
        for handover in self._handovers:
            handover.forget()
        self._handovers.clear()
        self._health.nothing_is_held(self.topics)

    # --- Warm-up -----------------------------------------------------------------------------------------------------

    def has_producer_id(self) -> bool:
        """Whether the newest statistics say that the idempotent producer may send."""
        while self.statistics:
            state = msgspec.json.decode(self.statistics.popleft())
            if state.get("eos", {}).get("idemp_state") == "Assigned":
                return True
        return False
