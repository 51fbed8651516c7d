"""How far each stream is acknowledged, kept where all processes see it. Room: streaming.

Redis, one key a stream, written in the background a few times a second: never on the way of a message. What is not
written when a process is killed is only sent once more by the client and dropped by consumers as a duplicate.
"""

import asyncio

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from streaming.registry import Registry, StreamKey

log = structlog.get_logger(__name__)

# Only ever raises a position: a dying process must not overwrite what its successor has written.
_RAISE = """
for i = 1, #KEYS do
  local known = tonumber(redis.call('GET', KEYS[i]) or '-1') or -1
  if tonumber(ARGV[i + 1]) > known then
    redis.call('SET', KEYS[i], ARGV[i + 1], 'EX', ARGV[1])
  end
end
return #KEYS
"""
_BATCH = 500
# Seconds.
_LOOK_UP_TIMEOUT = 2.0
_FLUSH_TIMEOUT = 4.0
_CONNECTION_LIMIT = 32


class PositionStore:
    """Reads positions at connect, writes the dirty ones each ``interval`` seconds."""

    def __init__(self, url: str, registry: Registry, *, interval: float, ttl: float) -> None:
        """``url``: empty means that only this process remembers; ``ttl``: seconds a position is kept."""
        self._redis: Redis | None = None
        if url:
            # Who finds all of them in use waits: a storm of connects must not read as "no position known".
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTION_LIMIT,
                timeout=_LOOK_UP_TIMEOUT,
                # Each question has one of its own, and this one costs a task for each message.
                socket_timeout=None,
                socket_connect_timeout=1.0,
                # For a connection that Redis has closed since the last question.
                retry=Retry(NoBackoff(), 1),
                decode_responses=True,
            )
            self._redis = Redis(connection_pool=pool)
        self._registry = registry
        self.interval = interval
        self._ttl = int(ttl)
        self._dirty: set[StreamKey] = set()
        self._is_down = False

    def mark(self, key: StreamKey) -> None:
        """Notes that a stream has moved."""
        self._dirty.add(key)

    async def look_up(self, key: StreamKey) -> int:
        """The last acknowledged sequence that the store knows of, 0 when it knows none or cannot be asked."""
        if self._redis is None:
            return 0
        try:
            async with asyncio.timeout(_LOOK_UP_TIMEOUT):
                value = await self._redis.get(_redis_key(key))
        except (RedisError, OSError, TimeoutError) as error:
            self._note(error)
            return 0
        return int(value) if value and value.isdigit() else 0

    async def flush(self) -> None:
        """Writes what has moved; keeps it for the next time when Redis does not answer."""
        if not self._dirty or self._redis is None:
            self._dirty.clear()
            return
        streams = self._registry.streams
        keys = [key for key in self._dirty if key in streams]
        self._dirty.clear()
        for start in range(0, len(keys), _BATCH):
            # The registry may have forgotten some of them while the batch before was written.
            batch = [key for key in keys[start : start + _BATCH] if key in streams]
            values = [streams[key].position.acknowledged for key in batch]
            try:
                async with asyncio.timeout(_FLUSH_TIMEOUT):
                    await self._redis.eval(_RAISE, len(batch), *map(_redis_key, batch), self._ttl, *values)
            except (RedisError, OSError, TimeoutError) as error:
                self._dirty.update(keys[start:])
                self._note(error)
                return
            except asyncio.CancelledError:
                # At the end of the process, whose last flush is still to come.
                self._dirty.update(keys[start:])
                raise
        if self._is_down:
            self._is_down = False
            log.info("positions_store_back")

    async def close(self) -> None:
        await self.flush()
        if self._redis is not None:
            await self._redis.aclose()

    def _note(self, error: BaseException) -> None:
        if not self._is_down:
            self._is_down = True
            log.warning("positions_store_down", reason=type(error).__name__)


def _redis_key(key: StreamKey) -> str:
    return f"gateway:position:{key[0]}:{key[1]}"
