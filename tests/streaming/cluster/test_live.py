"""The list of live connections as administrators read it, written by two processes into a real Valkey."""

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pytest_django import Settings
from redis import Redis

from streaming import live
from streaming.cluster import live as module
from streaming.cluster.live import COMPANIES_KEY, LiveConnection, heart_key, live_key
from streaming.live import LiveUnavailable, connections_of, live_connections
from tests.streaming.cluster.cast import flush_all, new_id
from tests.streaming.core.cast import signal
from tests.streaming.shell_cast import BOB, Clock, Live, Process, Tenants, token_of
from tests.support.valkey import Valkey

MakeProcess = Callable[[], Process]


@pytest.fixture
async def make_process(tenants: Tenants, own_valkey: Valkey, settings: Settings) -> AsyncIterator[MakeProcess]:
    settings.REDIS_URL = own_valkey.url
    made: list[Process] = []

    def make() -> Process:
        made.append(Process(tenants, redis_url=own_valkey.url))
        return made[-1]

    yield make
    for process in made:
        await process.fleet.link.close()


@pytest.fixture
async def process(make_process: MakeProcess) -> Process:
    made = make_process()
    await made.fleet.places.beat()
    return made


def rows(company_id: str = "alpha") -> dict[str, LiveConnection]:
    return {row.session_id: row for row in live_connections([company_id])}


async def test_connection_is_in_the_list_from_its_opening_to_its_end(process: Process) -> None:
    bob = await process.connect(address="192.0.2.7")
    session = bob.connection.session
    assert live_connections() == []
    await process.fleet.live.flush()
    [row] = live_connections()
    assert (row.session_id, row.process) == (session.session_id, process.fleet.link.process_id)
    assert (row.user_id, row.username, row.company_id, row.address) == ("bob", "bob", "alpha", "192.0.2.7")
    assert (row.state, row.messages, row.in_flight, row.stream_id, row.accounts) == ("idle", 0, 0, "s1", ["1001"])
    assert row.opened_at == bob.connection.opened_at <= row.seen_at
    bob.leave()
    await process.fleet.live.flush()
    assert live_connections() == []


async def test_connections_of_all_processes_are_in_one_list_newest_first(
    process: Process, make_process: MakeProcess
) -> None:
    other = make_process()
    await other.fleet.places.beat()
    bob, alice = await process.connect(), await other.connect(token_of("alice"))
    bob.connection.opened_at, alice.connection.opened_at = 1_000.0, 2_000.0
    for one in (process, other):
        await one.fleet.live.flush()
    assert [row.user_id for row in live_connections()] == ["alice", "bob"]
    assert connections_of("alpha") == 2


async def test_company_sees_its_own_connections_only(process: Process, tenants: Tenants) -> None:
    tenants.users["charlie"] = dataclasses.replace(BOB, user_id="charlie", company_id="beta")
    await process.connect()
    await process.connect(token_of("charlie", "beta"))
    await process.fleet.live.flush()
    assert [row.user_id for row in live_connections(["alpha"])] == ["bob"]
    assert [row.user_id for row in live_connections(["beta"])] == ["charlie"]
    assert live_connections(["gamma"]) == []
    assert {row.user_id for row in live_connections()} == {"bob", "charlie"}


async def test_counters_follow_every_few_seconds_and_tell_who_streams(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, module)
    bob, alice = await process.connect(), await process.connect(token_of("alice"))
    await process.fleet.live.flush()
    for sequence in (1, 2, 3):
        bob.send(sequence=sequence)
    bob.send("trading_signal", signal(account="1001"), sequence=4)
    clock.elapsed = 4.9
    await process.fleet.live.flush()
    assert rows()[bob.connection.session.session_id].messages == 0
    clock.elapsed = 5.1
    await process.fleet.live.flush()
    row = rows()[bob.connection.session.session_id]
    assert (row.messages, row.in_flight, row.state, row.accounts) == (4, 4, "streaming", ["1001"])
    assert rows()[alice.connection.session.session_id].state == "idle"
    clock.elapsed = 15.1
    await process.fleet.live.flush()
    assert rows()[bob.connection.session.session_id].state == "idle"


async def test_connection_that_waits_for_kafka_is_shown_as_paused(tenants: Tenants, valkey: Valkey) -> None:
    process = Process(tenants, redis_url=valkey.url, in_flight_limit=2)
    bob = await process.connect()
    for sequence in (1, 2):
        bob.send(sequence=sequence)
    assert process.fleet.live._row(bob.connection).state == "paused"
    await process.fleet.link.close()


async def test_connections_of_a_dead_process_are_left_out_and_removed_later(
    process: Process, make_process: MakeProcess, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = make_process()
    await dead.fleet.places.beat()
    bob, _alice = await dead.connect(), await process.connect(token_of("alice"))
    for one in (process, dead):
        await one.fleet.live.flush()
    with Redis.from_url(own_valkey.url) as redis:
        assert redis.delete(heart_key(dead.fleet.link.process_id)) == 1
        assert [row.user_id for row in live_connections()] == ["alice"]
        # Its heart may come yet: after an absence of Valkey the list can be there first.
        assert redis.hexists(live_key("alpha"), bob.connection.session.session_id)
        await dead.fleet.places.beat()
        assert connections_of("alpha") == 2
        assert redis.delete(heart_key(dead.fleet.link.process_id)) == 1
        monkeypatch.setattr(live, "_FORGET_AFTER", 0.0)
        assert connections_of("alpha") == 1
        assert not redis.hexists(live_key("alpha"), bob.connection.session.session_id)


async def test_list_is_whole_again_after_valkey_has_forgotten_it(
    process: Process, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, module)
    await process.connect()
    await process.connect(token_of("alice"))
    await process.fleet.live.flush()
    await flush_all(own_valkey.url)
    await process.fleet.live.flush()
    # All of it is written now and then ...
    clock.elapsed = 15.1
    await process.fleet.live.flush()
    await process.fleet.places.beat()
    assert len(live_connections()) == 2
    await process.fleet.live.flush()
    # ... when the heartbeat finds that Valkey has forgotten it ...
    await flush_all(own_valkey.url)
    await process.fleet.live.flush()
    await process.fleet.places.beat()
    assert live_connections() == []
    await process.fleet.live.flush()
    assert len(live_connections()) == 2
    # ... and at once when it is known that Valkey was away.
    await flush_all(own_valkey.url)
    await process.fleet.places.beat()
    process.fleet.live.repeat_all()
    await process.fleet.live.flush()
    assert len(live_connections()) == 2


async def test_list_that_valkey_did_not_take_is_owed_at_once(process: Process, own_valkey: Valkey) -> None:
    await process.connect()
    await process.fleet.live.flush()
    own_valkey.stop()
    process.fleet.live.repeat_all()
    # It was due now, and is not forgotten for the next quarter of a minute.
    await process.fleet.live.flush()
    own_valkey.start()
    process.fleet.link._silent_until = 0.0
    process.fleet.link.on_return.clear()
    await process.fleet.places.beat()
    await process.fleet.live.flush()
    assert connections_of("alpha") == 1


async def test_what_changes_while_valkey_is_away_is_written_after_its_return(
    process: Process, own_valkey: Valkey
) -> None:
    gone = await process.connect()
    await process.fleet.live.flush()
    own_valkey.stop()
    gone.leave()
    new = await process.connect(token_of("alice"))
    await process.fleet.live.flush()
    with pytest.raises(LiveUnavailable):
        live_connections()
    assert connections_of("alpha") is None
    own_valkey.start()
    process.fleet.link._silent_until = 0.0
    await process.fleet.places.beat()
    await process.fleet.live.flush()
    assert list(rows()) == [new.connection.session.session_id]


async def test_entry_of_another_version_of_the_product_is_left_out(process: Process, own_valkey: Valkey) -> None:
    await process.connect()
    await process.fleet.live.flush()
    with Redis.from_url(own_valkey.url) as redis:
        redis.hset(live_key("alpha"), "x", b'{"session_id": 5}')
        redis.sadd(COMPANIES_KEY, "beta")
    assert [row.user_id for row in live_connections()] == ["bob"]


async def test_many_connections_come_and_go_in_one_flush(process: Process, tenants: Tenants) -> None:
    opened: list[Live] = []
    for _ in range(99):
        name = new_id()
        tenants.users[name] = dataclasses.replace(BOB, user_id=name)
        opened.append(await process.connect(token_of(name)))
    await process.fleet.live.flush()
    assert connections_of("alpha") == 99
    for one in opened:
        one.leave()
    await process.fleet.live.flush()
    assert connections_of("alpha") == 0
    assert process.fleet.live._written == {}


def test_without_an_address_of_redis_the_list_says_what_is_missing(settings: Settings) -> None:
    settings.REDIS_URL = ""
    with pytest.raises(LiveUnavailable, match="REDIS_URL"):
        live.live_connections()
    assert connections_of("alpha") is None


async def test_connections_that_come_and_go_while_valkey_is_away_take_no_memory(
    process: Process, own_valkey: Valkey
) -> None:
    before = await process.connect()
    await process.fleet.live.flush()
    own_valkey.stop()
    before.leave()
    for _ in range(50):
        one = await process.connect(token_of("alice"))
        await process.fleet.live.flush()
        one.leave()
    live = process.fleet.live
    # The one that Valkey had is still owed, and whatever was sent to it on its way down.
    assert 1 <= len(live._closed) <= 5
    assert (live._opened, live._written) == (set(), {})


async def test_without_valkey_nothing_is_noted_for_it(tenants: Tenants) -> None:
    alone = Process(tenants)
    one, other = await alone.connect(), await alone.connect(token_of("alice"))
    await alone.fleet.places.sync()
    await alone.fleet.live.flush()
    other.leave()
    await alone.fleet.places.sync()
    live, places = alone.fleet.live, alone.fleet.places
    assert (live._opened, live._closed, live._written) == (set(), set(), {})
    assert (places._users, places._companies) == (set(), set())
    one.leave()


async def test_connection_that_ends_while_it_is_written_is_removed(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await process.connect()
    link = process.fleet.link
    asked = link.ask

    async def slow(question: Any) -> Any:
        answer = await asked(question)
        if bob.connection.session.session_id in process.runtime.registry.connections:
            bob.leave()
        return answer

    monkeypatch.setattr(link, "ask", slow)
    await process.fleet.live.flush()
    assert connections_of("alpha") == 1
    await process.fleet.live.flush()
    assert connections_of("alpha") == 0
    assert (process.fleet.live._closed, process.fleet.live._written) == (set(), {})
