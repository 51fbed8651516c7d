"""Positions and writers of streams over processes, connections and an absent Valkey; on a real one."""

import asyncio
import dataclasses
import time
import uuid
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from streaming.core.codes import ACTIONS, NackCode
from streaming.core.refused import Refusal
from streaming.core.stream import StreamPosition
from streaming.positions import Claim, PositionStore
from streaming.registry import Registry, StreamKey
from tests.streaming.core.cast import ticks
from tests.streaming.shell_cast import BOB, Process, Tenants, token_of
from tests.support.valkey import Valkey

TTL = 600.0
MALFORMED = Refusal(NackCode.MALFORMED, ACTIONS[NackCode.MALFORMED])


class Site:
    """What one process has of it: a registry and a store."""

    def __init__(self, url: str) -> None:
        self.registry = Registry(1.0)
        self.store = PositionStore(url, self.registry, interval=60.0, ttl=TTL)
        # The streams that another process writes, and the fence that was too small.
        self.fenced: list[tuple[StreamKey, int]] = []
        self.store.on_fenced = lambda key, fence: self.fenced.append((key, fence))

    async def open(self, user_id: str, stream_id: str = "s1", writer: str = "") -> Claim:
        """A connection that claims the stream."""
        key = (user_id, stream_id, writer)
        claim = await self.store.claim(key)
        self.registry.stream(key, claim.stored, claim.stored_fence).fence = claim.fence
        return claim

    def settle(self, user_id: str, stream_id: str, upto: int, *, fence: int = 1, writer: str = "") -> StreamPosition:
        """Everything up to there is settled here, by a connection with this fence or a larger one."""
        key = (user_id, stream_id, writer)
        entry = self.registry.stream(key, StreamPosition(upto, writer=writer))
        entry.fence = max(entry.fence, fence)
        self.store.mark(key)
        return entry.position


async def stored(url: str, user_id: str, stream_id: str = "s1", writer: str = "") -> int:
    """The acknowledged sequence in the store, 0 for none."""
    claim = await _look(url, (user_id, stream_id, writer))
    return claim.acknowledged if claim is not None else 0


async def _look(url: str, key: StreamKey) -> StreamPosition | None:
    name = f"gateway:position:{key[0]}:{key[1]}" + (f"/{key[2]}" if key[2] else "")
    async with Redis.from_url(url, decode_responses=True) as redis:
        value = await redis.get(name)
    return StreamPosition.from_text(str(value).rpartition(" ")[0]) if value else None


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


# --- Positions --------------------------------------------------------------------------------------------------------


async def test_position_written_by_one_process_is_read_by_another(
    make_site: MakeSite, valkey: Valkey, bob: str
) -> None:
    first, second = make_site(valkey.url), make_site(valkey.url)
    first.settle(bob, "s1", 41)
    assert await stored(valkey.url, bob) == 0
    await first.store.flush()
    claim = await second.open(bob)
    assert claim.stored is not None and claim.stored.acknowledged == 41


async def test_refusals_and_position_are_one_value(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    first, second = make_site(valkey.url), make_site(valkey.url)
    position = first.settle(bob, "s1", 0)
    for sequence in (1, 2, 3):
        position.arrive(sequence)
    position.refuse(2, MALFORMED)
    await first.store.flush()
    position.settle(1)
    position.refuse(3, MALFORMED)
    at_once = await _look(valkey.url, (bob, "s1", ""))
    assert at_once is not None and (at_once.acknowledged, list(at_once.refused)) == (0, [2])
    first.store.mark((bob, "s1", ""))
    await first.store.flush()
    claim = await second.open(bob)
    assert claim.stored is not None
    assert (claim.stored.acknowledged, list(claim.stored.refused)) == (3, [2, 3])


async def test_storm_of_connects_finds_every_position(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    site = make_site(valkey.url)
    site.settle(bob, "s1", 41)
    await site.store.flush()
    claims = await asyncio.gather(*(site.store.claim((bob, "s1", "")) for _ in range(500)))
    assert [claim.stored.acknowledged if claim.stored else None for claim in claims] == [41] * 500
    assert len({claim.fence for claim in claims}) == 500


async def test_connections_that_valkey_has_closed_since_hide_no_position(
    make_site: MakeSite, own_valkey: Valkey, bob: str
) -> None:
    site = make_site(own_valkey.url)
    site.settle(bob, "s1", 41)
    await site.store.flush()
    for _ in range(2):
        claims = await asyncio.gather(*(site.store.claim((bob, "s1", "")) for _ in range(20)))
        assert [claim.stored.acknowledged if claim.stored else None for claim in claims] == [41] * 20
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
    assert await stored(valkey.url, bob, "s1") == kept


async def test_largest_sequence_is_kept_exactly(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    site = make_site(valkey.url)
    for upto in (2**53 - 2, 2**53 - 1):
        site.settle(bob, "s1", upto)
        await site.store.flush()
        assert await stored(valkey.url, bob, "s1") == upto


async def test_user_never_reads_the_stream_of_another_user(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    site = make_site(valkey.url)
    alice = str(uuid.uuid4())
    site.settle(bob, "s1", 41)
    site.settle(bob, f"{alice}:s1", 42)
    await site.store.flush()
    assert await stored(valkey.url, alice, "s1") == 0
    assert await stored(valkey.url, bob, "S1") == 0


async def test_streams_of_a_whole_process_are_written_at_once(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    site = make_site(valkey.url)
    for number in range(1, 1_002):
        site.settle(bob, f"s{number}", number)
    await site.store.flush()
    found = [await stored(valkey.url, bob, f"s{number}") for number in (1, 500, 501, 1_000, 1_001)]
    assert found == [1, 500, 501, 1_000, 1_001]


async def test_position_is_kept_for_its_time_from_the_last_move(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    site = make_site(valkey.url)
    async with Redis.from_url(valkey.url, decode_responses=True) as redis:
        site.settle(bob, "s1", 1)
        await site.store.flush()
        [key] = [key async for key in redis.scan_iter(f"*position:{bob}*")]
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
    assert await stored(valkey.url, bob, "s1") == 0


async def test_stream_that_is_forgotten_here_is_left_as_it_was_written(
    make_site: MakeSite, valkey: Valkey, bob: str
) -> None:
    site = make_site(valkey.url)
    site.settle(bob, "s1", 7)
    site.store.mark((bob, "never-named-at-connect", ""))
    await site.store.flush()
    site.store.mark((bob, "s1", ""))
    site.registry.streams.clear()
    await site.store.flush()
    assert await stored(valkey.url, bob, "s1") == 7
    assert await stored(valkey.url, bob, "never-named-at-connect") == 0


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
            del site.registry.streams[bob, f"s{number}", ""]
        await writing
    assert logs == []
    assert await stored(valkey.url, bob, "s599") == 7


async def test_value_that_is_no_position_is_overwritten_and_stops_no_other(
    make_site: MakeSite, valkey: Valkey, bob: str
) -> None:
    site = make_site(valkey.url)
    async with Redis.from_url(valkey.url) as redis:
        await redis.set(f"gateway:position:{bob}:s1", "spoiled")
        await redis.set(f"gateway:fence:{bob}:s1", "spoiled")
    assert (await site.open(bob)).stored is None
    site.settle(bob, "s1", 7)
    site.settle(bob, "s2", 8)
    await site.store.flush()
    assert [await stored(valkey.url, bob, name) for name in ("s1", "s2")] == [7, 8]


async def test_position_of_an_earlier_version_is_gone_on_with(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    site = make_site(valkey.url)
    async with Redis.from_url(valkey.url) as redis:
        await redis.set(f"gateway:position:{bob}:s1", "41")
    claim = await site.open(bob)
    assert claim.stored is not None
    # What was refused then was not written.
    assert (claim.stored.acknowledged, claim.stored.refused.complete_from) == (41, 42)
    site.settle(bob, "s1", 40)
    await site.store.flush()
    assert (await site.open(bob)).stored is not None
    site.settle(bob, "s1", 43)
    await site.store.flush()
    assert await stored(valkey.url, bob) == 43


async def test_writers_of_one_stream_have_positions_of_their_own(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    site = make_site(valkey.url)
    for writer, upto in (("", 3), ("w1", 4), ("w2", 5)):
        await site.open(bob, "s1", writer)
        site.settle(bob, "s1", upto, writer=writer)
        await site.store.flush()
    # A name of the one that would be the end of the other.
    site.settle(bob, "s1:w1", 9)
    await site.store.flush()
    assert [await stored(valkey.url, bob, "s1", writer) for writer in ("", "w1", "w2")] == [3, 4, 5]


async def test_end_of_a_process_writes_what_has_moved(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    first = make_site(valkey.url)
    first.settle(bob, "s1", 41)
    await first.store.close()
    assert await stored(valkey.url, bob, "s1") == 41


async def test_process_without_a_store_remembers_for_itself(make_site: MakeSite, bob: str) -> None:
    site = make_site("")
    site.settle(bob, "s1", 41)
    await site.store.flush()
    claims = [await site.open(bob) for _ in range(3)]
    assert [claim.stored for claim in claims] == [None] * 3
    assert sorted({claim.fence for claim in claims}) == [claim.fence for claim in claims]
    assert site.registry.stream((bob, "s1", "")).position.acknowledged == 41


async def test_process_goes_on_without_valkey_and_writes_all_after_its_return(
    make_site: MakeSite, own_valkey: Valkey, bob: str
) -> None:
    first = make_site(own_valkey.url)
    first.settle(bob, "s1", 41)
    await first.store.flush()
    own_valkey.stop()
    with capture_logs() as logs:
        first.settle(bob, "s1", 42)
        first.settle(bob, "s2", 9)
        for _ in range(3):
            assert (await first.open(bob)).stored is None
            await first.store.flush()
        assert first.registry.stream((bob, "s1", "")).position.acknowledged == 42
        own_valkey.start()
        await first.store.flush()
    assert [entry["event"] for entry in logs] == ["positions_store_down", "positions_store_back"]
    assert await stored(own_valkey.url, bob, "s1") == 42
    assert await stored(own_valkey.url, bob, "s2") == 9


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


# --- One writer -------------------------------------------------------------------------------------------------------


async def test_every_claim_is_larger_than_all_before_it(make_site: MakeSite, valkey: Valkey, bob: str) -> None:
    first, second = make_site(valkey.url), make_site(valkey.url)
    fences = [(await site.open(bob, "s1", writer)).fence for site in (first, second, first) for writer in ("", "w")]
    assert fences == sorted(set(fences))
    assert abs(fences[0] - time.time() * 1000) < 60_000


async def test_only_the_newest_connection_writes_and_the_older_one_is_told(
    make_site: MakeSite, valkey: Valkey, bob: str
) -> None:
    first, second = make_site(valkey.url), make_site(valkey.url)
    older = await first.open(bob)
    await second.open(bob)
    first.settle(bob, "s1", 41)
    first.settle(bob, "s2", 7)
    await first.store.flush()
    assert first.fenced == [((bob, "s1", ""), older.fence)]
    assert [await stored(valkey.url, bob, name) for name in ("s1", "s2")] == [0, 7]
    second.settle(bob, "s1", 3)
    await second.store.flush()
    assert (second.fenced, await stored(valkey.url, bob)) == ([], 3)


async def test_other_writer_of_the_stream_fences_the_older_one_too(
    make_site: MakeSite, valkey: Valkey, bob: str
) -> None:
    first, second = make_site(valkey.url), make_site(valkey.url)
    older = await first.open(bob, "s1", "w1")
    await second.open(bob, "s1", "w2")
    first.settle(bob, "s1", 41, writer="w1")
    await first.store.flush()
    assert first.fenced == [((bob, "s1", "w1"), older.fence)]


async def test_claim_made_while_valkey_was_away_holds_with_the_first_write_and_is_told_to_all(
    make_site: MakeSite, own_valkey: Valkey, bob: str
) -> None:
    first, second = make_site(own_valkey.url), make_site(own_valkey.url)
    older = await first.open(bob)
    own_valkey.stop()
    newer = await second.open(bob)
    assert newer.stored is None and newer.fence > older.fence
    own_valkey.start()
    async with Redis.from_url(own_valkey.url) as redis, redis.pubsub() as news:
        await news.subscribe("gateway:changes")
        second.settle(bob, "s1", 3)
        await second.store.flush()
        first.settle(bob, "s1", 41)
        await first.store.flush()
        heard: list[bytes] = []
        async with asyncio.timeout(5):
            while not heard:
                message = await news.get_message(timeout=1.0)
                heard += [message["data"]] if message is not None and message["type"] == "message" else []
    assert b"stream_claimed" in heard[0] and str(newer.fence).encode() in heard[0]
    assert first.fenced == [((bob, "s1", ""), older.fence)]
    assert await stored(own_valkey.url, bob) == 3


async def test_valkey_that_has_forgotten_everything_learns_the_newest_connection_again(
    make_site: MakeSite, own_valkey: Valkey, bob: str
) -> None:
    first, second = make_site(own_valkey.url), make_site(own_valkey.url)
    older = await first.open(bob)
    newer = await second.open(bob)
    own_valkey.forget()
    second.settle(bob, "s1", 3)
    await second.store.flush()
    first.settle(bob, "s1", 41)
    await first.store.flush()
    assert (first.fenced, second.fenced) == ([((bob, "s1", ""), older.fence)], [])
    assert (await first.open(bob)).fence > newer.fence


async def test_stream_begun_anew_replaces_what_was_stored_though_it_is_less(
    make_site: MakeSite, valkey: Valkey, bob: str
) -> None:
    site = make_site(valkey.url)
    site.settle(bob, "s1", 41)
    await site.store.flush()
    site.registry.streams[bob, "s1", ""].position = StreamPosition(2, writer="~c0ffee")
    site.store.mark((bob, "s1", ""))
    await site.store.flush()
    claim = await site.open(bob)
    assert claim.stored is not None and (claim.stored.acknowledged, claim.stored.writer) == (2, "~c0ffee")


async def test_process_that_could_not_ask_does_not_take_a_position_back(
    make_site: MakeSite, own_valkey: Valkey, bob: str
) -> None:
    """Its client has said how far it has heard, and the store knew more."""
    first, second = make_site(own_valkey.url), make_site(own_valkey.url)
    first.settle(bob, "s1", 50)
    await first.store.flush()
    second.settle(bob, "s1", 40, fence=(await second.open(bob)).fence)
    await second.store.flush()
    assert await stored(own_valkey.url, bob) == 50
    second.settle(bob, "s1", 51)
    await second.store.flush()
    assert await stored(own_valkey.url, bob) == 51


# --- Over processes ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def processes(valkey: Valkey, bob: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Process]]:
    """Two that hear each other's news, with a user of their own."""
    tenants = Tenants()
    tenants.install(monkeypatch)
    tenants.users[bob] = dataclasses.replace(BOB, user_id=bob, connection_limit=10)
    made = [Process(tenants, redis_url=valkey.url) for _ in range(2)]
    for process in made:
        process.fleet._news.start()
    async with asyncio.timeout(5):
        while not all(process.fleet._news._listener.is_connected for process in made):
            await asyncio.sleep(0.005)
    yield made
    for process in made:
        await process.runtime.stop()


async def test_stream_opened_at_another_process_ends_the_older_connection_at_once(
    processes: list[Process], bob: str
) -> None:
    first, second = processes
    older = await first.connect(token_of(bob))
    other = await first.connect(token_of(bob), query="stream=s2")
    newer = await second.connect(token_of(bob))
    async with asyncio.timeout(2):
        while not older.close_code:
            await asyncio.sleep(0.001)
    assert (older.close_code, newer.close_code, other.close_code) == (4006, 0, 0)
    [goodbye] = older.heard("Disconnect")
    assert goodbye.retry_after_ms >= 5_000 and goodbye.jitter_ms > 0
    fences = [live.heard("Welcome")[0].stream_fence for live in (older, newer)]
    assert fences[0] < fences[1]


async def test_older_connection_whose_news_was_lost_ends_when_it_writes(processes: list[Process], bob: str) -> None:
    first, second = processes
    older = await first.connect(token_of(bob))
    await first.fleet._news.stop()
    await second.connect(token_of(bob))
    assert older.close_code == 0
    older.send(sequence=1)
    first.sink.deliver()
    first.runtime._flush_acks()
    await first.runtime.positions.flush()
    assert older.close_code == 4006


async def test_claim_that_was_overtaken_before_it_was_used_loses(processes: list[Process], bob: str) -> None:
    first, second = processes
    await first.fleet._news.stop()
    claim = first.runtime.positions.claim

    async def overtaken(key: StreamKey) -> Claim:
        result = await claim(key)
        await second.connect(token_of(bob))
        return result

    first.runtime.positions.claim = overtaken  # type: ignore[method-assign]
    late = await first.connect(token_of(bob))
    await first.runtime.positions.flush()
    assert late.close_code == 4006


async def test_refusals_are_told_at_another_process(processes: list[Process], bob: str) -> None:
    first, second = processes
    older = await first.connect(token_of(bob), query="stream=s1&heard=0")
    older.send(sequence=1)
    for sequence in (2, 3):
        older.send(payload=ticks("BTCUSD"), sequence=sequence)
    older.send(sequence=4)
    first.sink.deliver()
    first.runtime._flush_acks()
    await first.runtime.positions.flush()
    newer = await second.connect(token_of(bob), query="stream=s1&heard=0")
    [welcome] = newer.heard("Welcome")
    assert (welcome.last_acknowledged_sequence, welcome.position_known, welcome.refusals_from) == (4, True, 1)
    assert [(run.first, run.last, run.code) for run in welcome.refusals] == [(2, 3, "pair_not_active")]


async def test_client_hears_whether_its_position_is_known(processes: list[Process], valkey: Valkey, bob: str) -> None:
    first, second = processes
    live = await first.connect(token_of(bob))
    live.send(sequence=1)
    first.sink.deliver()
    first.runtime._flush_acks()
    await first.runtime.positions.flush()
    again = await second.connect(token_of(bob))
    valkey.forget()
    third = await first.connect(token_of(bob), query="stream=s3")
    known = [one.heard("Welcome")[0].position_known for one in (live, again, third)]
    assert known == [False, True, False]
    # The process itself remembers.
    assert (await second.connect(token_of(bob))).heard("Welcome")[0].position_known


async def test_client_that_begins_anew_resumes_its_new_beginning_at_another_process(
    processes: list[Process], bob: str
) -> None:
    first, second = processes
    for upto in (5, 3):
        live = await first.connect(token_of(bob))
        for sequence in range(1, upto + 1):
            live.send(sequence=sequence)
        first.sink.deliver()
        first.runtime._flush_acks()
        await first.runtime.positions.flush()
    assert [notice.code for notice in live.heard("Notice")] == ["stream_restarted"]
    again = await second.connect(token_of(bob))
    [welcome] = again.heard("Welcome")
    assert (welcome.last_acknowledged_sequence, welcome.stream_writer) == (3, f"~{live.connection.session.session_id}")
