"""Where each stream stands and which connection may write it, kept where all processes see it. Room: streaming.

Redis. For each (user, stream, writer) one value with the position and the refused sequences, so that neither is ever
ahead of the other, written in the background a few times a second: never on the way of a message. What is not written
when a process is killed is only sent once more by the client and dropped by consumers as a repetition.

For each (user, stream) a fence, a number that each connection raises: only the connection with the largest one writes.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from events.broadcast import CHANNEL
from streaming.core.stream import StreamPosition
from streaming.registry import Registry, StreamKey

log = structlog.get_logger(__name__)

# KEYS: fence, position. ARGV: seconds to keep, channel of the news, the news without its end. Answers fence, position.
_CLAIM = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fence = math.max((tonumber(redis.call('GET', KEYS[1]) or '') or 0) + 1, now)
fence = string.format('%.0f', fence)
redis.call('SET', KEYS[1], fence, 'EX', ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[3] .. fence .. '}')
return {fence, redis.call('GET', KEYS[2]) or ''}
"""
# KEYS: fence and position of each stream. ARGV: seconds to keep, then a fence and a value for each. Answers for each 0
# (a newer connection writes this stream), 1, or 2: the fence was not known here. A position is only ever raised within
# an incarnation of its stream: what is stored may be more than a process knows that could not ask at connect.
_WRITE = """
local answers = {}
for i = 1, #KEYS / 2 do
  local fence, value = tonumber(ARGV[2 * i]), ARGV[2 * i + 1]
  local held = tonumber(redis.call('GET', KEYS[2 * i - 1]) or '') or 0
  if fence < held then
    answers[i] = 0
  else
    answers[i] = fence > held and 2 or 1
    redis.call('SET', KEYS[2 * i - 1], ARGV[2 * i], 'EX', ARGV[1])
    local stored = redis.call('GET', KEYS[2 * i]) or ''
    local known, writer = string.match(stored, '^(%d+) ([^ ]*) ')
    if not known then known, writer = string.match(stored, '^(%d+)$'), '' end
    local mine, me = string.match(value, '^(%d+) ([^ ]*) ')
    if not known or writer ~= me or tonumber(mine) >= tonumber(known) then
      redis.call('SET', KEYS[2 * i], value, 'EX', ARGV[1])
    end
  end
end
return answers
"""
_REFUSED, _RAISED = 0, 2
_BATCH = 500
# Seconds.
_CLAIM_TIMEOUT = 2.0
_FLUSH_TIMEOUT = 4.0
_CONNECTION_LIMIT = 32


@dataclass(frozen=True, slots=True)
class Claim:
    """A new connection's right to write its stream, and what the store says of where the stream stands.

    ``stored``: None when it has no record, or could not be asked; then ``fence`` is this process's own.
    ``stored_fence``: of the connection that has written the record.
    """

    fence: int
    stored: StreamPosition | None = None
    stored_fence: int = 0


class PositionStore:
    """Claims streams at connect, writes the dirty positions each ``interval`` seconds."""

    def __init__(self, url: str, registry: Registry, *, interval: float, ttl: float) -> None:
        """``url``: empty means that only this process remembers; ``ttl``: seconds a position is kept."""
        self._redis: Redis | None = None
        if url:
            # Who finds all of them in use waits: a storm of connects must not read as "no position known".
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTION_LIMIT,
                timeout=_CLAIM_TIMEOUT,
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
        # Hears of each stream that a connection of another process has claimed, and the fence that is too small now.
        self.on_fenced: Callable[[StreamKey, int], None] = _ignore
        self._ttl = int(ttl)
        self._dirty: set[StreamKey] = set()
        self._is_down = False

    def mark(self, key: StreamKey) -> None:
        """Notes that a stream has moved, or is carried by another connection."""
        self._dirty.add(key)

    async def claim(self, key: StreamKey) -> Claim:
        """Makes the connection that asks the one that writes the stream, and says where the stream stands.

        Where Redis cannot be asked, the claim is made with the first write that gets through to it.
        """
        if self._redis is None:
            return Claim(self._own_fence(key))
        news = _news(key)[:-1] + ', "fence": '
        try:
            async with asyncio.timeout(_CLAIM_TIMEOUT):
                fence, value = await self._redis.eval(
                    _CLAIM, 2, _fence_key(key), _position_key(key), self._ttl, CHANNEL, news
                )
        except (RedisError, OSError, TimeoutError) as error:
            self._note(error)
            return Claim(self._own_fence(key))
        try:
            stored, stored_fence = _read(value)
        except ValueError:
            log.warning("position_unreadable", size=len(value))
            stored, stored_fence = None, 0
        # Of this process may be a claim of the time when Redis was away.
        return Claim(max(int(fence), self._registry.fence(key) + 1), stored, stored_fence)

    def _own_fence(self, key: StreamKey) -> int:
        """As Redis would count, by the clock of this machine."""
        return max(int(time.time() * 1000), self._registry.fence(key) + 1)

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
            fences = [streams[key].fence for key in batch]
            try:
                async with asyncio.timeout(_FLUSH_TIMEOUT):
                    await self._write(self._redis, batch, fences)
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

    async def _write(self, redis: Redis, batch: list[StreamKey], fences: list[int]) -> None:
        names: list[str] = []
        values: list[str | int] = []
        for key, fence in zip(batch, fences, strict=True):
            names += [_fence_key(key), _position_key(key)]
            values += [fence, f"{self._registry.streams[key].position.to_text()} {fence}"]
        answers = await redis.eval(_WRITE, len(names), *names, self._ttl, *values) if names else []
        for key, fence, answer in zip(batch, fences, answers, strict=True):
            if answer == _REFUSED:
                self.on_fenced(key, fence)
            elif answer == _RAISED:
                # Claimed while Redis was away: nobody has heard of it.
                await redis.publish(CHANNEL, f'{_news(key)[:-1]}, "fence": {fence}}}')

    async def close(self) -> None:
        await self.flush()
        if self._redis is not None:
            await self._redis.aclose()

    def _note(self, error: BaseException) -> None:
        if not self._is_down:
            self._is_down = True
            log.warning("positions_store_down", reason=type(error).__name__)


def _ignore(_key: StreamKey, _fence: int) -> None:
    """Nobody carries streams here."""


def _read(value: str) -> tuple[StreamPosition | None, int]:
    """Raises ValueError for what ``_write`` has not written; a bare number was written by an earlier version."""
    if not value:
        return None, 0
    if value.isascii() and value.isdigit():
        return StreamPosition.from_text(value), 0
    text, _, fence = value.rpartition(" ")
    return StreamPosition.from_text(text), int(fence)


def _news(key: StreamKey) -> str:
    return json.dumps({"kind": "stream_claimed", "user_id": key[0], "stream_id": key[1]})


def _fence_key(key: StreamKey) -> str:
    return f"gateway:fence:{key[0]}:{key[1]}"


def _position_key(key: StreamKey) -> str:
    # A slash stands in no name, so that no two streams share a key.
    return f"gateway:position:{key[0]}:{key[1]}" + (f"/{key[2]}" if key[2] else "")
