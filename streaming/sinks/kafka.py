"""Kafka behind the Sink port, in turns of the event loop. Room: streaming.sinks.

Delivery reports are taken on the event loop itself by short polls while messages are in flight: a poll thread would
fight the loop for the interpreter lock and wake it for every batch. There are two lanes, one for the topics of data and
one for failed-messages, so that the second delays nobody; what is wrong with one topic or one partition stays there.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from confluent_kafka import Producer

from streaming.core.errors import MessageRefused
from streaming.core.ports import Headers, Receipt
from streaming.sinks import faults
from streaming.sinks.contact import Contact
from streaming.sinks.health import Health
from streaming.sinks.lane import Lane
from streaming.sinks.look import Look, look_at

log = structlog.get_logger(__name__)

# Seconds. While something is in flight, what has gathered is handed over and reports are asked for this often, and this
# often otherwise (for errors and statistics).
_BUSY_POLL = 0.002
_IDLE_POLL = 0.1
# Seconds that a look at the brokers is waited for.
_LOOK_TIMEOUT = 10.0
# Seconds that messages of a partition without a leader may wait while nothing more may be in flight.
_FULL_TIMEOUT = 1.0
# Of what may be in flight, failed-messages gets this part.
_SIDE_SHARE = 4


class KafkaSink:
    """Publishes with order per key, reports each receipt once, and knows what is away: all of Kafka, a topic, a
    partition."""

    def __init__(
        self,
        config: dict[str, Any],
        topics: list[str],
        failed_topic: str,
        on_delivered: Callable[[list[Receipt]], None],
        on_failed: Callable[[list[Receipt], str], None],
        on_room: Callable[[], None],
        on_refused: Callable[[list[tuple[Receipt, MessageRefused]]], None],
        *,
        in_flight_limit: int,
        in_flight_max_size: int,
        timeout: float,
        gather: float = 0.0,
        may_rest: Callable[[], bool] = lambda: True,
        partitions: int = 6,
        replication: int = 1,
        make_producer: Callable[[dict[str, Any]], Producer] = Producer,
        look: Callable[..., Look] = look_at,
    ) -> None:
        """``topics``: of data, the first one is that without which a user cannot be served; ``on_failed`` is told of
        what may be recorded or not and has to be sent again, ``on_refused`` of what is certainly not recorded;
        ``in_flight_max_size``: bytes; ``timeout``: seconds that a message may wait for its report before its partition,
        or all of Kafka, counts as away; ``gather``: seconds between two turns while messages come more often than
        that; ``may_rest``: False while something else needs the loop at once."""
        self._config = config
        self._on_delivered = on_delivered
        self._on_failed = on_failed
        # Called when the sink has been full and is half empty again.
        self._on_room = on_room
        self._on_refused = on_refused
        self._in_flight_limit = in_flight_limit
        self._in_flight_max_size = in_flight_max_size
        self._timeout = timeout
        self._gather = gather
        self._may_rest = may_rest
        self._health = Health()
        self._side_topic = failed_topic
        topics = [topic for topic in dict.fromkeys(topics) if topic != failed_topic]
        self._main = Lane(config, topics, self._health, make_producer)
        self._side = Lane(config, [failed_topic], self._health, make_producer)
        # For the hot path.
        self._put = self._main.queue.append
        self._small = self._main.small
        self._side_in_flight = 0
        self._timer: asyncio.Handle | None = None
        # A turn comes as soon as the sockets are read; else a timer's.
        self._turn_is_due = False
        self._turned_at = 0.0
        self._contact = Contact(
            config,
            self._health,
            self._main,
            self._side,
            look,
            self._note_health,
            partitions=partitions,
            replication=replication,
            timeout=timeout,
        )
        self._closing = False
        self.in_flight = 0
        self.in_flight_size = 0
        # False until the producer is warm, and again while all of Kafka is away.
        self.available = False
        # True from a full queue until half of it is free.
        self.is_full = False
        self.is_ill = False

    # --- What is ill -------------------------------------------------------------------------------------------------

    def takes(self, topic: str, key: bytes) -> bool:
        if topic == self._side_topic and not self._side.is_open:
            return False
        return self._health.takes(topic, key)

    def takes_user(self, key: bytes) -> bool:
        """False while messages of this user would only be given up again: their partition takes nothing."""
        return self._health.takes_partition_of(self._main.topics[0], key)

    def ill_parts(self) -> list[tuple[str, str]]:
        """What takes nothing while Kafka as a whole is there: topics, each with one partition or ""."""
        parts = self._health.parts()
        if self.available and not self._side.is_open and (self._side_topic, "") not in parts:
            parts.append((self._side_topic, ""))
        return parts

    @property
    def failures(self) -> Mapping[tuple[str, str], int]:
        """Messages that were not recorded, by topic and reason; reasons are a small, fixed set."""
        return self._health.failures

    # --- Messages ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to connect in the background; ``available`` turns true when a message would go out at once."""
        self._contact.start()
        self._schedule(_IDLE_POLL)

    def publish(self, topic: str, key: bytes, value: bytes, receipt: Receipt, headers: Headers | None = None) -> None:
        if topic == self._side_topic:
            self._publish_aside(topic, key, value, receipt, headers)
        else:
            self._put((topic, key, value, receipt, headers))
        size = receipt[4]
        if size > self._small:
            self._main.has_large = True
        self.in_flight += 1
        self.in_flight_size += size
        if self.in_flight >= self._in_flight_limit or self.in_flight_size >= self._in_flight_max_size:
            self.is_full = True
        if not self._turn_is_due:
            self._next_turn()

    def _publish_aside(self, topic: str, key: bytes, value: bytes, receipt: Receipt, headers: Headers | None) -> None:
        self._side_in_flight += 1
        if self._side_in_flight * _SIDE_SHARE > self._in_flight_limit and self._side_in_flight > 1:
            self._side.refused.append((receipt, faults.topic_refused()))
        else:
            self._side.queue.append((topic, key, value, receipt, headers))
            self._side.has_large = True

    # --- Turns -------------------------------------------------------------------------------------------------------

    def _schedule(self, delay: float) -> None:
        if self._turn_is_due:
            # It comes sooner, and would never be asked for again if it were cancelled.
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, self._next_turn)

    def _next_turn(self) -> None:
        """A turn begins among the callbacks that are ready, so that the loop reads its sockets between two turns: what
        a timer's callback asks for is called before that."""
        if self._turn_is_due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._turn_is_due = True
        self._timer = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._timer = None
        self._turn_is_due = False
        main = self._main
        gathered = len(main.queue)
        try:
            main.serve()
            reason = main.broken or self._find_overdue(main)
            if main.is_held:
                self._contact.look_soon()
            if self._side_in_flight or not gathered:
                reason = reason or self._serve_side()
            if reason:
                self.reset(reason)
            else:
                self._hand_on()
        finally:
            # Whatever a callback does: without a next turn nothing would ever be reported again.
            is_busy = self.in_flight > 0
            if gathered and is_busy and self._rest():
                self._next_turn()
            elif is_busy or not self._closing:
                self._schedule(_BUSY_POLL if is_busy else _IDLE_POLL)

    def _serve_side(self) -> str:
        """The turn of failed-messages; why all of Kafka counts as away, "" if it does not."""
        side = self._side
        side.serve()
        if side.broken:
            log.error("failed_messages_reset", reason=side.broken)
            side.give_up_all(side.broken)
            self._note_health()
        if side.is_held:
            self._contact.look_soon()
        return self._find_overdue(side)

    def _find_overdue(self, lane: Lane) -> str:
        """Gives up partitions in which a message waits for too long; why all of Kafka counts as away, or "".

        One partition can be stuck while all others go on. Whether it is only that, a look at the brokers tells, which
        begins when half of the time is over.
        """
        since = lane.waiting_since()
        if since is None:
            return ""
        now = time.monotonic()
        late_at = since + self._timeout / 2
        if self.is_full and now - since > _FULL_TIMEOUT:
            self._make_room(lane, since)
        if now < late_at:
            return ""
        if self._contact.looked_at < late_at:
            self._contact.look_soon()
            is_hanging = now - since > self._timeout + _LOOK_TIMEOUT
            return "no delivery report, and brokers do not answer" if is_hanging else ""
        if now - since <= self._timeout:
            return ""
        if not self._contact.is_answered:
            return "no delivery report for too long"
        lane.give_up_overdue(now - self._timeout)
        self._note_health()
        if lane is self._main and not self._health.takes_somebody(lane.topics):
            return "no partition takes messages"
        return ""

    def _make_room(self, lane: Lane, since: float) -> None:
        """What waits for partitions without a leader may not keep everybody from being read until it is overdue."""
        if self._contact.looked_at < since + _FULL_TIMEOUT:
            self._contact.look_soon()
        elif self._contact.is_answered and self._health.leaderless:
            lane.give_up_overdue(time.monotonic() - _FULL_TIMEOUT, self._health.leaderless)
            self._note_health()

    def _rest(self) -> bool:
        """Whether turns follow each other closely now; holds the loop, asleep, until the next one is due.

        Woken for each message by itself, a process pays more for waking up than for the message. At full load turns
        take longer than ``gather`` and nothing sleeps; when little comes, messages go out at once.
        """
        now = time.monotonic()
        since, self._turned_at = now - self._turned_at, now
        if since > 2 * self._gather:
            return False
        if since < self._gather and self._may_rest():
            time.sleep(self._gather - since)
            self._turned_at = time.monotonic()
        return True

    # --- Reports -----------------------------------------------------------------------------------------------------

    def _hand_on(self) -> None:
        """Tells of the reports that are there."""
        main = self._main
        if main.delivered:
            batch, main.delivered = main.delivered, []
            self._settle(batch)
            self._on_delivered(batch)
        if self._side_in_flight:
            self._hand_on_side()
        if main.refused:
            refused, main.refused = main.refused, []
            self._note_health()
            self._settle([receipt for receipt, _ in refused])
            self._on_refused(refused)
        if main.failed:
            batch, main.failed = main.failed, []
            self._settle(batch)
            self._on_failed(batch, main.reason)
        if self.is_full and self._is_half_empty():
            self.is_full = False
            self._on_room()

    def _hand_on_side(self) -> None:
        """What is wrong with failed-messages closes nobody: a frame that may not be kept is told as not kept."""
        side = self._side
        refused = side.refused + [(receipt, faults.topic_refused()) for receipt in side.failed]
        batch, side.delivered, side.refused, side.failed = side.delivered, [], [], []
        self._side_in_flight -= len(batch) + len(refused)
        self._settle(batch)
        self._settle([receipt for receipt, _ in refused])
        if refused:
            self._note_health()
        try:
            if batch:
                self._on_delivered(batch)
        finally:
            if refused:
                self._on_refused(refused)

    def _is_half_empty(self) -> bool:
        return self.in_flight * 2 < self._in_flight_limit and self.in_flight_size * 2 < self._in_flight_max_size

    def _settle(self, batch: list[Receipt]) -> None:
        self.in_flight -= len(batch)
        self.in_flight_size -= sum([receipt[4] for receipt in batch])

    def reset(self, reason: str) -> None:
        """Gives up what is in flight, reports it as failed, and connects anew.

        All of it, never a part of a partition: if an early message failed and a later one of the same user were still
        delivered, the early one sent again would land behind it.
        """
        main, side = self._main, self._side
        self._contact.is_there = self.available = False
        try:
            if not self._closing or self.in_flight:
                log.warning("kafka_reset", reason=reason, in_flight=self.in_flight)
            main.give_up_all(reason)
            side.give_up_all(reason)
            # Kafka is away for frames that were to be kept as well: they are sent again with all the rest.
            self._side_in_flight -= len(side.failed)
            main.failed += side.failed
            side.failed = []
            main.reason = reason
            self._note_health()
            self._hand_on()
        finally:
            if not self._closing:
                self._contact.connect()

    def _note_health(self) -> None:
        """Something may be ill or well, a lane open or closed."""
        self.available = self._contact.is_there
        self._small = self._main.small
        was_ill, self.is_ill = self.is_ill, self._health.is_ill or not self._side.is_open
        if self.is_ill and not was_ill:
            self._contact.look_soon()

    # --- End ---------------------------------------------------------------------------------------------------------

    async def drain(self, timeout: float) -> bool:
        """Waits until every message has its report, at most ``timeout`` seconds; whether all have."""
        deadline = time.monotonic() + timeout
        while self.in_flight and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        return not self.in_flight

    async def close(self, timeout: float) -> None:
        """Flushes and ends; what Kafka has not confirmed after ``timeout`` seconds is reported as failed."""
        self._closing = True
        await self.drain(timeout)
        self._contact.close()
        if self._timer is not None:
            self._timer.cancel()
        self.reset("the gateway stops")
