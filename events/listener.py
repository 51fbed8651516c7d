"""Hears the fast news of ``broadcast`` in an event loop. Room: events.

Contract: messages may come twice or not at all; ``on_gap`` says each time when some may have been missed, and the owner
then asks the database. Both callbacks run in the loop and must not block; what they raise is logged and ignored.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from events.broadcast import CHANNEL

log = structlog.get_logger(__name__)

# Seconds.
_CONNECT_TIMEOUT = 1.0
_PAUSE = 0.1
_PAUSE_LIMIT = 1.0
# Silence after which Redis is asked whether it is there, and the time it has to answer.
_PING_INTERVAL = 2.0
_PONG_TIMEOUT = 2.0
_CANCEL_PATIENCE = 0.5


class ChangeListener:
    """One subscription, made anew for as long as it runs."""

    def __init__(self, url: str, on_message: Callable[[dict[str, Any]], None], on_gap: Callable[[], None]) -> None:
        """``url``: of Redis; empty: nothing is heard. ``on_gap`` is called after every connect, the first included."""
        self._url = url
        self._on_message = on_message
        self._on_gap = on_gap
        self._task: asyncio.Task[None] | None = None
        self._is_down = False
        # Whether messages arrive at this moment.
        self.is_connected = False

    def start(self) -> None:
        """Begins in the running loop; a second call changes nothing."""
        if self._url and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            while not task.done():
                # Until it is heard: asyncio.wait_for, by which the client sends, loses a cancellation that comes at the
                # moment when what it waits for is done (Python 3.11).
                task.cancel()
                await asyncio.wait([task], timeout=_CANCEL_PATIENCE)
            self.is_connected = False

    async def _run(self) -> None:
        pause = _PAUSE
        while True:
            try:
                await self._listen()
            except (RedisError, OSError, TimeoutError) as error:
                reason = type(error).__name__
            except Exception:
                log.exception("change_listener_crashed")
                reason = "crash"
            if self.is_connected:
                pause = _PAUSE
            self.is_connected = False
            if not self._is_down:
                self._is_down = True
                log.warning("change_listener_down", reason=reason)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSE_LIMIT)

    async def _listen(self) -> None:
        """Never returns; raises when the connection is no more."""
        # No retries: a connection that was made anew behind our back would hide the gap.
        redis = Redis.from_url(
            self._url,
            socket_connect_timeout=_CONNECT_TIMEOUT,
            socket_timeout=_PONG_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            async with redis.pubsub() as pubsub:
                await pubsub.subscribe(CHANNEL)
                heard_at = time.monotonic()
                is_asked = False
                while True:
                    message = await pubsub.get_message(timeout=_PING_INTERVAL)
                    now = time.monotonic()
                    if message is not None:
                        heard_at, is_asked = now, False
                        self._take(message)
                    elif is_asked and now - heard_at > _PING_INTERVAL + _PONG_TIMEOUT:
                        raise TimeoutError("no answer to a ping")
                    elif not is_asked:
                        is_asked = True
                        await pubsub.ping()
        finally:
            await redis.aclose()

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self.is_connected = True
            if self._is_down:
                self._is_down = False
                log.info("change_listener_back")
            self._call(self._on_gap)
        elif message["type"] == "message":
            try:
                change = msgspec.json.decode(message["data"], type=dict[str, Any])
            except (msgspec.MsgspecError, UnicodeDecodeError):
                log.warning("change_unreadable", size=len(message["data"]))
                return
            self._call(self._on_message, change)

    def _call(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            callback(*arguments)
        except Exception:
            log.exception("change_listener_callback_failed")
