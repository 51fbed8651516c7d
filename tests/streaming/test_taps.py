"""An administrator follows a user's messages: everything that was decided, bounded, and only while somebody looks."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from streaming import taps
from streaming.taps import FOLLOW_TTL, follow_channel
from tests.streaming.core.cast import signal, ticks
from tests.streaming.shell_cast import BOB, Clock, Live, Process, Tenants, token_of
from tests.support.valkey import Valkey


class Follower:
    """What was published on one channel."""

    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub

    async def hears(self, seconds: float = 5.0) -> dict[str, Any]:
        """The next message."""
        async with asyncio.timeout(seconds):
            while True:
                message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=seconds)
                if message is not None:
                    decoded: dict[str, Any] = msgspec.json.decode(message["data"])
                    return decoded

    async def hears_nothing(self) -> bool:
        message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=0.2)
        return message is None


@asynccontextmanager
async def following(url: str, channel: str) -> AsyncIterator[Follower]:
    redis = Redis.from_url(url)
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(channel)
        message = await pubsub.get_message(timeout=5.0)
        assert message is not None and message["type"] == "subscribe"
        yield Follower(pubsub)
    await redis.aclose()


@pytest.fixture
async def process(tenants: Tenants, own_valkey: Valkey) -> AsyncIterator[Process]:
    tenants.users["bob"] = dataclasses.replace(BOB, connection_limit=10, message_rate_limit=1_000.0)
    made = Process(tenants, redis_url=own_valkey.url)
    yield made
    await made.runtime.stop()


def send_all_kinds(bob: Live) -> None:
    bob.send(sequence=1)
    bob.send("trading_signal", signal(), sequence=2)
    bob.send(payload=ticks("GBPUSD"), sequence=3)
    bob.send("nonsense", sequence=4)
    bob.connection.session.receive(b"\xff", time.monotonic(), 1)


async def test_follower_sees_every_message_with_what_was_decided(process: Process, own_valkey: Valkey) -> None:
    bob, alice = await process.connect(), await process.connect(token_of("alice"))
    process.fleet.taps.follow("bob", with_payload=False)
    send_all_kinds(bob)
    alice.send()
    async with following(own_valkey.url, follow_channel("bob")) as follower:
        await process.fleet.taps.flush()
        heard = await follower.hears()
    assert heard["left_out"] == 0
    assert [(row["message_type"], row["sequence"], row["verdict"]) for row in heard["rows"]] == [
        ("tick_data", 1, "accepted"),
        ("trading_signal", 2, "accepted"),
        ("tick_data", 3, "pair_not_active"),
        ("nonsense", 4, "unknown_type"),
        ("", 0, "malformed"),
    ]
    assert {row["session_id"] for row in heard["rows"]} == {bob.connection.session.session_id}
    assert all(row["size"] > 0 and "payload" not in row for row in heard["rows"])


async def test_payloads_go_to_those_alone_who_may_see_them(process: Process, own_valkey: Valkey) -> None:
    bob = await process.connect()
    process.fleet.taps.follow("bob", with_payload=False)
    process.fleet.taps.follow("bob", with_payload=True)
    async with (
        following(own_valkey.url, follow_channel("bob")) as headers,
        following(own_valkey.url, follow_channel("bob", with_payload=True)) as payloads,
    ):
        send_all_kinds(bob)
        await process.fleet.taps.flush()
        seen, full = await headers.hears(), await payloads.hears()
    assert not any("payload" in row for row in seen["rows"])
    assert [row["verdict"] for row in full["rows"] if "payload" in row] == ["accepted", "accepted"]
    assert full["rows"][0]["payload"]["ticks"][0]["symbol"] == "EURUSD"
    assert full["rows"][1]["payload"]["action"] == "BUY"


async def test_payloads_are_not_published_when_only_headers_are_looked_at(process: Process, own_valkey: Valkey) -> None:
    bob = await process.connect()
    process.fleet.taps.follow("bob", with_payload=False)
    async with following(own_valkey.url, follow_channel("bob", with_payload=True)) as payloads:
        bob.send()
        await process.fleet.taps.flush()
        assert await payloads.hears_nothing()


async def test_connections_that_open_later_are_followed_too(process: Process, own_valkey: Valkey) -> None:
    process.fleet.taps.follow("bob", with_payload=False)
    first, second = await process.connect(), await process.connect(query="stream=s2")
    first.send()
    second.send()
    async with following(own_valkey.url, follow_channel("bob")) as follower:
        await process.fleet.taps.flush()
        assert len((await follower.hears())["rows"]) == 2


async def test_what_is_above_the_limit_is_left_out_and_counted(process: Process, own_valkey: Valkey) -> None:
    bob = await process.connect()
    process.fleet.taps.follow("bob", with_payload=True)
    for sequence in range(1, taps._ROW_LIMIT + 8):
        bob.send(sequence=sequence)
    async with following(own_valkey.url, follow_channel("bob", with_payload=True)) as follower:
        await process.fleet.taps.flush()
        heard = await follower.hears()
        assert (len(heard["rows"]), heard["left_out"]) == (taps._ROW_LIMIT, 7)
        # And afresh after each flush.
        bob.send(sequence=taps._ROW_LIMIT + 8)
        await process.fleet.taps.flush()
        heard = await follower.hears()
        assert (len(heard["rows"]), heard["left_out"]) == (1, 0)


@pytest.mark.parametrize("renewed", [False, True])
async def test_following_ends_by_itself_unless_it_is_renewed(
    process: Process, monkeypatch: pytest.MonkeyPatch, renewed: bool
) -> None:
    clock, bob = Clock(monkeypatch, taps), await process.connect()
    process.fleet.taps.follow("bob", with_payload=True)
    clock.elapsed = FOLLOW_TTL - 1
    await process.fleet.taps.flush()
    assert bob.connection.session.tap is not None
    if renewed:
        process.fleet.taps.follow("bob", with_payload=True)
    clock.elapsed = FOLLOW_TTL + 1
    await process.fleet.taps.flush()
    # A session learns of it with its next message.
    bob.send()
    assert (bob.connection.session.tap is not None) == renewed
    assert bool(process.fleet.taps._taps) == renewed
    assert bob.acks() == [] and bob.connection.session.messages == 1


async def test_session_that_nobody_follows_keeps_nothing(process: Process) -> None:
    bob = await process.connect()
    bob.send()
    assert bob.connection.session.tap is None
    assert process.fleet.taps._taps == {}


async def test_following_a_user_who_is_not_here_waits_for_the_user(process: Process) -> None:
    process.fleet.taps.follow("nobody", with_payload=False)
    await process.fleet.taps.flush()


async def test_absent_valkey_makes_nothing_pile_up(tenants: Tenants, own_valkey: Valkey) -> None:
    process = Process(tenants, redis_url=own_valkey.url)
    bob = await process.connect()
    process.fleet.taps.follow("bob", with_payload=True)
    own_valkey.stop()
    for _ in range(5):
        bob.send()
        await process.fleet.taps.flush()
    assert [len(tap.rows) for tap in process.fleet.taps._taps.values()] == [0]
    own_valkey.start()
    await process.runtime.stop()
