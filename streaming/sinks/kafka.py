"""Kafka behind the Sink port: the only importer of confluent_kafka on the hot path. Room: streaming.sinks.

One idempotent producer a process. Delivery reports are taken on the event loop itself by short polls while messages are
in flight: a poll thread would fight the loop for the interpreter lock and wake it for every batch.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from streaming.core.ports import Headers, Receipt
from streaming.sinks.topics import ensure_topics, wait_for_producer_id

log = structlog.get_logger(__name__)

# Seconds. While something is in flight, what has gathered is handed over and reports are asked for this often, and this
# often otherwise (for errors and statistics).
_BUSY_POLL = 0.002
_IDLE_POLL = 0.1
# Bytes; of a batch that a broker finds too large, smaller messages are not to blame.
_LARGE_MESSAGE_SIZE = 16_384
_RECONNECT_PAUSE = 1.0
_WARM_UP_TIMEOUT = 15.0


def producer_config(bootstrap_servers: str, linger: float, options: Mapping[str, str]) -> dict[str, Any]:
    """librdkafka settings of the producer; ``linger`` in seconds; ``options`` win (security, compression).

    What durability stands on cannot be overridden: acks=all, idempotence and the partitioner.
    """
    return {
        "linger.ms": linger * 1000,
        "socket.timeout.ms": 10_000,
        "socket.keepalive.enable": True,
        "socket.nagle.disable": True,
        # The sink ends everything by itself well before; expiry of single messages would leave gaps in the order.
        "delivery.timeout.ms": 120_000,
        "queue.buffering.max.messages": 200_000,
        "queue.buffering.max.kbytes": 524_288,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1_000,
        "statistics.interval.ms": 1_000,
        "topic.metadata.refresh.interval.ms": 60_000,
        **options,
        "bootstrap.servers": bootstrap_servers,
        "acks": "all",
        "enable.idempotence": True,
        # As Java's default partitioner, so that Java consumers find a user where they expect it.
        "partitioner": "murmur2_random",
    }


class _Handover:
    """The messages that were given to librdkafka together: when, and how many of them have no report yet."""

    __slots__ = ("at", "left")

    def __init__(self, at: float, left: int) -> None:
        self.at = at
        self.left = left


class KafkaSink:
    """Publishes with order per key, reports each receipt once, and knows when the broker is away."""

    def __init__(
        self,
        config: dict[str, Any],
        topics: list[str],
        on_delivered: Callable[[list[Receipt]], None],
        on_failed: Callable[[list[Receipt], str], None],
        on_room: Callable[[], None],
        on_too_large: Callable[[list[Receipt]], None],
        *,
        in_flight_limit: int,
        in_flight_max_size: int,
        timeout: float,
        gather: float = 0.0,
        may_rest: Callable[[], bool] = lambda: True,
        partitions: int = 6,
        replication: int = 1,
    ) -> None:
        """``in_flight_max_size``: bytes; ``timeout``: seconds that a message may wait for its report before the
        broker counts as away; ``gather``: seconds between two turns while messages come more often than
        that; ``may_rest``: False while something else needs the loop at once."""
        self._config = config
        self._topics = topics
        self._on_delivered = on_delivered
        self._on_failed = on_failed
        # Called when the sink has been full and is half empty again.
        self._on_room = on_room
        # Called with what no broker takes, however often it is sent.
        self._on_too_large = on_too_large
        self._in_flight_limit = in_flight_limit
        self._in_flight_max_size = in_flight_max_size
        self._timeout = timeout
        self._gather = gather
        self._may_rest = may_rest
        self._partitions = partitions
        self._replication = replication
        self._producer: Producer | None = None
        self._queue: list[tuple[str, bytes, bytes, Receipt, Headers | None]] = []
        self._delivered: list[Receipt] = []
        self._failed: list[Receipt] = []
        self._too_large: list[Receipt] = []
        # Those with messages that have no report yet, the oldest first.
        self._handovers: deque[_Handover] = deque()
        # Why everything in flight has to be given up; "" while it has not.
        self._failure = ""
        self._timer: asyncio.Handle | None = None
        # A turn comes as soon as the sockets are read; else a timer's.
        self._turn_is_due = False
        self._turned_at = 0.0
        self._connecting: asyncio.Task[None] | None = None
        self._closing = False
        self.in_flight = 0
        self.in_flight_size = 0
        # False until the producer is warm, and again while the broker is away.
        self.available = False
        # True from a full queue until half of it is free.
        self.is_full = False
        self.is_ill = False

    def takes(self, topic: str, key: bytes) -> bool:
        return True

    def start(self) -> None:
        """Begins to connect in the background; ``available`` turns true when a message would go out at once."""
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def publish(self, topic: str, key: bytes, value: bytes, receipt: Receipt, headers: Headers | None = None) -> None:
        self._queue.append((topic, key, value, receipt, headers))
        self.in_flight += 1
        self.in_flight_size += receipt[4]
        if self.in_flight >= self._in_flight_limit or self.in_flight_size >= self._in_flight_max_size:
            self.is_full = True
        if not self._turn_is_due:
            self._next_turn()

    def _produce(self) -> None:
        """Hands over what has gathered since the last turn: librdkafka's thread then wakes once for all of it."""
        queue, self._queue = self._queue, []
        producer, report = self._producer, self._report
        handover = _Handover(time.monotonic(), len(queue))
        self._handovers.append(handover)
        for topic, key, value, receipt, headers in queue:
            try:
                if producer is None:
                    raise BufferError("not connected")
                if headers is None:
                    producer.produce(topic, value, key, on_delivery=partial(report, handover, receipt))
                else:
                    producer.produce(
                        topic, value, key, on_delivery=partial(report, handover, receipt), headers=list(headers)
                    )
            except KafkaException as error:
                report(handover, receipt, error.args[0], None)
            except BufferError as error:
                handover.left -= 1
                self._fail(receipt, str(error))

    def _report(self, handover: _Handover, receipt: Receipt, error: KafkaError | None, _message: object) -> None:
        """Runs inside poll(); must not raise."""
        handover.left -= 1
        if error is None:
            self._delivered.append(receipt)
        elif error.code() == KafkaError.MSG_SIZE_TOO_LARGE and receipt[4] > _LARGE_MESSAGE_SIZE:
            self._too_large.append(receipt)
        else:
            self._fail(receipt, error.str())

    def _fail(self, receipt: Receipt, reason: str) -> None:
        self._failed.append(receipt)
        self._failure = self._failure or reason

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
        gathered = len(self._queue)
        try:
            if gathered:
                self._produce()
            if self._producer is not None:
                self._producer.poll(0)
            if not self._failure and self._is_overdue():
                self._failure = "no delivery report for too long"
            if self._failure:
                self.reset(self._failure)
            else:
                self._hand_on()
        finally:
            # Whatever a callback does: without a next turn nothing would ever be reported again.
            is_busy = self.in_flight > 0
            if gathered and is_busy and self._rest():
                self._next_turn()
            elif is_busy or not self._closing:
                self._schedule(_BUSY_POLL if is_busy else _IDLE_POLL)

    def _is_overdue(self) -> bool:
        """Whether any message has waited too long: one partition can be stuck while all others go on."""
        handovers = self._handovers
        while handovers and not handovers[0].left:
            handovers.popleft()
        return bool(handovers) and time.monotonic() - handovers[0].at > self._timeout

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

    def _hand_on(self) -> None:
        """Tells of the reports that are there."""
        if self._delivered:
            batch, self._delivered = self._delivered, []
            self._settle(batch)
            self._on_delivered(batch)
        if self._too_large:
            batch, self._too_large = self._too_large, []
            self._settle(batch)
            self._on_too_large(batch)
        if self._failed:
            batch, self._failed = self._failed, []
            reason, self._failure = self._failure, ""
            self._settle(batch)
            self._on_failed(batch, reason)
        if self.is_full and self._is_half_empty():
            self.is_full = False
            self._on_room()

    def _is_half_empty(self) -> bool:
        return self.in_flight * 2 < self._in_flight_limit and self.in_flight_size * 2 < self._in_flight_max_size

    def _settle(self, batch: list[Receipt]) -> None:
        self.in_flight -= len(batch)
        self.in_flight_size -= sum([receipt[4] for receipt in batch])

    def reset(self, reason: str) -> None:
        """Gives up what is in flight, reports it as failed, and connects anew.

        All of it, never a part: if an early message failed and a later one of the same user were still delivered, the
        early one sent again would land behind it.
        """
        producer, self._producer = self._producer, None
        self.available = False
        try:
            if producer is not None:
                if not self._closing or self.in_flight:
                    log.warning("kafka_reset", reason=reason, in_flight=self.in_flight)
                producer.purge(in_queue=True, in_flight=True, blocking=False)
                producer.poll(0)
            self._failed += [queued[3] for queued in self._queue]
            self._queue = []
            self._handovers.clear()
            self._failure = reason
            self._hand_on()
        finally:
            self._failure = ""
            if not self._closing and (self._connecting is None or self._connecting.done()):
                self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        """Makes a warm producer: topics there, brokers connected, producer id assigned; tries until it works."""
        loop = asyncio.get_running_loop()
        attempt = 0
        while not self._closing:
            attempt += 1
            statistics: deque[str] = deque(maxlen=1)
            config = {**self._config, "error_cb": self._on_error, "stats_cb": statistics.append, "logger": _library_log}
            try:
                producer = Producer(config)
                await loop.run_in_executor(
                    None, ensure_topics, producer, self._config, self._topics, self._partitions, self._replication
                )
                await wait_for_producer_id(producer, statistics, _WARM_UP_TIMEOUT)
            except Exception as error:
                # Whatever it is: the process is of no use without Kafka, and tries until it has it.
                if attempt == 1 or attempt % 30 == 0:
                    log.warning("kafka_not_reachable", reason=f"{type(error).__name__}: {error}", attempt=attempt)
                await asyncio.sleep(_RECONNECT_PAUSE)
                continue
            self._producer = producer
            self.available = True
            self._schedule(_IDLE_POLL)
            log.info("kafka_ready", attempt=attempt)
            return

    def _on_error(self, error: KafkaError) -> None:
        """Runs inside poll(); librdkafka recovers by itself from all but fatal errors."""
        if error.fatal():
            self._failure = self._failure or f"fatal producer error: {error.str()}"

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
        if self._connecting is not None:
            self._connecting.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self.reset("the gateway stops")


class _LibraryLog:
    """librdkafka's own lines are for its authors; ours say the same once, in our words."""

    def log(self, _level: int, text: str, *arguments: object) -> None:
        log.debug("librdkafka", text=text % arguments if arguments else text)


_library_log = _LibraryLog()
