"""A sink's contact with its brokers: opens its lanes, asks how the topics stand. Room: streaming.sinks."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from confluent_kafka import Producer

from streaming.sinks.health import Health
from streaming.sinks.lane import Lane
from streaming.sinks.look import Look

log = structlog.get_logger(__name__)

_RECONNECT_PAUSE = 1.0
_WARM_UP_TIMEOUT = 15.0
# Seconds between two looks at the brokers: while something is ill, and else (limits and rights may be changed).
_ILL_LOOK = 1.0
_CALM_LOOK = 60.0
# Seconds that one question of a look may take.
_QUESTION_TIMEOUT = 4.0
# Seconds that the first connections wait for the lane of failed-messages.
_SIDE_TIMEOUT = 2.0


class Contact:
    """Belongs to one sink. The lane of data decides whether Kafka is there; the other one is opened beside it."""

    def __init__(
        self,
        config: Mapping[str, Any],
        health: Health,
        main: Lane,
        side: Lane,
        look: Callable[..., Look],
        on_change: Callable[[], None],
        *,
        partitions: int,
        replication: int,
        timeout: float,
    ) -> None:
        """``on_change`` is called whenever a lane was opened or a look has ended; ``timeout``: seconds after which a
        message without a report is given up, before which a look has to end."""
        self._config = config
        self._health = health
        self._main = main
        self._side = side
        self._look = look
        self._on_change = on_change
        self._partitions = partitions
        self._replication = replication
        self._question_timeout = min(_QUESTION_TIMEOUT, max(1.0, timeout * 0.4))
        self._connecting: asyncio.Task[None] | None = None
        self._opening_side: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._look_is_due = asyncio.Event()
        # When the last look began, and whether a broker answered it.
        self.looked_at = float("-inf")
        self.is_answered = False
        # False until the producer of data is warm, and again while all of Kafka is away.
        self.is_there = False

    def start(self) -> None:
        self.connect()
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    def connect(self) -> None:
        """Opens the lanes in the background, unless that is under way."""
        self.is_there = False
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def close(self) -> None:
        self.is_there = False
        for task in (self._connecting, self._opening_side, self._watching):
            if task is not None:
                task.cancel()

    def look_soon(self) -> None:
        """Whoever watches may sleep for long."""
        self._look_is_due.set()

    async def _connect(self) -> None:
        """Makes warm producers: topics there, brokers connected, producer id assigned; tries until it works."""
        attempt = 0
        while True:
            attempt += 1
            try:
                await self._ask(_QUESTION_TIMEOUT, nothing_in_flight=True)
                if not self._health.takes_somebody(self._main.topics):
                    raise RuntimeError("no partition takes messages")
                self._open_side()
                await self._open(self._main)
                if self._opening_side is not None:
                    await asyncio.wait({self._opening_side}, timeout=_SIDE_TIMEOUT)
            except Exception as error:
                # Whatever it is: the process is of no use without Kafka, and tries until it has it.
                if attempt == 1 or attempt % 30 == 0:
                    log.warning("kafka_not_reachable", reason=f"{type(error).__name__}: {error}", attempt=attempt)
                await asyncio.sleep(_RECONNECT_PAUSE)
                continue
            if not self._main.is_open:
                # Given up while the other lane was waited for.
                continue
            self.is_there = True
            self._on_change()
            log.info("kafka_ready", attempt=attempt)
            return

    def _open_side(self) -> None:
        """Opens the lane of failed-messages in the background, where its topic can be written."""
        is_opening = self._opening_side is not None and not self._opening_side.done()
        if not self._side.is_open and not is_opening and self._health.takes_somebody(self._side.topics):
            self._opening_side = asyncio.get_running_loop().create_task(self._try_side())

    async def _try_side(self) -> None:
        try:
            await self._open(self._side)
        except Exception as error:
            log.warning("failed_messages_not_reachable", reason=f"{type(error).__name__}: {error}")
        self._on_change()

    async def _open(self, lane: Lane) -> None:
        """Raises when the brokers do not let the producer become warm: its id is what the first message of a new one
        otherwise waits for, 400 to 1,000 ms."""
        producer = lane.make_producer()
        await asyncio.get_running_loop().run_in_executor(None, _learn_topics, producer, lane.topics)
        deadline = time.monotonic() + _WARM_UP_TIMEOUT
        while not lane.has_producer_id():
            if time.monotonic() > deadline:
                raise TimeoutError("no producer id from the broker")
            await asyncio.sleep(0.02)
            producer.poll(0)
        lane.open(producer)

    async def _watch(self) -> None:
        """Looks at the brokers now and then, often while something is ill, at once when somebody wants to know."""
        while True:
            is_ill = self._health.is_ill or not self._side.is_open
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ILL_LOOK if is_ill else _CALM_LOOK):
                    await self._look_is_due.wait()
            self._look_is_due.clear()
            # Who connects looks by itself.
            if self.is_there:
                try:
                    await self._ask(self._question_timeout)
                except Exception as error:
                    log.debug("kafka_look_failed", reason=f"{type(error).__name__}: {error}")
                self._open_side()

    async def _ask(self, question_timeout: float, *, nothing_in_flight: bool = False) -> None:
        """Takes over how the topics stand; raises when no broker answers."""
        began = time.monotonic()
        topics = [*self._main.topics, *self._side.topics]
        arguments = (self._config, topics, self._partitions, self._replication, question_timeout)
        is_answered = False
        try:
            look = await asyncio.get_running_loop().run_in_executor(None, self._look, *arguments)
            is_answered = True
        finally:
            self.looked_at, self.is_answered = began, is_answered
            self._main.is_held = self._side.is_held = False
        self._health.note(look, nothing_in_flight=topics if nothing_in_flight else ())
        for lane in (self._main, self._side):
            lane.note_limits()
            if not self._health.stuck.isdisjoint(lane.topics):
                lane.stop()
        self._health.stuck.clear()
        self._on_change()


def _learn_topics(producer: Producer, topics: list[str]) -> None:
    """Makes the producer know the partitions of all, so that the first messages need not wait for that. Blocks."""
    for topic in topics:
        producer.list_topics(topic, timeout=_QUESTION_TIMEOUT)
