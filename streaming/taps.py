"""Lets an administrator follow the messages of one user. Room: streaming.

Who follows asks through the news channel and reads a channel of Redis; a session that nobody follows pays one
comparison a message. What is followed is a look, not a record: above the limit a second it is left out and counted.
Prices go to a channel of their own: who may see the headers alone listens where they never are.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
from redis.asyncio import Redis

from proto.gateway.v1 import envelope_pb2
from streaming.cluster.link import Link
from streaming.core.payloads import PARSERS
from streaming.core.replies import plain
from streaming.core.session import Session
from streaming.registry import Registry

# Rows between two flushes.
_ROW_LIMIT = 100
# Bytes of a record whose payload is shown.
_PAYLOAD_LIMIT = 16_384
# Seconds that one wish to follow is good for; whoever goes on looking repeats it.
FOLLOW_TTL = 15.0


@dataclass(slots=True)
class _Tap:
    """Seconds of the monotonic clock up to which somebody looks at the headers, and at the payloads as well."""

    headers_until: float = 0.0
    payloads_until: float = 0.0
    # (header, payload if it is wanted)
    rows: list[tuple[dict[str, Any], dict[str, Any] | None]] = field(default_factory=list)
    left_out: int = 0

    @property
    def until(self) -> float:
        return max(self.headers_until, self.payloads_until)


class Taps:
    """The users of this process that somebody follows."""

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._taps: dict[str, _Tap] = {}

    def follow(self, user_id: str, *, with_payload: bool) -> None:
        """Begins or goes on for FOLLOW_TTL seconds; one who looks at headers changes nothing for one who sees more."""
        until = time.monotonic() + FOLLOW_TTL
        tap = self._taps.setdefault(user_id, _Tap())
        if with_payload:
            tap.payloads_until = until
        else:
            tap.headers_until = until
        entry = self._registry.users.get(user_id)
        for connection in entry.connections if entry is not None else ():
            connection.session.tap = self.take

    def attach(self, session: Session) -> None:
        """A new session of a user that may be followed."""
        if session.policy.user_id in self._taps:
            session.tap = self.take

    def take(
        self, session: Session, message_type: str, sequence: int, size: int, verdict: str, value: bytes, now_us: int
    ) -> None:
        """The core's Tap port."""
        tap = self._taps.get(session.policy.user_id)
        if tap is None:
            session.tap = None
            return
        if len(tap.rows) >= _ROW_LIMIT:
            tap.left_out += 1
            return
        row: dict[str, Any] = {
            "session_id": session.session_id,
            "message_type": message_type,
            "sequence": sequence,
            "size": size,
            "verdict": verdict,
            "received_at_us": now_us,
        }
        payload = None
        if value and len(value) <= _PAYLOAD_LIMIT and time.monotonic() <= tap.payloads_until:
            envelope = envelope_pb2.MessageEnvelope.FromString(value)
            payload = plain(PARSERS[message_type](envelope.payload))
        tap.rows.append((row, payload))

    async def flush(self) -> None:
        now = time.monotonic()
        for user_id, tap in list(self._taps.items()):
            if now > tap.until:
                del self._taps[user_id]
                continue
            if tap.rows or tap.left_out:
                rows, left_out = tap.rows, tap.left_out
                tap.rows, tap.left_out = [], 0
                if now <= tap.headers_until:
                    await self._publish(follow_channel(user_id), [header for header, _ in rows], left_out)
                if now <= tap.payloads_until:
                    full = [header if payload is None else {**header, "payload": payload} for header, payload in rows]
                    await self._publish(follow_channel(user_id, with_payload=True), full, left_out)

    async def _publish(self, channel: str, rows: list[dict[str, Any]], left_out: int) -> None:
        message = msgspec.json.encode({"rows": rows, "left_out": left_out})

        async def question(redis: Redis) -> int:
            return int(await redis.publish(channel, message))

        await self._link.ask(question)


def follow_channel(user_id: str, *, with_payload: bool = False) -> str:
    """Where the rows of a user's messages are published."""
    return f"gateway:follow:{user_id}:payloads" if with_payload else f"gateway:follow:{user_id}"
