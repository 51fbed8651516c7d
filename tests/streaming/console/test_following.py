"""Following one user's messages: who sees what, and everything that ends it."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client, RequestFactory
from pytest_django import Settings
from redis.asyncio import Redis

from events.broadcast import CHANNEL
from streaming.console import following, views
from streaming.console.following import Followers, Look
from streaming.taps import follow_channel
from tenants.models import AuditEntry, User
from tests.streaming.console.conftest import client_of
from tests.support.valkey import Valkey
from tests.tenants.cast import Cast, make_cast

Event = tuple[str, Any]
ROW = {"session_id": "s", "message_type": "tick_data", "sequence": 1, "size": 9, "verdict": "accepted"}


@dataclass
class People:
    cast: Cast
    operator: User
    # Session keys of those who are signed in.
    alices: str
    operators: str


@pytest.fixture
def people(committed_db: None, own_valkey: Valkey, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> People:
    settings.REDIS_URL = own_valkey.url
    settings.GATEWAY_FOLLOWER_LIMIT = 2
    monkeypatch.setattr(following, "CHECK_INTERVAL", 0.2)
    monkeypatch.setattr(following, "_TURN", 0.05)
    cast, operator = make_cast(), User.objects.create_superuser("olga", password="a long enough password")
    return People(cast, operator, key_of(client_of(cast.alice)), key_of(client_of(operator)))


def key_of(client: Client) -> str:
    return str(client.session.session_key)


def look_of(people: People, *, prices: bool = False, operator: bool = False) -> Look:
    key, company_id = (people.operators, "") if operator else (people.alices, str(people.cast.alpha.pk))
    return Look(key, "192.0.2.9", company_id, str(people.cast.bob.pk), with_prices=prices)


async def heard(stream: AsyncIterator[bytes], seconds: float = 10.0) -> Event:
    """The next event; a comment is ("", text)."""
    async with asyncio.timeout(seconds):
        part = (await anext(stream)).decode()
    assert part.endswith("\n\n")
    if part.startswith(":"):
        return "", part[1:].strip()
    name, data = part.strip().split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def publish(url: str, channel: str, **row: Any) -> int:
    """How many listened."""
    redis = Redis.from_url(url)
    rows = [{**ROW, "received_at_us": 1_800_000_000_000_000, **row}]
    count = await redis.publish(channel, json.dumps({"rows": rows, "left_out": 3}))
    await redis.aclose()
    return int(count)


async def test_admin_sees_headers_and_the_look_is_in_the_audit_log_once(
    people: People, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "HEARTBEAT_INTERVAL", 3 * following.CHECK_INTERVAL)
    channel = follow_channel(str(people.cast.bob.pk))
    async with aclosing(Followers().events(look_of(people))) as stream:
        assert await heard(stream) == ("begin", {"with_prices": False})
        assert await publish(own_valkey.url, channel) == 1
        name, message = await heard(stream)
        assert (name, message["left_out"]) == ("rows", 3)
        [row] = message["rows"]
        assert {key: row[key] for key in ROW} == ROW and row["age_ms"] >= 0
        # The stream goes on, and looks meanwhile whether it still may.
        assert await heard(stream) == ("", "still here")
        entries = [entry async for entry in AuditEntry.objects.filter(action="follow")]
    [entry] = entries
    assert (entry.actor, entry.address, entry.object_id) == ("alice", "192.0.2.9", str(people.cast.bob.pk))
    assert (entry.company_id, entry.after) == (people.cast.alpha.pk, {"with_prices": "no"})


async def test_gateways_are_asked_again_for_as_long_as_somebody_looks(people: People, own_valkey: Valkey) -> None:
    redis = Redis.from_url(own_valkey.url)
    async with redis.pubsub(ignore_subscribe_messages=True) as news:
        await news.subscribe(CHANNEL)
        wishes: list[dict[str, Any]] = []
        async with aclosing(Followers().events(look_of(people, prices=True, operator=True))) as stream:
            assert await heard(stream) == ("begin", {"with_prices": True})
            looking = asyncio.create_task(heard(stream, 30))
            async with asyncio.timeout(10):
                while len(wishes) < 3:
                    message = await news.get_message(timeout=1.0)
                    if message is not None:
                        wishes.append(json.loads(message["data"]))
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
    await redis.aclose()
    wish = {"kind": "follow", "user_id": str(people.cast.bob.pk), "with_payload": True}
    assert wishes == [wish] * 3


async def test_prices_reach_the_operator_who_asked_and_not_the_company_admin_beside(
    people: People, own_valkey: Valkey
) -> None:
    user_id, followers = str(people.cast.bob.pk), Followers()
    async with (
        aclosing(followers.events(look_of(people))) as alices,
        aclosing(followers.events(look_of(people, prices=True, operator=True))) as operators,
    ):
        assert (await heard(alices))[0] == (await heard(operators))[0] == "begin"
        assert followers.count == 2
        assert await publish(own_valkey.url, follow_channel(user_id, with_payload=True), payload={"bid": 1.1}) == 1
        assert await publish(own_valkey.url, follow_channel(user_id)) == 1
        assert (await heard(operators))[1]["rows"][0]["payload"] == {"bid": 1.1}
        assert "payload" not in (await heard(alices))[1]["rows"][0]
    assert followers.count == 0


@pytest.mark.parametrize("query", ["prices=1", ""])
def test_company_admin_who_asks_for_prices_gets_the_headers(
    people: People, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    looks: list[Look] = []

    class Recording(Followers):
        async def events(self, look: Look) -> AsyncGenerator[bytes, None]:
            looks.append(look)
            yield b""

    async def first(answer: Any) -> None:
        async for _ in answer:
            return

    monkeypatch.setattr(views, "followers", Recording())
    for user, key in ((people.cast.alice, people.alices), (people.operator, people.operators)):
        request = RequestFactory().get(f"/?{query}")
        request.user, request.session = user, SessionStore(key)
        answer: Any = views.follow_events(request, str(people.cast.bob.pk))
        assert (answer["Content-Type"], answer["X-Accel-Buffering"]) == ("text/event-stream", "no")
        asyncio.run(first(answer))
    assert [look.with_prices for look in looks] == [False, query == "prices=1"]
    assert [look.company_id for look in looks] == [str(people.cast.alpha.pk), ""]


async def test_company_admin_is_refused_prices_by_the_stream_itself(people: People) -> None:
    """Were the page's own check to fail, the door would not let it through."""
    async with aclosing(Followers().events(look_of(people, prices=True))) as stream:
        assert await heard(stream) == ("end", {"reason": "not_yours"})
    assert not await AuditEntry.objects.filter(action="follow").aexists()


def sign_out(people: People) -> None:
    SessionStore(people.alices).flush()


def disable(people: People) -> None:
    User.objects.filter(pk=people.cast.alice.pk).update(is_active=False)


def demote(people: People) -> None:
    User.objects.filter(pk=people.cast.alice.pk).update(role=User.Role.TRADER)


def change_password(people: People) -> None:
    alice = User.objects.get(pk=people.cast.alice.pk)
    alice.set_password("quite another password")
    alice.save()


def move_away(people: People) -> None:
    User.objects.filter(pk=people.cast.bob.pk).update(company=people.cast.beta)


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (sign_out, "signed_out"),
        (disable, "signed_out"),
        (demote, "signed_out"),
        (change_password, "signed_out"),
        (move_away, "not_yours"),
    ],
)
async def test_look_ends_when_the_right_to_it_ends(people: People, act: Callable[[People], None], reason: str) -> None:
    followers = Followers()
    async with aclosing(followers.events(look_of(people))) as stream:
        assert (await heard(stream))[0] == "begin"
        await sync_to_async(act)(people)
        assert await heard(stream) == ("end", {"reason": reason})
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert followers.count == 0


async def test_operator_who_becomes_a_company_admin_sees_no_more_prices(people: People) -> None:
    def demote_operator() -> None:
        User.objects.filter(pk=people.operator.pk).update(
            role=User.Role.COMPANY_ADMIN, company=people.cast.alpha, is_superuser=False
        )

    async with aclosing(Followers().events(look_of(people, prices=True, operator=True))) as stream:
        assert (await heard(stream))[0] == "begin"
        await sync_to_async(demote_operator)()
        assert await heard(stream) == ("end", {"reason": "not_yours"})


async def test_one_more_than_the_limit_is_told_so_and_takes_nobodys_place(people: People, settings: Settings) -> None:
    # Of one company: a quarter.
    settings.GATEWAY_FOLLOWER_LIMIT = 8
    followers = Followers()
    first, second, third = (followers.events(look_of(people)) for _ in range(3))
    assert (await heard(first))[0] == (await heard(second))[0] == "begin"
    assert await heard(third) == ("end", {"reason": "full"})
    assert followers.count == 2
    await first.aclose()
    async with aclosing(followers.events(look_of(people))) as fourth:
        assert (await heard(fourth))[0] == "begin"
    await second.aclose()
    assert followers.count == 0
    assert await AuditEntry.objects.filter(action="follow").acount() == 3


async def test_company_that_follows_with_all_it_has_keeps_neither_others_nor_operators_out(
    people: People, settings: Settings
) -> None:
    settings.GATEWAY_FOLLOWER_LIMIT = 4
    followers = Followers()
    held: list[AsyncGenerator[bytes, None]] = []

    async def begins(company_id: str, *, operator: bool = False) -> bool:
        look = replace(look_of(people, operator=operator), company_id=company_id)
        held.append(followers.events(look))
        return (await heard(held[-1]))[0] == "begin"

    # Four places: one for each company, and one that only operators take, beside what is left of the rest.
    assert [await begins("alpha"), await begins("alpha")] == [True, False]
    assert [await begins("beta"), await begins("gamma"), await begins("delta")] == [True, True, False]
    assert [await begins("", operator=True), await begins("", operator=True)] == [True, False]
    for stream in held:
        await stream.aclose()
    assert followers.count == 0
    assert await begins("alpha")
    await held[-1].aclose()


async def test_silent_stream_has_a_comment_now_and_then(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "HEARTBEAT_INTERVAL", 0.1)
    async with aclosing(Followers().events(look_of(people))) as stream:
        assert (await heard(stream))[0] == "begin"
        assert await heard(stream) == await heard(stream) == ("", "still here")


async def test_look_ends_after_its_time(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "TIME_LIMIT", 0.2)
    async with aclosing(Followers().events(look_of(people))) as stream:
        assert (await heard(stream))[0] == "begin"
        assert await heard(stream) == ("end", {"reason": "time"})


async def test_look_ends_when_the_process_drains(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    async with aclosing(Followers().events(look_of(people))) as stream:
        assert (await heard(stream))[0] == "begin"
        monkeypatch.setattr(following, "_is_draining", lambda: True)
        assert await heard(stream) == ("end", {"reason": "draining"})


async def test_look_ends_when_valkey_goes_and_does_not_begin_without_it(people: People, own_valkey: Valkey) -> None:
    followers = Followers()
    async with aclosing(followers.events(look_of(people))) as stream:
        assert (await heard(stream))[0] == "begin"
        await asyncio.to_thread(own_valkey.stop)
        assert await heard(stream) == ("end", {"reason": "unavailable"})
    async with aclosing(followers.events(look_of(people))) as stream:
        assert await heard(stream) == ("end", {"reason": "unavailable"})
    assert followers.count == 0
