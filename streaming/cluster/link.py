"""One process's link to the Redis that all processes share. Room: streaming.cluster.

Redis helps and never decides alone: whatever is kept there has a local fallback, so nothing here raises for a Redis
that is away.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

_CONNECTION_LIMIT = 32
# Seconds that an answer is waited for: a handshake may hang on it.
ANSWER_TIMEOUT = 1.0
# Seconds that a question waits for its turn while all connections are in use.
_TURN_TIMEOUT = 3.0
# After a failure Redis is left alone for this long, so that handshakes do not each wait for it.
_REST = 0.5
_T = TypeVar("_T")


def new_process_id() -> str:
    """Unique over hosts and restarts."""
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(6)}"


class Link:
    """``ask`` gives an answer or None; ``on_return`` are called when Redis answers again after an absence."""

    def __init__(self, url: str, process_id: str) -> None:
        """``url``: empty means that this process is alone."""
        self.process_id = process_id
        self.on_return: list[Callable[[], None]] = []
        self.is_up = bool(url)
        self._silent_until = 0.0
        # A storm of connects must not read as "Redis is away": who finds all connections in use waits for a turn, and
        # only then begins the time that an answer may take.
        self._turns = asyncio.Semaphore(_CONNECTION_LIMIT)
        self._redis: Redis | None = None
        if url:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTION_LIMIT,
                timeout=ANSWER_TIMEOUT,
                # ``ask`` has one of its own, and this one costs a task for each message.
                socket_timeout=None,
                socket_connect_timeout=1.0,
                # For a connection that Redis has closed since the last question.
                retry=Retry(NoBackoff(), 1),
            )
            self._redis = Redis(connection_pool=pool)

    @property
    def is_alone(self) -> bool:
        return self._redis is None

    async def ask(self, question: Callable[[Redis], Awaitable[_T]], *, timeout: float = ANSWER_TIMEOUT) -> _T | None:
        """The answer; None when there is no Redis, it is away, or it does not answer in time."""
        if self._redis is None:
            return None
        try:
            async with asyncio.timeout(_TURN_TIMEOUT):
                await self._turns.acquire()
        except TimeoutError:
            return None
        try:
            return await self._ask(self._redis, question, timeout)
        finally:
            self._turns.release()

    async def _ask(self, redis: Redis, question: Callable[[Redis], Awaitable[_T]], timeout: float) -> _T | None:
        loop = asyncio.get_running_loop()
        if not self.is_up and loop.time() < self._silent_until:
            return None
        try:
            async with asyncio.timeout(timeout):
                answer = await question(redis)
        except (RedisError, OSError, TimeoutError) as error:
            self._silent_until = loop.time() + _REST
            if self.is_up:
                self.is_up = False
                log.warning("redis_down", reason=type(error).__name__, fallback="limits hold by this process alone")
            return None
        if not self.is_up:
            self.is_up = True
            log.info("redis_back")
            for call in self.on_return:
                call()
        return answer

    async def close(self) -> None:
        if self._redis is not None:
            await self._redis.aclose()
