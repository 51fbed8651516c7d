"""The rate of a user divided among processes by their demand, without a message ever waiting; on a real Valkey."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from streaming.cluster import shares
from streaming.cluster.link import Link
from streaming.cluster.shares import Shares
from tests.streaming.cluster.cast import new_id
from tests.support.valkey import Valkey

LIMIT = 50.0


@dataclass
class Server:
    """One process: ``demand`` messages a second are offered to it for each user it has, None: the user is not here."""

    url: str
    name: str = field(default_factory=new_id)
    demand: dict[str, float | None] = field(default_factory=dict)
    applied: list[tuple[str, float]] = field(default_factory=list)
    # User id -> messages offered so far, and when they were counted.
    counted: dict[str, tuple[float, float]] = field(default_factory=dict)
    link: Link = field(init=False)
    shares: Shares = field(init=False)

    def __post_init__(self) -> None:
        self.link = Link(self.url, self.name)
        self.shares = Shares(
            self.link, self._offered, lambda _: LIMIT, lambda user_id, part: self.applied.append((user_id, part))
        )

    def _offered(self, user_id: str) -> int | None:
        demand, now = self.demand.get(user_id), time.monotonic()
        if demand is None:
            return None
        offered, since = self.counted.get(user_id, (0.0, now))
        self.counted[user_id] = (offered + demand * (now - since), now)
        return int(self.counted[user_id][0])


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


def share(user_id: str, *servers: Server) -> None:
    """The processes hear that all of them serve the user."""
    for server in servers:
        server.shares.note_others(user_id, frozenset(one.name for one in servers if one is not server))


async def report(servers: tuple[Server, ...], seconds: float) -> None:
    """All report, one after the other, for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for server in servers:
            await server.shares.report()
        await asyncio.sleep(0.1)


def parts(user_id: str, *servers: Server) -> list[float]:
    return [server.shares.part(user_id) for server in servers]


async def test_user_of_one_process_has_the_whole_rate_there(make_server: MakeServer, valkey: Valkey) -> None:
    bob, server = new_id(), make_server(valkey.url)
    server.demand[bob] = 100.0
    server.shares.note_others(bob, frozenset())
    await server.shares.report()
    assert parts(bob, server) == [1.0]
    assert server.applied == []


async def test_processes_that_hear_of_each_other_begin_with_equal_parts(
    make_server: MakeServer, valkey: Valkey
) -> None:
    bob, servers = new_id(), tuple(make_server(valkey.url) for _ in range(4))
    share(bob, *servers)
    assert parts(bob, *servers) == [0.25] * 4
    assert servers[0].applied == [(bob, 0.25)]


@pytest.mark.parametrize(
    ("demands", "expected"),
    [((60.0, 60.0), (0.5, 0.5)), ((10.0, 100.0), (0.2, 0.8)), ((5.0, 5.0), (0.5, 0.5)), ((0.0, 100.0), (0.0, 1.0))],
)
async def test_parts_of_two_processes_follow_their_demand_within_a_second(
    make_server: MakeServer, valkey: Valkey, demands: tuple[float, float], expected: tuple[float, float]
) -> None:
    bob, first, second = new_id(), make_server(valkey.url), make_server(valkey.url)
    first.demand[bob], second.demand[bob] = demands
    share(bob, first, second)
    await report((first, second), 1.0)
    assert parts(bob, first, second) == pytest.approx(expected, abs=0.1)
    assert first.applied[-1] == (bob, first.shares.part(bob))


async def test_parts_together_are_never_far_above_the_whole_rate_and_move_with_the_terminal(
    make_server: MakeServer, valkey: Valkey
) -> None:
    bob, first, second = new_id(), make_server(valkey.url), make_server(valkey.url)
    first.demand[bob], second.demand[bob] = 100.0, 0.0
    share(bob, first, second)
    await report((first, second), 1.0)
    assert first.shares.part(bob) > 0.9
    # The terminal goes on at the other process.
    first.demand[bob], second.demand[bob] = 0.0, 100.0
    await report((first, second), 1.2)
    assert second.shares.part(bob) > 0.8
    assert sum(parts(bob, first, second)) == pytest.approx(1.0, abs=0.1)


async def test_parts_stay_while_valkey_is_away_and_follow_again_after_its_return(
    make_server: MakeServer, own_valkey: Valkey
) -> None:
    bob, first, second = new_id(), make_server(own_valkey.url), make_server(own_valkey.url)
    first.demand[bob], second.demand[bob] = 10.0, 100.0
    share(bob, first, second)
    await report((first, second), 1.0)
    before = parts(bob, first, second)
    own_valkey.stop()
    first.demand[bob], second.demand[bob] = 100.0, 10.0
    await report((first, second), 0.5)
    assert parts(bob, first, second) == before
    own_valkey.start()
    await report((first, second), 2.0)
    assert parts(bob, first, second) == pytest.approx([0.8, 0.2], abs=0.1)


async def test_process_whose_user_has_gone_leaves_all_of_the_rate_to_the_other(
    make_server: MakeServer, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "_FRESH", 0.5)
    bob, first, second = new_id(), make_server(valkey.url), make_server(valkey.url)
    first.demand[bob] = second.demand[bob] = 100.0
    share(bob, first, second)
    await report((first, second), 0.3)
    first.demand[bob] = None
    await report((first, second), 1.0)
    assert parts(bob, first, second) == [1.0, 1.0]
    assert second.applied[-1] == (bob, 1.0)
    assert (first.shares._shared, second.shares._shared) == ({}, {})


async def test_process_that_dies_leaves_all_of_the_rate_to_the_other(
    make_server: MakeServer, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "_FRESH", 0.5)
    bob, dead, living = new_id(), make_server(valkey.url), make_server(valkey.url)
    dead.demand[bob] = living.demand[bob] = 100.0
    share(bob, dead, living)
    await report((dead, living), 0.3)
    assert parts(bob, living) == [0.5]
    await report((living,), 1.3)
    assert parts(bob, living) == [1.0]


async def test_user_who_comes_while_valkey_is_away_has_twice_the_rate_over_all_processes_at_most(
    make_server: MakeServer, own_valkey: Valkey
) -> None:
    bob, alice, server, alone = new_id(), new_id(), make_server(own_valkey.url), make_server("")
    own_valkey.stop()
    server.shares.start_apart(bob, 8)
    server.shares.start_apart(alice, 1)
    alone.shares.start_apart(bob, 8)
    assert (parts(bob, server, alone), parts(alice, server)) == ([0.25, 1.0], [1.0])
    # What is already divided is not guessed anew.
    carol = new_id()
    server.shares.note_others(carol, frozenset({"other"}))
    server.shares.start_apart(carol, 8)
    assert parts(carol, server) == [0.5]
    server.shares.forget_apart()
    assert (parts(bob, server), parts(carol, server)) == ([1.0], [0.5])
    assert (bob, 1.0) in server.applied


async def test_many_users_are_reported_in_a_few_visits(make_server: MakeServer, valkey: Valkey) -> None:
    users, first, second = [new_id() for _ in range(450)], make_server(valkey.url), make_server(valkey.url)
    for user_id in users:
        first.demand[user_id], second.demand[user_id] = 100.0, 100.0
        share(user_id, first, second)
    await report((first, second), 0.3)
    assert {round(part, 1) for user_id in (users[0], users[-1]) for part in parts(user_id, first, second)} == {0.5}
