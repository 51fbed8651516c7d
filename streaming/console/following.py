"""One user's messages as server-sent events, while somebody looks at them. Room: streaming.

Contract of the stream: ``begin``, then ``rows`` with JSON ``{"rows": [...], "left_out": n}`` and a comment where there
are none, in the end ``end`` with JSON ``{"reason": ...}``: full, unavailable, draining, time, signed_out or not_yours.
A row is what ``taps`` publishes with ``age_ms``, milliseconds since the gateway received the message.
"""

import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, InterfaceError, close_old_connections
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from events import broadcast
from streaming.factory import process_runtime
from streaming.taps import follow_channel
from tenants import access
from tenants.access import Actor, NotVisible

# Seconds. The wish to follow is repeated with each look at the rights, long before the gateways forget it.
CHECK_INTERVAL = 3.0
HEARTBEAT_INTERVAL = 10.0
TIME_LIMIT = 600.0
# The longest that a drain goes unnoticed.
_TURN = 0.5
_ANSWER_TIMEOUT = 2.0


class LookEnded(Exception):
    """The look must not go on; ``reason`` is for the page."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Look:
    """Who looks at whose messages. Its methods wait for the database and raise LookEnded."""

    session_key: str
    # Of who looks: for the audit log, and "" for an operator.
    address: str
    company_id: str
    user_id: str
    with_prices: bool

    def begin(self) -> None:
        """Leaves an entry in the audit log and asks the gateways for the messages."""
        actor = self._actor()
        try:
            access.note_following(actor, self.user_id, with_prices=self.with_prices)
        except (NotVisible, PermissionDenied):
            raise LookEnded("not_yours") from None
        self._ask_gateways()

    def go_on(self) -> None:
        """Looks whether it still may, and asks the gateways again."""
        actor = self._actor()
        try:
            access.person(actor, self.user_id)
        except NotVisible:
            raise LookEnded("not_yours") from None
        if self.with_prices and not actor.sees_all:
            raise LookEnded("not_yours")
        self._ask_gateways()

    def _actor(self) -> Actor:
        person = access.person_of_session(self.session_key)
        if person is None:
            raise LookEnded("signed_out")
        return Actor.of(person, self.address)

    def _ask_gateways(self) -> None:
        broadcast.announce({"kind": "follow", "user_id": self.user_id, "with_payload": self.with_prices})


class Followers:
    """Those of this process; everything runs on its event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._by_company: Counter[str] = Counter()

    async def events(self, look: Look) -> AsyncGenerator[bytes, None]:
        """The stream of one look, from its first row to its end."""
        if self._is_full_for(look.company_id):
            yield _event("end", {"reason": "full"})
            return
        self.count += 1
        self._by_company[look.company_id] += 1
        try:
            async with aclosing(_follow(look)) as parts:
                async for part in parts:
                    yield part
        except LookEnded as end:
            yield _event("end", {"reason": end.reason})
        except (RedisError, OSError, TimeoutError, DatabaseError, InterfaceError):
            yield _event("end", {"reason": "unavailable"})
        finally:
            self.count -= 1
            self._by_company[look.company_id] -= 1

    def _is_full_for(self, company_id: str) -> bool:
        """One company has a quarter of the places, so that it cannot keep the others out; the last quarter is the
        operators'."""
        limit = settings.GATEWAY_FOLLOWER_LIMIT
        if self.count >= limit:
            return True
        if not company_id:
            return False
        of_companies = self.count - self._by_company[""]
        return self._by_company[company_id] >= max(1, limit // 4) or of_companies >= limit - limit // 4


async def _follow(look: Look) -> AsyncGenerator[bytes, None]:
    # No retries: a subscription that is made anew behind our back would hide what was missed.
    redis = Redis.from_url(
        settings.REDIS_URL,
        socket_connect_timeout=_ANSWER_TIMEOUT,
        socket_timeout=_ANSWER_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            # First the ear, then the question.
            await pubsub.subscribe(follow_channel(look.user_id, with_payload=look.with_prices))
            await _in_thread(look.begin)
            began_at = checked_at = said_at = time.monotonic()
            yield _event("begin", {"with_prices": look.with_prices})
            while True:
                message = await pubsub.get_message(timeout=_TURN)
                now = time.monotonic()
                if _is_draining():
                    raise LookEnded("draining")
                if now - began_at >= TIME_LIMIT:
                    raise LookEnded("time")
                # Before anything more is shown: the messages must not outlast the right to see them.
                if now - checked_at >= CHECK_INTERVAL:
                    await _in_thread(look.go_on)
                    checked_at = now
                if message is not None:
                    yield _event("rows", _aged(message["data"]))
                    said_at = now
                elif now - said_at >= HEARTBEAT_INTERVAL:
                    # A proxy ends what is silent for too long.
                    yield b": still here\n\n"
                    said_at = now
    finally:
        await redis.aclose()


def _aged(data: bytes) -> dict[str, Any]:
    message: dict[str, Any] = msgspec.json.decode(data)
    now_us = time.time_ns() // 1000
    for row in message["rows"]:
        row["age_ms"] = max(0, now_us - row["received_at_us"]) // 1000
    return message


async def _in_thread(step: Callable[[], None]) -> None:
    def visit() -> None:
        close_old_connections()
        try:
            step()
        finally:
            # The look goes on for minutes; a connection of the pool is needed elsewhere.
            close_old_connections()

    await sync_to_async(visit)()


def _is_draining() -> bool:
    """Of this process, where it is a gateway at all."""
    return process_runtime.cache_info().currsize > 0 and process_runtime().is_draining


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


followers = Followers()
