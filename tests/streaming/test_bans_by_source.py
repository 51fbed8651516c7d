"""A bad terminal is kept out by itself first, and said by name; the user's others go on until it goes on."""

import dataclasses
import math
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from streaming.admission import AdmissionRefused
from streaming.bans import Bans, Blame
from streaming.core.breaker import FLOOD_FACTOR, WINDOW, UserConduct, Verdict
from tenants.access import SourceBan
from tests.streaming.cluster.cast import until
from tests.streaming.core.cast import ticks
from tests.streaming.shell_cast import BOB, Live, Process, Tenants, token_of
from tests.support.valkey import Valkey

MakeProcess = Callable[..., Process]
KEYS = {"7": math.inf, "8": math.inf}
# How a connection names who it is -> the token's key and the query.
NAMES: dict[str, tuple[str, str]] = {
    "account 1001": ("7", "account=1001"),
    "account 1002": ("8", "account=1002"),
    "key 7": ("7", ""),
    "key 8": ("8", ""),
    "": ("", ""),
}


@pytest.fixture
async def make_process(tenants: Tenants) -> AsyncIterator[MakeProcess]:
    tenants.users["bob"] = dataclasses.replace(
        BOB, connection_limit=20, accounts=frozenset({"1001", "1002"}), api_keys=KEYS, message_rate_limit=1_000.0
    )
    made: list[Process] = []

    def make(**options: Any) -> Process:
        made.append(Process(tenants, **options))
        return made[-1]

    yield make
    for process in made:
        await process.runtime.stop()


@pytest.fixture
async def process(make_process: MakeProcess) -> Process:
    return make_process()


async def connect(process: Process, name: str, stream: str = "") -> Live:
    key, query = NAMES[name]
    return await process.connect(token_of(api_key=key), query=f"stream={stream}&{query}")


async def connect_all(process: Process) -> dict[str, Live]:
    return {name: await connect(process, name) for name in NAMES}


def misbehave(one: Live, number: int = 20) -> None:
    for _ in range(number):
        one.send("nonsense")


async def refusal(process: Process, name: str) -> str:
    """ "" when the source is let in."""
    try:
        (await connect(process, name)).leave()
    except AdmissionRefused as refused:
        assert (refused.status, refused.code) == (429, "banned") and refused.retry_after > 0
        return refused.detail
    return ""


@pytest.mark.parametrize("bad", NAMES)
async def test_bad_terminal_is_kept_out_and_the_users_others_stream_on(
    process: Process, tenants: Tenants, bad: str
) -> None:
    lives = await connect_all(process)
    beside = await connect(process, bad)
    for one in lives.values():
        one.send(payload=ticks(account="1001"), sequence=0)
    with capture_logs() as logs:
        misbehave(lives[bad])
    codes = {name: one.close_code for name, one in lives.items()}
    assert codes == {name: 4005 if name == bad else 0 for name in NAMES}
    assert beside.close_code == 4005, "another connection of the same source"
    session_id = lives[bad].connection.session.session_id
    [told] = lives[bad].heard("Disconnect")
    assert session_id in told.reason and "its connections are kept out" in told.reason
    assert bad.removeprefix("key ").removeprefix("account ") in told.reason
    [entry] = [entry for entry in logs if entry["event"] == "user_banned"]
    assert (entry["source"], entry["session_id"], entry["errors"]) == (bad, session_id, 19)
    await until(lambda: len(tenants.bans) == 1)
    account, key = bad.removeprefix("account ") if "account" in bad else "", NAMES[bad][0]
    assert tenants.blamed == [(account, key, session_id, False)]
    # Before and after the process has read from the database what it wrote there itself.
    for _ in range(2):
        assert {name: bool(await refusal(process, name)) for name in NAMES} == {name: name == bad for name in NAMES}
        await process.poll()
    assert {name: one.close_code for name, one in lives.items()} == codes
    assert session_id in await refusal(process, bad)


@pytest.mark.parametrize("second", ["account 1001", "account 1002", "key 8", ""])
async def test_whole_user_is_kept_out_when_it_goes_on(process: Process, tenants: Tenants, second: str) -> None:
    first = await connect(process, "account 1001")
    misbehave(first)
    await until(lambda: len(tenants.bans) == 1)
    if second == "account 1001":
        # Its time is over, within the same day.
        process.fleet.bans._notes["bob"]["account 1001"].until = time.time() - 1
        tenants.change("bob", source_bans=())
        await process.poll()
    healthy, bad = await connect(process, "key 7"), await connect(process, second)
    misbehave(bad)
    assert (healthy.close_code, bad.close_code) == (4005, 4005)
    [told] = healthy.heard("Disconnect")
    assert bad.connection.session.session_id in told.reason and "all of the user's connections" in told.reason
    await until(lambda: len(tenants.bans) == 2)
    assert [row[3] for row in tenants.blamed] == [False, True]
    assert all([await refusal(process, name) for name in NAMES])


async def test_ban_of_one_source_is_the_same_in_every_process(
    make_process: MakeProcess, tenants: Tenants, own_valkey: Valkey
) -> None:
    here, there = (make_process(redis_url=own_valkey.url) for _ in range(2))
    there.fleet.start()
    await until(lambda: there.fleet._news._listener.is_connected)
    remote = {name: await connect(there, name, stream=f"r{place}") for place, name in enumerate(NAMES)}
    misbehave(await connect(here, "account 1002"))
    await until(lambda: remote["account 1002"].close_code == 4005)
    assert {name: one.close_code for name, one in remote.items() if name != "account 1002"} == dict.fromkeys(
        NAMES.keys() - {"account 1002"}, 0
    )
    # A process that starts later has it from Redis, while the database knows nothing.
    tenants.users["bob"] = dataclasses.replace(tenants.users["bob"], source_bans=(), bans=0)
    late = make_process(redis_url=own_valkey.url)
    assert {name: bool(await refusal(late, name)) for name in NAMES} == {n: n == "account 1002" for n in NAMES}


async def test_ban_of_one_source_in_the_database_ends_its_connections_and_no_other(
    process: Process, tenants: Tenants
) -> None:
    lives = await connect_all(process)
    row = SourceBan("key 7", "flooding", time.time() + 60, "API key gwk_abc…, connection c0ffee")
    tenants.change("bob", source_bans=(row,))
    await process.poll()
    assert {name: one.close_code for name, one in lives.items()} == {n: 4004 if n == "key 7" else 0 for n in NAMES}
    assert "gwk_abc…" in await refusal(process, "key 7")


async def test_lifting_lets_every_source_in(make_process: MakeProcess, own_valkey: Valkey, tenants: Tenants) -> None:
    process = make_process(redis_url=own_valkey.url)
    link, directory = process.fleet.link, process.fleet.directory
    bans = Bans(link, directory)
    access = tenants.users["bob"]
    notes = [bans.set("bob", Verdict.ERRORS, 0, Blame(account="1001")), bans.set("bob", Verdict.ERRORS, 0)]
    for note in notes:
        await bans.publish("bob", note)
    assert [note.source for note in notes] == ["account 1001", None]
    bans.lift("bob", time.time())
    await bans.lift_shared("bob", time.time())
    assert bans.standing(access, "account 1001") is None
    assert await Bans(link, directory).shared_standing(access, "account 1001") is None


# --- Who is found out -------------------------------------------------------------------------------------------------


def conduct_of(**sources: tuple[int, int, int]) -> UserConduct:
    """By source: messages, errors, over the rate."""
    conduct = UserConduct(0.0)
    for name, counts in sources.items():
        one = conduct.of(name, 0.0)
        one.messages, one.errors, one.over_rate = counts
    return conduct


FLOOD = int(FLOOD_FACTOR * 50 * WINDOW) + 1


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ({"a": (FLOOD + 9, 0, FLOOD), "b": (900, 0, 20)}, [(Verdict.FLOODING, "a")]),
        ({"a": (FLOOD, 0, FLOOD // 2 + 1), "b": (FLOOD, 0, FLOOD // 2 + 1)}, [(Verdict.FLOODING, None)]),
        ({"a": (FLOOD, 0, FLOOD - 1), "b": (900, 0, 0)}, []),
        ({"a": (100, 0, 0)}, []),
    ],
    ids=["one floods", "two together", "one below", "nobody"],
)
def test_flood_is_measured_by_the_users_rate_and_blamed_on_who_makes_most_of_it(
    sources: dict[str, tuple[int, int, int]], found: list[tuple[Verdict, str | None]]
) -> None:
    assert conduct_of(**sources).look(1.0, 50.0) == found


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ({"a": (100, 60, 0), "b": (1_000, 0, 0)}, [(Verdict.ERRORS, "a")]),
        ({"a": (100, 60, 0), "b": (100, 60, 0)}, [(Verdict.ERRORS, "a"), (Verdict.ERRORS, "b")]),
        # Too few of each to prove anything, and together enough.
        (dict.fromkeys("abc", (19, 19, 0)), [(Verdict.ERRORS, None)]),
        ({"a": (19, 19, 0), "b": (5, 5, 0)}, [(Verdict.ERRORS, "a")]),
        ({"a": (100, 50, 0), "b": (100, 50, 0)}, []),
    ],
    ids=["one of two", "both", "many, each few", "most from one", "half"],
)
def test_errors_are_blamed_on_their_source_and_on_the_user_where_none_stands_out(
    sources: dict[str, tuple[int, int, int]], found: list[tuple[Verdict, str | None]]
) -> None:
    conduct = conduct_of(**sources)
    looks = [conduct.look(float(second), 50.0) for second in range(1, 9)]
    assert next((look for look in looks if look), []) == found


def test_what_a_source_is_forgiven_is_not_held_against_the_user_either() -> None:
    conduct = conduct_of(a=(100, 100, 0), b=(10, 0, 0))
    conduct.forgive(1.0, "a")
    assert [conduct.look(1.0 + second, 50.0) for second in range(70)] == [[]] * 70
    assert conduct.is_quiet and conduct.messages == 110
