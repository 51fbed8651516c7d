"""No message asks the database or Redis for anything, however many there are."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis.asyncio.connection
import redis.connection
from django.db import connection
from django.db.backends.utils import CursorWrapper
from redis.asyncio import Redis

from tenants.models import Company
from tests.streaming.cluster.cast import until
from tests.streaming.core.cast import signal
from tests.streaming.shell_cast import BOB, LIMITS, Live, Process, Tenants, token_of
from tests.support.valkey import Valkey

MESSAGES = 10_000


class Counter:
    """Every statement of any thread and every command of any client of Redis, whoever makes it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queries = 0
        self.commands = 0
        for method in ("execute", "executemany", "callproc"):
            monkeypatch.setattr(CursorWrapper, method, self._counting(getattr(CursorWrapper, method), "queries"))
        for module in (redis.connection, redis.asyncio.connection):
            base: Any = module.AbstractConnection
            monkeypatch.setattr(base, "send_packed_command", self._counting(base.send_packed_command, "commands"))

    def _counting(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            setattr(self, name, getattr(self, name) + 1)
            return original(*arguments, **options)

        return counted

    @contextmanager
    def watching(self) -> Iterator[None]:
        """What happens inside is counted from nothing, by Django's own hook as well."""
        self.queries = self.commands = 0

        def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            self.queries += 1
            return execute(sql, params, many, context)

        with connection.execute_wrapper(note):
            yield


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


@pytest.fixture
async def process(tenants: Tenants, own_valkey: Valkey) -> AsyncIterator[Process]:
    """Its background work does not run: what is counted comes from messages."""
    for name in ("bob", "alice"):
        tenants.users[name] = dataclasses.replace(
            BOB, user_id=name, username=name, connection_limit=10, message_rate_limit=1e9, monthly_data_limit=10**12
        )
    made = Process(tenants, redis_url=own_valkey.url, limits=dataclasses.replace(LIMITS, ack_interval=0.001))
    yield made
    await made.runtime.stop()


async def stream(process: Process, lives: list[Live], number: int) -> None:
    """Every kind of message that is accepted, acknowledged as Kafka would; everything that is due gets its turn."""
    before = asyncio.all_tasks()
    for sequence in range(1, number // len(lives) + 1):
        for one in lives:
            if sequence % 10:
                one.send(sequence=sequence)
            else:
                one.send("trading_signal", signal(account="1001"), sequence=sequence)
        if sequence % 50 == 0:
            process.sink.deliver()
            await asyncio.sleep(0)
    process.sink.deliver()
    # Whatever a message may have set off comes to its end, the timers of acknowledgements included.
    while set_off := [task for task in asyncio.all_tasks() - before if not task.done()]:
        await asyncio.wait(set_off, timeout=10)
    await until(lambda: all(one.acks()[-1:] == [number // len(lives)] for one in lives))


async def test_ten_thousand_messages_ask_neither_the_database_nor_redis(
    process: Process, tenants: Tenants, counter: Counter
) -> None:
    lives = [
        await process.connect(query="stream=s1"),
        await process.connect(query="stream=s2"),
        await process.connect(token_of("alice")),
        # One that nobody named a stream for.
        await process.connect(token_of("alice"), query=""),
    ]
    tenants.questions = 0
    with counter.watching():
        await stream(process, lives, MESSAGES)
    assert sum(one.connection.session.messages for one in lives) == MESSAGES
    assert len(process.sink.records) == MESSAGES
    assert [one.acks()[-1] for one in lives] == [MESSAGES // 4] * 4
    assert [one.heard("Nack") for one in lives] == [[]] * 4
    assert (counter.queries, counter.commands, tenants.questions) == (0, 0, 0)


@pytest.mark.usefixtures("committed_db")
async def test_counter_sees_a_query_of_a_thread_and_a_command_of_redis(process: Process, counter: Counter) -> None:
    async def ping(redis: Redis) -> bool:
        return bool(await redis.ping())

    bob = await process.connect()
    assert await process.fleet.link.ask(ping)
    with counter.watching():
        await process.fleet.link.ask(ping)
        assert (counter.queries, counter.commands) == (0, 1)
        await process.fleet.directory.ask(Company.objects.count)
        assert (counter.queries, counter.commands) == (1, 1)
        # As a message would do it that sets something off; a new connection to Redis says a word more.
        tasks: list[asyncio.Task[Any]] = []
        bob.connection.session.tap = lambda *_: tasks.append(asyncio.ensure_future(process.fleet.link.ask(ping)))
        await stream(process, [bob], 10)
        assert counter.commands >= 11
        assert await asyncio.gather(*tasks) == [True] * 10
