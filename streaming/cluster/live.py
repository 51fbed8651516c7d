"""The live connections of this process, written where administrators can see all of them. Room: streaming.cluster.

One Redis hash a company, one field a connection. Whoever reads leaves out what belongs to a process whose heart has
stopped, so an entry needs no end of its own.
"""

import math
import time
from collections.abc import Iterable

import msgspec
from redis.asyncio import Redis

from streaming.cluster.link import Link
from streaming.cluster.places import HEART_PREFIX
from streaming.registry import Connection, Registry

COMPANIES_KEY = "gateway:live:companies"
# Seconds: how often counters are written, and everything.
_COUNTERS_INTERVAL = 5.0
_ALL_INTERVAL = 15.0
_BATCH = 500
_TTL = 86_400


class LiveConnection(msgspec.Struct, frozen=True):
    """One connection as administrators see it; times in Unix seconds."""

    session_id: str
    process: str
    user_id: str
    username: str
    company_id: str
    address: str
    opened_at: float
    # streaming, paused (waits for Kafka) or idle
    state: str
    messages: int
    in_flight: int
    stream_id: str
    accounts: list[str]
    seen_at: float


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(LiveConnection).decode


class LiveList:
    """Notes what has changed; ``flush`` writes it, off every message's way."""

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._opened: set[str] = set()
        # (company id, session id)
        self._closed: set[tuple[str, str]] = set()
        # Session id -> messages and accounts as they were written, of all that Redis may have.
        self._written: dict[str, tuple[int, int]] = {}
        self._counters_at = -math.inf
        self._all_at = -math.inf

    def opened(self, connection: Connection) -> None:
        if not self._link.is_alone:
            self._opened.add(connection.session.session_id)

    def closed(self, connection: Connection) -> None:
        session = connection.session
        self._opened.discard(session.session_id)
        # What was never written need not be removed, however many come and go while Redis is away.
        if self._written.pop(session.session_id, None) is not None:
            self._closed.add((session.policy.company_id, session.session_id))

    def repeat_all(self) -> None:
        """Redis was away and may have forgotten."""
        self._all_at = -math.inf

    async def flush(self) -> None:
        if self._link.is_alone:
            return
        now = time.monotonic()
        chosen = set(self._opened)
        is_all = now - self._all_at > _ALL_INTERVAL
        if is_all:
            self._all_at = self._counters_at = now
            chosen.update(self._registry.connections)
        elif now - self._counters_at > _COUNTERS_INTERVAL:
            self._counters_at = now
            chosen.update(
                session_id
                for session_id, connection in self._registry.connections.items()
                if self._written.get(session_id) != _figures(connection)
            )
        if await self._flush(chosen):
            self._opened.difference_update(chosen)
        elif is_all:
            # Still owed, and at once.
            self.repeat_all()

    async def _flush(self, chosen: set[str]) -> bool:
        """Writes these connections and removes those that have closed; False when Redis has not taken all of it."""
        closed = list(self._closed)
        for start in range(0, len(closed), _BATCH):
            batch = closed[start : start + _BATCH]
            if not await self._remove(batch):
                return False
            self._closed.difference_update(batch)
        waiting = [self._registry.connections[one] for one in chosen if one in self._registry.connections]
        for start in range(0, len(waiting), _BATCH):
            if not await self._write(waiting[start : start + _BATCH]):
                return False
        return True

    async def _write(self, connections: list[Connection]) -> bool:
        async def question(redis: Redis) -> bool:
            pipe = redis.pipeline(transaction=False)
            companies = set()
            for connection in connections:
                session = connection.session
                # It may have gone while this waited for its turn.
                if session.session_id in self._registry.connections:
                    # From here on it is in Redis, or may be, whatever becomes of the answer.
                    self._written.setdefault(session.session_id, (0, 0))
                    companies.add(session.policy.company_id)
                    pipe.hset(live_key(session.policy.company_id), session.session_id, encode(self._row(connection)))
            if companies:
                pipe.sadd(COMPANIES_KEY, *companies)
            for company_id in companies:
                pipe.expire(live_key(company_id), _TTL)
            await pipe.execute()
            return True

        if not await self._link.ask(question):
            return False
        for connection in connections:
            session_id = connection.session.session_id
            if session_id in self._written:
                self._written[session_id] = _figures(connection)
        return True

    async def _remove(self, closed: Iterable[tuple[str, str]]) -> bool:
        async def question(redis: Redis) -> bool:
            pipe = redis.pipeline(transaction=False)
            for company_id, session_id in closed:
                pipe.hdel(live_key(company_id), session_id)
            await pipe.execute()
            return True

        return bool(await self._link.ask(question))

    def _row(self, connection: Connection) -> LiveConnection:
        session = connection.session
        messages = self._written.get(session.session_id, (0, 0))[0]
        state = "paused" if session.is_paused else "streaming" if session.messages > messages else "idle"
        return LiveConnection(
            session_id=session.session_id,
            process=self._link.process_id,
            user_id=session.policy.user_id,
            username=connection.username,
            company_id=session.policy.company_id,
            address=connection.address,
            opened_at=connection.opened_at,
            state=state,
            messages=session.messages,
            in_flight=session.in_flight,
            stream_id=session.stream_id,
            accounts=sorted(session.accounts),
            seen_at=time.time(),
        )


def _figures(connection: Connection) -> tuple[int, int]:
    return connection.session.messages, len(connection.session.accounts)


def live_key(company_id: str) -> str:
    return f"gateway:live:{company_id}"


def heart_key(process_id: str) -> str:
    return HEART_PREFIX + process_id
