"""What one process tells the others arrives as the call it stands for; what is not whole breaks nothing."""

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from confluent_kafka import Producer
from redis.asyncio import Redis
from structlog.testing import capture_logs

from events import broadcast
from events.broadcast import CHANNEL
from proto.gateway.v1 import events_pb2
from tests.events.cast import client_config, new_topic
from tests.streaming.cluster.cast import until
from tests.streaming.shell_cast import BOB, Process, Tenants, token_of, turns
from tests.support.kafka import KafkaBroker
from tests.support.valkey import Valkey


@pytest.fixture
async def process(tenants: Tenants) -> AsyncIterator[Process]:
    """Nothing runs by itself: news is given to it by hand."""
    tenants.users["bob"] = dataclasses.replace(BOB, connection_limit=10)
    made = Process(tenants)
    yield made
    await made.runtime.stop()


@pytest.fixture
async def running(tenants: Tenants, own_valkey: Valkey) -> AsyncIterator[Process]:
    """At work on a real Valkey."""
    made = Process(tenants, redis_url=own_valkey.url, process_id="me")
    made.fleet.start()
    await until(lambda: made.fleet._news._listener.is_connected)
    yield made
    await made.runtime.stop()


async def publish(url: str, *messages: dict[str, Any]) -> None:
    redis = Redis.from_url(url)
    for message in messages:
        await redis.publish(CHANNEL, json.dumps(message))
    await redis.aclose()


# --- What each kind means ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("newer", "code"), [(1, 4006), (0, 0), (-1, 0)])
async def test_news_of_a_claim_ends_an_older_connection_of_that_stream_only(
    process: Process, newer: int, code: int
) -> None:
    bob, other, alice = (
        await process.connect(),
        await process.connect(query="stream=s2"),
        await process.connect(token_of("alice")),
    )
    news = {"kind": "stream_claimed", "user_id": "bob", "stream_id": "s1", "fence": bob.connection.fence + newer}
    process.fleet._news.heard(news)
    assert (bob.close_code, other.close_code, alice.close_code) == (code, 0, 0)


async def test_news_of_a_company_is_looked_at_when_its_version_is_news(process: Process, tenants: Tenants) -> None:
    bob = await process.connect()
    await process.poll()
    directory = process.fleet.directory
    tenants.change("bob", refusal="user_disabled")
    for version in (1, 3):
        process.fleet._news.heard({"kind": "access", "company_id": "alpha", "version": version})
    assert not directory._news.is_set()
    process.fleet._news.heard({"kind": "access", "company_id": "alpha", "version": 4})
    await process.follow()
    assert bob.close_code == 4504


async def test_news_of_everything_is_looked_at_whole(process: Process, tenants: Tenants) -> None:
    bob = await process.connect()
    await process.poll()
    tenants.change("bob", refusal="user_disabled")
    process.fleet._news.heard(broadcast.EVERYTHING)
    await process.follow()
    assert bob.close_code == 4504


async def test_news_of_a_deleted_company_cuts_its_users_off(process: Process, tenants: Tenants) -> None:
    bob = await process.connect()
    await process.poll()
    tenants.users.clear()
    process.fleet._news.heard({"kind": "access", "company_id": "alpha", "version": 0})
    await process.follow()
    assert bob.close_code == 4504


async def test_news_that_another_process_serves_the_user_makes_this_one_report_and_takes_nothing_from_the_user(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await process.connect()
    heard: list[tuple[str, frozenset[str]]] = []
    monkeypatch.setattr(process.fleet.shares, "note_others", lambda *others: heard.append(others))
    me = process.fleet.link.process_id
    news = {"kind": "shared", "from": "other", "user_id": "bob", "processes": ["other", me]}
    process.fleet._news.heard({**news, "from": me})
    assert heard == []
    process.fleet._news.heard(news)
    assert heard == [("bob", frozenset({"other"}))]
    for _ in range(50):
        bob.send()
    assert bob.heard("Nack") == []


async def test_news_of_a_process_that_serves_a_user_who_is_not_here_leaves_nothing_behind(process: Process) -> None:
    me = process.fleet.link.process_id
    process.fleet._news.heard({"kind": "shared", "from": "other", "user_id": "bob", "processes": ["other", me]})
    assert process.fleet.shares._watched == {}
    assert process.runtime.registry.users == {}


async def test_news_that_somebody_follows_a_user_turns_the_tap_on(process: Process) -> None:
    bob, alice = await process.connect(), await process.connect(token_of("alice"))
    process.fleet._news.heard({"kind": "follow", "user_id": "bob", "with_payload": False})
    assert bob.connection.session.tap is not None
    assert alice.connection.session.tap is None


async def test_kind_that_this_version_does_not_know_is_ignored(process: Process) -> None:
    bob = await process.connect()
    process.fleet._news.heard({"kind": "of a later version", "user_id": "bob"})
    assert bob.close_code == 0


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"kind": "access", "company_id": "alpha"},
        {"kind": "access", "company_id": "alpha", "version": "new"},
        {"kind": "token", "jti": "x"},
        {"kind": "kick", "id": None, "user_id": "bob", "session_id": "", "at": 1},
        {"kind": "ban", "user_id": "bob", "reason": "errors", "starts_at": 1.0},
        {"kind": "unban", "user_id": "bob"},
        {"kind": "shared", "from": "other", "user_id": "bob", "processes": None},
        {"kind": "follow", "user_id": "bob"},
    ],
)
async def test_news_that_is_not_whole_is_refused_and_ends_nothing(process: Process, message: dict[str, Any]) -> None:
    bob = await process.connect()
    with pytest.raises((KeyError, TypeError, ValueError)):
        process.fleet._news.heard(message)
    assert bob.close_code == 0
    await process.connect(query="stream=s2")


# --- Over Valkey ------------------------------------------------------------------------------------------------------


async def test_change_announced_by_the_database_room_cuts_off_at_once(
    running: Process, tenants: Tenants, own_valkey: Valkey
) -> None:
    bob = await running.connect()
    await running.poll()
    tenants.change("bob", refusal="company_suspended")
    begun = time.monotonic()
    # As the sender thread of any other process does it.
    sender = broadcast.Sender(own_valkey.url)
    sender.put(json.dumps({"kind": "access", "company_id": "alpha", "version": 4}).encode())
    await until(lambda: bob.close_code != 0)
    assert bob.close_code == 4503
    # The poll of this process comes once a minute.
    assert time.monotonic() - begun < 5.0


async def test_news_that_breaks_is_logged_and_the_next_is_heard(running: Process, own_valkey: Valkey) -> None:
    bob = await running.connect()
    with capture_logs() as logs:
        await publish(
            own_valkey.url,
            {"kind": "kick", "id": "x"},
            {"kind": "kick", "id": 1, "user_id": "bob", "session_id": "", "at": time.time() + 1},
        )
        await until(lambda: bob.close_code != 0)
    assert [entry["event"] for entry in logs].count("change_listener_callback_failed") == 1


async def test_what_was_missed_while_valkey_was_away_is_looked_up_after_its_return(
    running: Process, tenants: Tenants, own_valkey: Valkey
) -> None:
    bob, alice = await running.connect(), await running.connect(token_of("alice"))
    own_valkey.stop()
    await until(lambda: not running.fleet._news._listener.is_connected)
    # The news of these is lost.
    tenants.kick("alice", alice.connection.session.session_id)
    tenants.change("bob", refusal="payment_required")
    own_valkey.start()
    await until(lambda: bool(bob.close_code and alice.close_code))
    assert (bob.close_code, alice.close_code) == (4502, 4006)
    # What this process holds is in the empty Valkey again.
    redis = Redis.from_url(own_valkey.url)
    async with asyncio.timeout(10):
        while await redis.hget("gateway:connections:user:bob", "me") != b"1":
            await asyncio.sleep(0.05)
    await redis.aclose()


# --- Over Kafka -------------------------------------------------------------------------------------------------------


async def test_event_from_kafka_is_looked_at_on_the_loop(process: Process, tenants: Tenants) -> None:
    bob, news = await process.connect(), process.fleet._news
    await process.poll()
    news.start()
    tenants.change("bob", refusal="user_disabled")
    status = events_pb2.SubscriptionStatus(company_id="alpha", access_version=4)
    await asyncio.to_thread(news._from_kafka, b"alpha", status.SerializeToString())
    await turns()
    await process.follow()
    assert bob.close_code == 4504


async def test_unreadable_event_from_kafka_is_logged_and_skipped(process: Process) -> None:
    process.fleet._news.start()
    with capture_logs() as logs:
        process.fleet._news._from_kafka(b"alpha", b"\xff\xff")
    await turns()
    assert [entry["event"] for entry in logs] == ["subscription_status_unreadable"]
    assert not process.fleet.directory._news.is_set()


async def test_change_that_kafka_alone_tells_of_cuts_off(tenants: Tenants, kafka: KafkaBroker) -> None:
    topic, config = new_topic(), client_config(kafka.bootstrap)
    process = Process(tenants, kafka=config, subscription_topic=topic)
    process.fleet.start()
    try:
        feed = process.fleet._news._feed
        assert feed is not None and await asyncio.to_thread(feed.ready.wait, 20.0)
        bob = await process.connect()
        tenants.change("bob", refusal="payment_required")
        status = events_pb2.SubscriptionStatus(company_id="alpha", access_version=4)
        producer = Producer(config)
        producer.produce(topic, status.SerializeToString(), b"alpha")
        assert await asyncio.to_thread(producer.flush, 20.0) == 0
        await until(lambda: bob.close_code != 0, seconds=20.0)
        assert bob.close_code == 4502
    finally:
        await process.runtime.stop()
