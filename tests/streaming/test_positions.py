"""Positions of streams over processes, connections and an absent Valkey; on a real one."""

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from streaming.positions import PositionStore
from streaming.registry import Registry
from tests.streaming.shell_cast import BOB, Process, Tenants, token_of
from tests.support.valkey import Valkey

TTL = 600.0


class Site:
    """What one process has of it: a registry and a store."""

    def __init__(self, url: str) -> None:
        self.registry = Registry(1.0)
        self.store = PositionStore(url, self.registry, interval=60.0, ttl=TTL)

    def settle(self, user_id: str, stream_id: str, upto: int) -> None:
        self.registry.stream((user_id, stream_id), upto)
        self.store.mark((user_id, stream_id))


@pytest.fixture
async def make_site() -> AsyncIterator[Callable[[str], Site]]:
    made: list[Site] = []

    def make(url: str) -> Site:
        made.append(Site(url))
        return made[-1]

    yield make
    for site in made:
        await site.store.close()


MakeSite = Callable[[str], Site]


@pytest.fixture
def bob() -> str:
    """A user that no other test of the shared Valkey has."""
    return str(uuid.uuid4())


async def test_position_written_by_one_process_is_read_by_another(
    make_site: MakeSite, valkey: Valkey, bob: str
) -> None:
    first, second = make_site(valkey.url), make_site(valkey.url)
    assert await second.store.look_up((bob, "s1")) == 0
    first.settle(bob, "s1", 41)
    assert await second.store.look_up((bob, "s1")) == 0
    await first.store.flush()
    assert await second.store.look_up((bob, "s1")) == 41


async def test_storm_of_connects_finds_every_position(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    site = make_site(valkey.url)
    site.settle(bob, "s1", 41)
    await site.store.flush()
    assert await asyncio.gather(*(site.store.look_up((bob, "s1")) for _ in range(500))) == [41] * 500


async def test_connections_that_valkey_has_closed_since_hide_no_position(
    make_site: MakeSite, own_valkey: Valkey, bob: str
) -> None:
    site = make_site(own_valkey.url)
    site.settle(bob, "s1", 41)
    await site.store.flush()
    for _ in range(2):
        assert await asyncio.gather(*(site.store.look_up((bob, "s1")) for _ in range(20))) == [41] * 20
        async with Redis.from_url(own_valkey.url) as other:
            await other.client_kill_filter(_type="normal", skipme=True)


@pytest.mark.parametrize(("earlier", "later", "kept"), [(41, 40, 41), (41, 41, 41), (41, 42, 42), (9, 10, 10)])
async def test_larger_position_wins(
    make_site: MakeSite, valkey: Valkey, bob: str, earlier: int, later: int, kept: int
) -> None:
    first, second = make_site(valkey.url), make_site(valkey.url)
    for site, upto in ((first, earlier), (second, later)):
        site.settle(bob, "s1", upto)
        await site.store.flush()
    assert await first.store.look_up((bob, "s1")) == kept


async def test_largest_sequence_is_kept_exactly(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    site = make_site(valkey.url)
    for upto in (2**53 - 2, 2**53 - 1):
        site.settle(bob, "s1", upto)
        await site.store.flush()
        assert await site.store.look_up((bob, "s1")) == upto


async def test_user_never_reads_the_stream_of_another_user(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    site = make_site(valkey.url)
    alice = str(uuid.uuid4())
    site.settle(bob, "s1", 41)
    site.settle(bob, f"{alice}:s1", 42)
    await site.store.flush()
    assert await site.store.look_up((alice, "s1")) == 0
    assert await site.store.look_up((bob, "S1")) == 0


async def test_streams_of_a_whole_process_are_written_at_once(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    site = make_site(valkey.url)
    for number in range(1, 1_002):
        site.settle(bob, f"s{number}", number)
    await site.store.flush()
    found = [await site.store.look_up((bob, f"s{number}")) for number in (1, 500, 501, 1_000, 1_001)]
    assert found == [1, 500, 501, 1_000, 1_001]


async def test_position_is_kept_for_its_time_from_the_last_move(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    site = make_site(valkey.url)
    async with Redis.from_url(valkey.url, decode_responses=True) as redis:
        site.settle(bob, "s1", 1)
        await site.store.flush()
        [key] = [key async for key in redis.scan_iter(f"*{bob}*")]
        assert 0 < await redis.ttl(key) <= TTL
        await redis.expire(key, 5)
        site.settle(bob, "s1", 2)
        await site.store.flush()
        assert 5 < await redis.ttl(key) <= TTL


async def test_only_what_has_moved_is_written(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    site = make_site(valkey.url)
    site.settle(bob, "s1", 1)
    await site.store.flush()
    async with Redis.from_url(valkey.url) as redis:
        await redis.delete(f"gateway:position:{bob}:s1")
    await site.store.flush()
    assert await site.store.look_up((bob, "s1")) == 0


async def test_stream_that_is_forgotten_here_is_left_as_it_was_written(
    make_site: MakeSite, valkey: Valkey, bob: str
) -> None:
    site = make_site(valkey.url)
    site.settle(bob, "s1", 7)
    site.store.mark((bob, "never-named-at-connect"))
    await site.store.flush()
    site.store.mark((bob, "s1"))
    site.registry.streams.clear()
    await site.store.flush()
    assert await site.store.look_up((bob, "s1")) == 7
    assert await site.store.look_up((bob, "never-named-at-connect")) == 0


async def test_stream_forgotten_while_others_are_written_disturbs_nothing(
    make_site: MakeSite, valkey: Valkey, bob: str
) -> None:
    site = make_site(valkey.url)
    for number in range(600):
        site.settle(bob, f"s{number}", 7)
    with capture_logs() as logs:
        writing = asyncio.create_task(site.store.flush())
        await asyncio.sleep(0)
        for number in range(300):
            del site.registry.streams[bob, f"s{number}"]
        await writing
    assert logs == []
    assert await site.store.look_up((bob, "s599")) == 7


async def test_value_that_is_no_position_is_overwritten_and_stops_no_other(
    make_site: MakeSite, valkey: Valkey, bob: str
) -> None:
    site = make_site(valkey.url)
    async with Redis.from_url(valkey.url) as redis:
        await redis.set(f"gateway:position:{bob}:s1", "spoiled")
    assert await site.store.look_up((bob, "s1")) == 0
    site.settle(bob, "s1", 7)
    site.settle(bob, "s2", 8)
    await site.store.flush()
    assert [await site.store.look_up((bob, name)) for name in ("s1", "s2")] == [7, 8]


async def test_end_of_a_process_writes_what_has_moved(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    first, second = make_site(valkey.url), make_site(valkey.url)
    first.settle(bob, "s1", 41)
    await first.store.close()
    assert await second.store.look_up((bob, "s1")) == 41


async def test_process_without_a_store_remembers_for_itself(make_site: MakeSite, bob: str) -> None:
    site = make_site("")
    site.settle(bob, "s1", 41)
    await site.store.flush()
    assert await site.store.look_up((bob, "s1")) == 0
    stream = site.registry.stream((bob, "s1"), await site.store.look_up((bob, "s1")))
    assert stream.position.acknowledged == 41


async def test_process_goes_on_without_valkey_and_writes_all_after_its_return(
    make_site: MakeSite, own_valkey: Valkey, bob: str
) -> None:
    first, second = make_site(own_valkey.url), make_site(own_valkey.url)
    first.settle(bob, "s1", 41)
    await first.store.flush()
    own_valkey.stop()
    with capture_logs() as logs:
        first.settle(bob, "s1", 42)
        first.settle(bob, "s2", 9)
        for _ in range(3):
            assert await first.store.look_up((bob, "s1")) == 0
            await first.store.flush()
        stream = first.registry.stream((bob, "s1"), await first.store.look_up((bob, "s1")))
        assert stream.position.acknowledged == 42
        own_valkey.start()
        await first.store.flush()
    assert [entry["event"] for entry in logs] == ["positions_store_down", "positions_store_back"]
    assert await second.store.look_up((bob, "s1")) == 42
    assert await second.store.look_up((bob, "s2")) == 9


async def test_end_of_a_process_does_not_wait_for_an_absent_valkey(
    make_site: MakeSite, own_valkey: Valkey, bob: str
) -> None:
    site = make_site(own_valkey.url)
    own_valkey.stop()
    site.settle(bob, "s1", 41)
    await site.store.close()


async def test_reports_after_the_end_of_a_connection_move_the_position_for_the_next_one(
    valkey: Valkey, bob: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = Tenants()
    tenants.install(monkeypatch)
    tenants.users[bob] = dataclasses.replace(BOB, user_id=bob)
    first, second = [Process(tenants, redis_url=valkey.url) for _ in range(2)]
    earlier = await first.connect(token_of(bob))
    earlier.send(sequence=1)
    earlier.leave()
    first.sink.deliver()
    await first.runtime.stop()
    later = await second.connect(token_of(bob))
    assert [welcome.last_acknowledged_sequence for welcome in later.heard("Welcome")] == [1]
    await second.runtime.stop()
