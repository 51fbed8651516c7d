"""Several processes at work on one Valkey hold a user and a company to one plan, and go on when it is away."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
from redis import Redis

from streaming import fleet as module
from streaming.admission import AdmissionRefused
from streaming.cluster.places import HEART_PREFIX
from streaming.core.breaker import Verdict
from tests.streaming.cluster.cast import flush_all, until
from tests.streaming.shell_cast import BOB, Live, Process, Tenants, token_of
from tests.support.valkey import Valkey

MakeProcess = Callable[[str], Process]


@pytest.fixture
async def make_process(tenants: Tenants, own_valkey: Valkey) -> AsyncIterator[MakeProcess]:
    for name in ("bob", "alice"):
        tenants.users[name] = dataclasses.replace(
            BOB, user_id=name, username=name, connection_limit=2, company_connection_limit=3
        )
    made: list[Process] = []

    def make(name: str) -> Process:
        made.append(Process(tenants, redis_url=own_valkey.url, process_id=name))
        made[-1].fleet.start()
        return made[-1]

    yield make
    for process in made:
        await process.runtime.stop()


@pytest.fixture
async def pair(make_process: MakeProcess) -> tuple[Process, Process]:
    two = make_process("a"), make_process("b")
    await until(lambda: all(one.fleet._news._listener.is_connected for one in two))
    return two


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hearts beat ten times a second; nothing heals by the writing of everything that comes now and then."""
    monkeypatch.setattr(module, "_BEAT_INTERVAL", 0.1)
    monkeypatch.setattr(module, "_SYNC_INTERVAL", 0.1)
    monkeypatch.setattr(module, "_FULL_SYNC", 1_000_000)


async def refusal(process: Process, user_id: str, query: str) -> str:
    with pytest.raises(AdmissionRefused) as refused:
        await process.connect(token_of(user_id), query=query)
    return refused.value.code


async def come_in(process: Process, user_id: str = "bob", query: str = "stream=s9") -> Live:
    """As soon as the others' numbers say that there is room."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await process.connect(token_of(user_id), query=query)
            except AdmissionRefused:
                await asyncio.sleep(0.1)


async def test_user_has_the_connections_of_the_plan_over_all_processes(pair: tuple[Process, Process]) -> None:
    first, second = pair
    here = await first.connect(query="stream=s1")
    await second.connect(query="stream=s2")
    for process in pair:
        assert await refusal(process, "bob", "stream=s3") == "connection_limit"
        assert process.runtime.registry.held_by_user("bob") == 1
    here.leave()
    await come_in(second)


async def test_company_has_the_connections_of_the_plan_over_all_processes(pair: tuple[Process, Process]) -> None:
    first, second = pair
    await first.connect(query="stream=s1")
    await second.connect(query="stream=s2")
    alice = await first.connect(token_of("alice"), query="stream=s1")
    for process in pair:
        assert await refusal(process, "alice", "stream=s3") == "company_connection_limit"
    alice.leave()
    await come_in(second, "alice")


async def test_stream_opened_anew_takes_the_place_it_replaces_at_the_limit_of_all(
    pair: tuple[Process, Process],
) -> None:
    first, second = pair
    old = await first.connect(query="stream=s1")
    await second.connect(query="stream=s2")
    new = await first.connect(query="stream=s1")
    assert (old.close_code, new.close_code) == (4006, 0)


async def test_places_of_a_process_that_ends_are_free_at_once(make_process: MakeProcess) -> None:
    first, second = make_process("a"), make_process("b")
    for number in range(2):
        await first.connect(query=f"stream=s{number}")
    await second.fleet.places.beat()
    assert await refusal(second, "bob", "stream=s3") == "connection_limit"
    await first.fleet.stop()
    await second.connect(query="stream=s3")


def _is_over(since: float, seconds: float) -> bool:
    return time.monotonic() - since > seconds


def passed(process: Process) -> int:
    return process.runtime.registry.users["bob"].bucket.passed


async def test_user_over_the_plan_gets_the_rate_of_one_process_from_two(pair: tuple[Process, Process]) -> None:
    first, second = pair
    lives = [await first.connect(query="stream=s1"), await second.connect(query="stream=s2")]
    begun = time.monotonic()
    while time.monotonic() - begun < 1.5:
        for one in lives:
            for _ in range(10):
                one.send()
        await asyncio.sleep(0.05)
    elapsed = time.monotonic() - begun
    # Both had a whole burst at first, and pay for it.
    assert 50 * elapsed <= passed(first) + passed(second) <= 50 * (elapsed + 1.0) + 25


async def test_user_within_the_plan_is_never_refused_while_moving_between_processes(
    pair: tuple[Process, Process],
) -> None:
    nacks, old = [], None
    for turn in range(5):
        live = await pair[turn % 2].connect(query=f"stream=s{turn}")
        if old is not None:
            # Only now does its process notice.
            old.leave()
            nacks += old.heard("Nack")
        # The burst, and then what has come back since.
        for _ in range(20 if old else 50):
            live.send()
        # A sender that keeps to the plan of 50 a second.
        sent_at = time.monotonic()
        await until(partial(_is_over, sent_at, 20 / 50))
        old = live
    assert nacks == []


async def test_what_a_user_used_up_elsewhere_is_used_up_at_the_process_that_the_user_comes_back_to(
    pair: tuple[Process, Process],
) -> None:
    first, second = pair
    here, there = await first.connect(query="stream=s1"), await second.connect(query="stream=s2")
    mirrors = [one.connection.entry.mirror for one in (here, there)]
    await until(lambda: all(mirror._seen for mirror in mirrors))
    here.leave()
    there.leave()
    await until(lambda: not first.fleet.shares._watched and not second.fleet.shares._watched)
    there = await second.connect(query="stream=s1")
    for _ in range(50):
        there.send()
    assert there.heard("Nack") == []
    there.leave()
    here = await first.connect(query="stream=s1")
    await until(lambda: mirrors[0]._seen["b"].passed == 50)
    for _ in range(50):
        here.send()
    assert len(here.heard("Nack")) > 10


async def test_without_valkey_each_process_holds_its_users_by_itself(
    pair: tuple[Process, Process], own_valkey: Valkey
) -> None:
    for process in pair:
        await process.fleet.places.beat()
    own_valkey.stop()
    lives = [await process.connect(query=f"stream=s{number}") for process in pair for number in range(2)]
    for process in pair:
        assert await refusal(process, "bob", "stream=s3") == "connection_limit"
    assert [one.close_code for one in lives] == [0] * 4
    own_valkey.start()
    # Two too many: the ones that come last end after the patience, and no more than those.
    await until(lambda: sum(one.close_code == 4505 for one in lives) == 2, seconds=15.0)
    assert [one.close_code for one in lives] == [0, 0, 4505, 4505]


async def test_valkey_that_has_forgotten_everything_is_filled_again_with_the_next_heartbeat(
    quick: None, pair: tuple[Process, Process], own_valkey: Valkey
) -> None:
    first, second = pair
    await first.connect(query="stream=s1")
    await second.connect(query="stream=s2")
    for process in pair:
        await process.fleet.places.sync()
        # As long after the start: nothing is repeated any more.
        process.fleet._repeats = 0
    await flush_all(own_valkey.url)
    with Redis.from_url(own_valkey.url) as redis:
        await until(lambda: redis.hlen("gateway:connections:user:bob") == 2)
    for process in pair:
        assert await refusal(process, "bob", "stream=s3") == "connection_limit"


async def test_process_that_was_held_up_counts_again_with_its_next_heartbeat(
    quick: None, pair: tuple[Process, Process], own_valkey: Valkey
) -> None:
    first, second = pair
    for number in range(2):
        await first.connect(query=f"stream=s{number}")
    await first.fleet.places.sync()
    first.fleet._repeats = second.fleet._repeats = 0
    with Redis.from_url(own_valkey.url) as redis:
        # As long without a beat, and somebody has looked meanwhile.
        redis.delete(HEART_PREFIX + "a")
        redis.delete("gateway:connections:user:bob")
        await until(lambda: redis.hget("gateway:connections:user:bob", "a") == b"2")
    assert await refusal(second, "bob", "stream=s3") == "connection_limit"


async def test_ban_that_the_database_does_not_have_is_written_at_the_end(
    make_process: MakeProcess, tenants: Tenants
) -> None:
    process = make_process("a")
    tenants.is_down = True
    process.fleet.bans.set("bob", Verdict.ERRORS, earlier=0)
    await process.fleet.bans.write_down()
    process.fleet._tasks[-1].cancel()
    tenants.is_down = False
    await process.fleet.stop()
    assert [row[0] for row in tenants.bans] == ["bob"]
