"""A process asks the shared Valkey, and goes on without it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from streaming.cluster import link as module
from streaming.cluster.link import Link, new_process_id
from tests.streaming.cluster.cast import new_id
from tests.support.valkey import Valkey

MakeLink = Callable[[str], Link]


@pytest.fixture
async def make_link() -> AsyncIterator[MakeLink]:
    made: list[Link] = []

    def make(url: str) -> Link:
        made.append(Link(url, "me"))
        return made[-1]

    yield make
    for link in made:
        await link.close()


async def ping(redis: Redis) -> str:
    return str(await redis.ping())


async def test_question_is_answered(make_link: MakeLink, valkey: Valkey) -> None:
    link = make_link(valkey.url)
    assert (await link.ask(ping), link.is_up, link.is_alone) == ("True", True, False)


async def test_process_without_an_address_is_alone_and_asks_nobody(make_link: MakeLink) -> None:
    link = make_link("")
    assert (await link.ask(ping), link.is_up, link.is_alone) == (None, False, True)


async def test_absence_and_return_are_each_said_once_and_the_return_is_told_on(
    make_link: MakeLink, own_valkey: Valkey
) -> None:
    link, returns = make_link(own_valkey.url), []
    link.on_return.append(lambda: returns.append(True))
    assert await link.ask(ping) == "True"
    with capture_logs() as logs:
        own_valkey.stop()
        for _ in range(3):
            assert await link.ask(ping) is None
            # Its rest is over.
            link._silent_until = 0.0
        assert (link.is_up, returns) == (False, [])
        own_valkey.start()
        assert [await link.ask(ping) for _ in range(3)] == ["True"] * 3
    assert (link.is_up, len(returns)) == (True, 1)
    assert [entry["event"] for entry in logs] == ["redis_down", "redis_back"]


async def test_absent_valkey_is_left_alone_for_a_while(make_link: MakeLink, own_valkey: Valkey) -> None:
    link, asked = make_link(own_valkey.url), 0

    async def question(redis: Redis) -> str:
        nonlocal asked
        asked += 1
        return await ping(redis)

    own_valkey.stop()
    for _ in range(1_000):
        assert await link.ask(question) is None
    # A thousand refused connects in one rest would be more.
    assert asked < 100


async def test_valkey_that_does_not_answer_in_time_holds_nobody_up(make_link: MakeLink) -> None:
    closing = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await closing.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    link = make_link(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    begun = time.monotonic()
    answers = await asyncio.gather(*(link.ask(ping, timeout=0.3) for _ in range(20)))
    assert answers == [None] * 20
    # One after the other they would take six.
    assert time.monotonic() - begun < 5.0
    closing.set()
    server.close()


async def test_error_that_valkey_answers_is_no_answer_and_a_bug_of_ours_is_no_absence(
    make_link: MakeLink, valkey: Valkey
) -> None:
    async def wrong(redis: Redis) -> bytes:
        raise ResponseError("ERR wrong")

    async def bug(redis: Redis) -> bytes:
        raise ZeroDivisionError

    link = make_link(valkey.url)
    with pytest.raises(ZeroDivisionError):
        await link.ask(bug)
    assert link.is_up
    assert await link.ask(wrong) is None


async def test_storm_of_questions_does_not_read_as_an_absence(make_link: MakeLink, valkey: Valkey) -> None:
    link, key = make_link(valkey.url), new_id()

    async def count(redis: Redis) -> int:
        return int(await redis.incr(key))

    answers = await asyncio.gather(*(link.ask(count, timeout=10.0) for _ in range(8 * module._CONNECTION_LIMIT)))
    assert None not in answers
    assert link.is_up


async def test_time_of_an_answer_does_not_begin_while_others_have_all_connections(
    make_link: MakeLink, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CONNECTION_LIMIT", 4)
    monkeypatch.setattr(module, "_TURN_TIMEOUT", 30.0)
    link, nothing = make_link(valkey.url), new_id()

    async def slow(redis: Redis) -> str:
        # Holds its connection.
        await redis.blpop([nothing], timeout=0.1)
        return await ping(redis)

    # Each is answered well in time, the last ones after twenty others that take longer together.
    answers = await asyncio.gather(*(link.ask(slow, timeout=2.0) for _ in range(21 * 4)))
    assert None not in answers
    assert link.is_up


async def test_connections_that_valkey_has_closed_since_are_made_anew_and_every_question_is_answered(
    make_link: MakeLink, own_valkey: Valkey
) -> None:
    link = make_link(own_valkey.url)

    async def hold(redis: Redis) -> str:
        await redis.blpop(["nothing"], timeout=0.1)
        return await ping(redis)

    async def pipeline(redis: Redis) -> list[bool]:
        pipe = redis.pipeline(transaction=False)
        pipe.set("a", "1")
        return list(await pipe.execute())

    assert await asyncio.gather(*(link.ask(hold) for _ in range(8))) == ["True"] * 8
    with capture_logs() as logs, SyncRedis.from_url(own_valkey.url) as other:
        other.client_kill_filter(_type="normal", skipme=True)
        assert await asyncio.gather(*(link.ask(pipeline) for _ in range(4))) == [[True]] * 4
        assert await asyncio.gather(*(link.ask(ping) for _ in range(8))) == ["True"] * 8
    assert logs == []


async def test_who_gets_no_turn_goes_on_without_an_answer(
    make_link: MakeLink, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TURN_TIMEOUT", 0.2)
    link, may_end = make_link(valkey.url), asyncio.Event()

    async def endless(redis: Redis) -> str:
        await may_end.wait()
        return await ping(redis)

    holders = [asyncio.ensure_future(link.ask(endless, timeout=30.0)) for _ in range(module._CONNECTION_LIMIT)]
    await asyncio.sleep(0)
    assert await link.ask(ping) is None
    # That says nothing of Redis.
    assert link.is_up
    may_end.set()
    assert await asyncio.gather(*holders) == ["True"] * module._CONNECTION_LIMIT
    assert await link.ask(ping) == "True"


def test_names_of_processes_are_never_the_same() -> None:
    names = {new_process_id() for _ in range(1_000)}
    assert len(names) == 1_000
    assert not any({"=", ","} & set(name) for name in names)
