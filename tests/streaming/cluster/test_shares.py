"""The copies of a user's bucket kept in step through a real Valkey, without a message ever waiting for it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from redis import Redis

from streaming.cluster import shares
from streaming.cluster.link import Link
from streaming.cluster.shares import Shares
from streaming.core.shares import Mirror
from streaming.core.throttle import MirroredBucket
from tests.streaming.cluster.cast import new_id
from tests.support.valkey import Valkey

LIMIT = 50.0


@dataclass
class Server:
    """One process: the users that it remembers, and those of them who have a connection there."""

    url: str
    name: str = field(default_factory=new_id)
    buckets: dict[str, MirroredBucket] = field(default_factory=dict)
    mirrors: dict[str, Mirror] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)
    link: Link = field(init=False)
    shares: Shares = field(init=False)

    def __post_init__(self) -> None:
        self.link = Link(self.url, self.name)
        self.shares = Shares(self.link, self.mirrors.get, lambda user_id: user_id in self.live)

    def come(self, user_id: str, others: frozenset[str] | None = frozenset()) -> None:
        """The user connects here."""
        if user_id not in self.mirrors:
            now = time.monotonic()
            self.buckets[user_id] = MirroredBucket(LIMIT, LIMIT, now)
            self.mirrors[user_id] = Mirror(self.buckets[user_id], now)
        self.live.add(user_id)
        self.shares.came(user_id, others)

    def leave(self, user_id: str) -> None:
        self.live.discard(user_id)
        self.shares.left(user_id)

    def send(self, user_id: str, number: int) -> int:
        """How many of so many messages pass."""
        return sum(self.buckets[user_id].take(time.monotonic()) for _ in range(number))

    def has_no_burst(self, user_id: str, since: float) -> bool:
        """Whether the user gets no more here than what the plan has brought since then."""
        return self.send(user_id, 50) <= LIMIT * (time.monotonic() - since) + 1

    def is_reported(self, user_id: str) -> bool:
        return user_id in self.shares._watched


MakeServer = Callable[[str], Server]


@pytest.fixture
async def make_server() -> AsyncIterator[MakeServer]:
    made: list[Server] = []

    def make(url: str) -> Server:
        made.append(Server(url))
        return made[-1]

    yield make
    for server in made:
        await server.link.close()


async def report(*servers: Server, until: Callable[[], bool] | None = None) -> None:
    """All report in turn: twice, so that each has heard the others' last word, or until something is so."""
    async with asyncio.timeout(10):
        for turn in range(1_000_000):
            for server in servers:
                await server.shares.report()
            if until() if until is not None else turn == 1:
                return
            await asyncio.sleep(0.01)


async def share(user_id: str, *servers: Server) -> None:
    """The user is at all of them, and each has heard of the others."""
    for server in servers:
        server.come(user_id, frozenset(one.name for one in servers if one is not server))
    await report(*servers)


async def test_user_of_one_process_is_reported_once_when_coming_and_once_after_leaving(
    make_server: MakeServer, valkey: Valkey
) -> None:
    bob, server = new_id(), make_server(valkey.url)
    server.come(bob)
    await server.shares.report()
    assert not server.is_reported(bob)
    server.leave(bob)
    assert server.is_reported(bob)
    await server.shares.report()
    assert not server.is_reported(bob)


async def test_what_one_process_lets_pass_is_gone_at_the_others_after_the_next_reports(
    make_server: MakeServer, valkey: Valkey
) -> None:
    bob, servers = new_id(), tuple(make_server(valkey.url) for _ in range(4))
    await share(bob, *servers)
    begun = time.monotonic()
    assert servers[0].send(bob, 50) == 50
    await report(*servers)
    assert all(server.has_no_burst(bob, begun - 0.1) for server in servers[1:])


async def test_burst_at_each_of_two_processes_is_paid_back_by_both(make_server: MakeServer, valkey: Valkey) -> None:
    bob, first, second = new_id(), make_server(valkey.url), make_server(valkey.url)
    await share(bob, first, second)
    begun = time.monotonic()
    passed = first.send(bob, 50) + second.send(bob, 50)
    await report(first, second)
    # What overflowed since the last reports, at most a moment's, pays for some of it.
    waits = [server.buckets[bob].retry_after_ms() for server in (first, second)]
    while time.monotonic() - begun < 1.5:
        passed += first.send(bob, 5) + second.send(bob, 5)
        await report(first, second)
    assert passed <= LIMIT * (time.monotonic() - begun + 1.0) + 15
    assert min(waits) > 500


async def test_processes_that_are_both_over_the_plan_share_it_by_their_demand(
    make_server: MakeServer, valkey: Valkey
) -> None:
    bob, first, second = new_id(), make_server(valkey.url), make_server(valkey.url)
    await share(bob, first, second)
    begun = time.monotonic()
    while time.monotonic() - begun < 1.0:
        first.send(bob, 1)
        second.send(bob, 9)
        await report(first, second)
    assert first.shares.part(bob) == pytest.approx(0.1, abs=0.05)
    assert second.shares.part(bob) == pytest.approx(0.9, abs=0.05)


async def test_user_who_left_a_process_is_charged_there_on_coming_back(make_server: MakeServer, valkey: Valkey) -> None:
    bob, first, second = new_id(), make_server(valkey.url), make_server(valkey.url)
    await share(bob, first, second)
    first.leave(bob)
    second.leave(bob)
    await report(first, second)
    second.come(bob)
    begun = time.monotonic()
    assert second.send(bob, 50) == 50
    second.leave(bob)
    await second.shares.report()
    # Nobody has told the first one, and it does not ask.
    assert not first.is_reported(bob)
    first.come(bob)
    await first.shares.report()
    assert first.has_no_burst(bob, begun - 0.1)


async def test_last_word_of_the_process_that_a_user_has_left_is_waited_for(
    make_server: MakeServer, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "FRESH", 0.2)
    bob, first, second = new_id(), make_server(valkey.url), make_server(valkey.url)
    await share(bob, first, second)
    second.leave(bob)
    await report(first, second)
    await report(first, until=lambda: not first.is_reported(bob))
    # The user goes over, and the first process has not noticed yet when the second one asks.
    begun = time.monotonic()
    assert first.send(bob, 50) == 50
    second.come(bob)
    await second.shares.report()
    first.leave(bob)
    await first.shares.report()
    await second.shares.report()
    assert second.has_no_burst(bob, begun - 0.5)


async def test_processes_stop_reporting_when_the_other_has_gone(
    make_server: MakeServer, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "FRESH", 0.3)
    bob, first, second = new_id(), make_server(valkey.url), make_server(valkey.url)
    await share(bob, first, second)
    first.leave(bob)
    await report(first, second)
    assert not first.is_reported(bob)
    assert second.is_reported(bob)
    await report(second, until=lambda: not second.is_reported(bob))
    assert second.shares.part(bob) == 1.0


async def test_user_within_the_plan_is_never_refused_while_valkey_is_away_and_after_its_return(
    make_server: MakeServer, own_valkey: Valkey
) -> None:
    bob, first, second = new_id(), make_server(own_valkey.url), make_server(own_valkey.url)
    await share(bob, first, second)
    sent = passed = 0
    begun = time.monotonic()

    async def go_on(server: Server, seconds: float) -> None:
        """At 95 % of the plan, at one process; both would report."""
        nonlocal sent, passed
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            due = int(0.95 * LIMIT * (time.monotonic() - begun)) - sent
            sent += due
            passed += server.send(bob, due)
            await report(first, second)
            await asyncio.sleep(0.02)

    await go_on(first, 0.3)
    own_valkey.stop()
    await go_on(second, 0.6)
    await go_on(first, 0.6)
    own_valkey.start()
    await go_on(second, 0.6)
    await go_on(first, 0.6)
    assert first.link.is_up and second.link.is_up
    assert passed == sent


async def test_user_over_the_plan_keeps_the_shares_while_valkey_is_away(
    make_server: MakeServer, own_valkey: Valkey
) -> None:
    bob, servers = new_id(), tuple(make_server(own_valkey.url) for _ in range(4))
    await share(bob, *servers)
    for server in servers:
        server.send(bob, 60)
    await report(*servers)
    own_valkey.stop()
    # All debts are paid by then.
    for server in servers:
        server.buckets[bob]._tokens = 0.0
    begun, passed = time.monotonic(), 0
    while time.monotonic() - begun < 1.5:
        passed += sum(server.send(bob, 10) for server in servers)
        await report(*servers)
        await asyncio.sleep(0.02)
    assert 0.8 * LIMIT * 1.5 <= passed <= 1.3 * LIMIT * 1.5 + 4


async def test_user_who_connects_while_valkey_is_away_has_all_of_the_rate_there(
    make_server: MakeServer, own_valkey: Valkey
) -> None:
    bob, first, second = new_id(), make_server(own_valkey.url), make_server(own_valkey.url)
    await share(bob, first, second)
    own_valkey.stop()
    await second.shares.report()
    bucket = second.buckets[bob]
    second.send(bob, 60)
    at_half_the_rate = bucket.retry_after_ms()
    second.come(bob, None)
    assert bucket.retry_after_ms() == pytest.approx(at_half_the_rate / 2, abs=1)
    assert second.shares.part(bob) == 1.0


async def test_report_that_was_not_taken_is_made_when_valkey_is_back(
    make_server: MakeServer, own_valkey: Valkey
) -> None:
    bob, server = new_id(), make_server(own_valkey.url)
    server.come(bob)
    await server.shares.report()
    server.send(bob, 7)
    own_valkey.stop()
    server.leave(bob)
    await server.shares.report()
    assert server.is_reported(bob)
    own_valkey.start()
    server.link.on_return.append(server.shares.resume)
    await report(server, until=lambda: server.link.is_up)
    with Redis.from_url(own_valkey.url) as redis:
        kept = redis.hgetall(f"gateway:passed:{bob}")
    assert [field.split(b":")[1] for field in kept.values()] == [b"7"]


async def test_user_who_is_forgotten_here_is_reported_no_more(make_server: MakeServer, valkey: Valkey) -> None:
    bob, server = new_id(), make_server(valkey.url)
    server.come(bob)
    server.mirrors.clear()
    await server.shares.report()
    assert not server.is_reported(bob)
    server.shares.note_others(bob, frozenset({"other"}))
    assert not server.is_reported(bob)


async def test_process_without_valkey_watches_nobody(make_server: MakeServer) -> None:
    bob, server = new_id(), make_server("")
    server.come(bob, None)
    server.leave(bob)
    assert not server.is_reported(bob)


async def test_reports_of_long_ago_are_cleared_away(make_server: MakeServer, valkey: Valkey) -> None:
    bob, first, second = new_id(), make_server(valkey.url), make_server(valkey.url)
    await share(bob, first, second)
    with Redis.from_url(valkey.url) as redis:
        redis.hset(f"gateway:passed:{bob}", "gone", "1:5:10:0.0:1:1000")
        await first.shares.report()
        assert b"gone" not in redis.hgetall(f"gateway:passed:{bob}")


async def test_many_users_are_reported_in_a_few_visits(make_server: MakeServer, valkey: Valkey) -> None:
    users, first, second = [new_id() for _ in range(450)], make_server(valkey.url), make_server(valkey.url)
    for user_id in users:
        first.come(user_id, frozenset({second.name}))
        second.come(user_id, frozenset({first.name}))
        first.send(user_id, 50)
    await report(first, second)
    assert {second.mirrors[user_id]._seen[first.name].passed for user_id in users} == {50}
