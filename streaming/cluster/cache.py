"""What the tenants room says of users, in Redis for all processes. Room: streaming.cluster.

An entry is only a help: whoever reads it compares its version with what is known of the company.
"""

from collections.abc import Sequence

import msgspec
from redis.asyncio import Redis

from streaming.cluster.link import Link
from tenants.access import TerminalAccess

# msgpack, since JSON has no infinity.
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(TerminalAccess).decode


class AccessCache:
    """Entries live for ``ttl`` seconds."""

    def __init__(self, link: Link, ttl: float) -> None:
        self._link = link
        self._ttl = max(1, int(ttl))

    async def get(self, user_id: str) -> TerminalAccess | None:
        async def question(redis: Redis) -> bytes | str | None:
            return await redis.get(_key(user_id))

        value = await self._link.ask(question)
        if not isinstance(value, bytes):
            return None
        try:
            return _decode(value)
        except msgspec.MsgspecError:
            # Written by another version of the product.
            return None

    async def put(self, entries: Sequence[TerminalAccess]) -> None:
        async def question(redis: Redis) -> bool:
            pipe = redis.pipeline(transaction=False)
            for access in entries:
                pipe.set(_key(access.user_id), _encode(access), ex=self._ttl)
            await pipe.execute()
            return True

        if entries:
            await self._link.ask(question)


def _key(user_id: str) -> str:
    return f"gateway:access:{user_id}"
