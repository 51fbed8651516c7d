"""What one process has learnt of a user is there for the others, on a real Valkey."""

import dataclasses
import math
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from streaming.cluster.cache import AccessCache
from streaming.cluster.link import Link
from tests.streaming.cluster.cast import new_id
from tests.streaming.shell_cast import BOB
from tests.support.valkey import Valkey


@pytest.fixture
async def link(valkey: Valkey) -> AsyncIterator[Link]:
    made = Link(valkey.url, "me")
    yield made
    await made.close()


async def test_entry_comes_back_as_it_was_put(link: Link) -> None:
    full = dataclasses.replace(
        BOB,
        user_id=new_id(),
        access_until=math.inf,
        api_keys={"k1": math.inf, "k2": 1_800_000_000.5},
        banned_until=1_800_000_000.25,
        bans=3,
        lifted_at=1_700_000_000.75,
        message_rate_limit=0.1,
    )
    await AccessCache(link, 60).put([full])
    assert await AccessCache(link, 60).get(full.user_id) == full


async def test_unknown_user_is_in_no_cache(link: Link) -> None:
    assert await AccessCache(link, 60).get(new_id()) is None


async def test_many_entries_are_put_at_once_and_none_is_no_visit(link: Link) -> None:
    cache, users = AccessCache(link, 60), [dataclasses.replace(BOB, user_id=new_id()) for _ in range(300)]
    await cache.put(users)
    assert [await cache.get(one.user_id) for one in (users[0], users[-1])] == [users[0], users[-1]]
    await cache.put([])


async def test_entry_ends_by_itself(link: Link) -> None:
    bob = dataclasses.replace(BOB, user_id=new_id())
    await AccessCache(link, 60).put([bob])

    async def left(redis: Redis) -> int:
        return int(await redis.ttl(f"gateway:access:{bob.user_id}"))

    assert 50 <= (await link.ask(left) or 0) <= 60


@pytest.mark.parametrize("value", [b"", b"\xff\xff", b"\x80", b'{"user_id":"bob"}'])
async def test_entry_of_another_version_of_the_product_is_as_none(link: Link, value: bytes) -> None:
    bob = new_id()

    async def put(redis: Redis) -> bool:
        return bool(await redis.set(f"gateway:access:{bob}", value))

    assert await link.ask(put)
    assert await AccessCache(link, 60).get(bob) is None


async def test_absent_valkey_has_no_entries_and_takes_none(own_valkey: Valkey) -> None:
    link = Link(own_valkey.url, "me")
    own_valkey.stop()
    cache, begun = AccessCache(link, 60), time.monotonic()
    await cache.put([BOB])
    assert await cache.get("bob") is None
    assert time.monotonic() - begun < 5.0
    await link.close()
