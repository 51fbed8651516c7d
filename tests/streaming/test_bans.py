"""Who is let go stays out for a while: in this process, in the others, in the database; until an operator says else."""

import asyncio
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from redis import Redis as SyncRedis
from structlog.testing import capture_logs

from streaming.access import AccessDirectory
from streaming.bans import BanNote, Bans, read_note
from streaming.cluster.link import Link
from streaming.core.breaker import BAN_BASE, Verdict
from tenants import access as tenants_access
from tenants.access import TerminalAccess
from tests.streaming.cluster.cast import flush_all
from tests.streaming.shell_cast import BOB, Tenants, turns
from tests.support.valkey import Valkey
from tests.tenants.acts import SYSTEM
from tests.tenants.cast import make_cast


@pytest.fixture
async def make_bans(tenants: Tenants) -> AsyncIterator[Callable[..., Bans]]:
    links: list[Link] = []

    def make(url: str = "") -> Bans:
        links.append(Link(url, f"process-{len(links)}"))
        return Bans(links[-1], AccessDirectory(ttl=60.0, poll_interval=60.0))

    yield make
    for link in links:
        await link.close()


MakeBans = Callable[..., Bans]


def heard(bans: Bans, note: BanNote, user_id: str = "bob") -> None:
    """As it comes from another process."""
    bans.heard(user_id, read_note(msgspec.to_builtins(note)))


def note_of(starts_at: float, until: float, repeat: int = 1) -> BanNote:
    return BanNote(reason="errors", starts_at=starts_at, until=until, repeat=repeat)


def until(bans: Bans, access: TerminalAccess, source: str = "") -> float:
    """0.0: nothing keeps the source out."""
    note = bans.standing(access, source)
    return 0.0 if note is None else note.until


async def shared_until(bans: Bans, access: TerminalAccess, source: str = "") -> float:
    note = await bans.shared_standing(access, source)
    return 0.0 if note is None else note.until


async def test_banned_user_stays_out_until_the_end_and_nobody_else_does(make_bans: MakeBans) -> None:
    bans = make_bans()
    note = bans.set("bob", Verdict.ERRORS, earlier=0)
    assert 0.8 * BAN_BASE <= note.until - note.starts_at <= 1.2 * BAN_BASE + 0.001
    assert (until(bans, BOB), note.reason, note.repeat) == (note.until, "errors", 1)
    assert until(bans, dataclasses.replace(BOB, user_id="alice")) == 0.0


async def test_ban_that_is_over_stands_in_nobodys_way(make_bans: MakeBans) -> None:
    bans, now = make_bans(), time.time()
    heard(bans, note_of(now - 60, now - 0.01, 1), "bob")
    assert until(bans, BOB) == 0.0
    heard(bans, note_of(now - 60, now + 5.0, 1), "bob")
    assert until(bans, BOB) == now + 5.0


@pytest.mark.parametrize(("earlier", "repeat"), [(0, 1), (1, 2), (4, 5)])
async def test_ban_grows_with_those_of_the_day(make_bans: MakeBans, earlier: int, repeat: int) -> None:
    note = make_bans().set("bob", Verdict.FLOODING, earlier)
    assert (note.repeat, note.reason) == (repeat, "flooding")
    assert note.until - note.starts_at >= 0.8 * BAN_BASE * 2 ** (repeat - 1)


async def test_ban_grows_also_while_the_database_has_not_heard_of_the_last_one(make_bans: MakeBans) -> None:
    bans = make_bans()
    assert [bans.set("bob", Verdict.ERRORS, earlier=0).repeat for _ in range(3)] == [1, 2, 3]
    heard(bans, note_of(time.time(), time.time() + 5_000, 7))
    assert bans.set("bob", Verdict.ERRORS, earlier=0).repeat == 8


async def test_longest_of_what_is_known_holds(make_bans: MakeBans) -> None:
    bans, now = make_bans(), time.time()
    heard(bans, note_of(now, now + 60, 1), "bob")
    heard(bans, note_of(now, now + 30, 1), "bob")
    assert until(bans, BOB) == now + 60
    assert until(bans, dataclasses.replace(BOB, banned_until=now + 90)) == now + 90
    assert until(bans, dataclasses.replace(BOB, banned_until=now + 10)) == now + 60


# --- Lifting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lifted", "is_banned"), [(-0.5, True), (0.0, False), (0.5, False)])
async def test_ban_is_lifted_when_it_began_before(make_bans: MakeBans, lifted: float, is_banned: bool) -> None:
    bans = make_bans()
    note = bans.set("bob", Verdict.ERRORS, earlier=0)
    bans.lift("bob", note.starts_at + lifted)
    assert bool(until(bans, BOB)) == is_banned
    bans.lift("alice", time.time())


@pytest.mark.parametrize(("lifted", "is_banned"), [(-0.5, True), (0.5, False)])
async def test_lifting_that_only_the_database_tells_of_makes_older_notes_void(
    make_bans: MakeBans, valkey: Valkey, lifted: float, is_banned: bool
) -> None:
    bob, here, there = dataclasses.replace(BOB, user_id=f"bob{lifted}"), make_bans(valkey.url), make_bans(valkey.url)
    note = here.set(bob.user_id, Verdict.ERRORS, earlier=0)
    await here.publish(bob.user_id, note)
    access = dataclasses.replace(bob, lifted_at=note.starts_at + lifted)
    assert bool(until(here, access)) == is_banned
    assert bool(await shared_until(there, access)) == is_banned
    assert bool(until(there, access)) == is_banned


async def test_ban_after_the_lifting_stands(make_bans: MakeBans) -> None:
    bans = make_bans()
    bans.lift("bob", time.time())
    access = dataclasses.replace(BOB, lifted_at=time.time() - 0.001)
    note = bans.set("bob", Verdict.ERRORS, earlier=0)
    assert until(bans, access) == note.until


async def test_lifting_reaches_what_valkey_has_of_a_ban_that_the_database_never_knew(
    make_bans: MakeBans, valkey: Valkey
) -> None:
    bob, here, there = dataclasses.replace(BOB, user_id="bob-unwritten"), make_bans(valkey.url), make_bans(valkey.url)
    await here.publish(bob.user_id, here.set(bob.user_id, Verdict.ERRORS, earlier=0))
    assert await shared_until(there, bob)
    for bans in (here, there):
        bans.lift(bob.user_id, time.time())
        await bans.lift_shared(bob.user_id, time.time())
    assert (await shared_until(there, bob), await shared_until(here, bob)) == (0.0, 0.0)


async def test_lifting_leaves_a_newer_ban_in_valkey(make_bans: MakeBans, valkey: Valkey) -> None:
    bob, bans = dataclasses.replace(BOB, user_id="bob-newer"), make_bans(valkey.url)
    note = bans.set(bob.user_id, Verdict.ERRORS, earlier=0)
    await bans.publish(bob.user_id, note)
    await bans.lift_shared(bob.user_id, note.starts_at - 0.001)
    assert await shared_until(make_bans(valkey.url), bob) == note.until


# --- Other processes --------------------------------------------------------------------------------------------------


async def test_process_that_has_heard_nothing_asks_valkey(make_bans: MakeBans, valkey: Valkey) -> None:
    bob, here, there = dataclasses.replace(BOB, user_id="bob-shared"), make_bans(valkey.url), make_bans(valkey.url)
    assert await shared_until(there, bob) == 0.0
    note = here.set(bob.user_id, Verdict.ERRORS, earlier=2)
    await here.publish(bob.user_id, note)
    assert until(there, bob) == 0.0
    assert await shared_until(there, bob) == note.until
    # From then on by itself, the length of the next one included.
    assert until(there, bob) == note.until
    assert there.set(bob.user_id, Verdict.ERRORS, earlier=0).repeat == 4


async def test_note_in_valkey_ends_with_the_ban(make_bans: MakeBans, valkey: Valkey) -> None:
    bob, bans = dataclasses.replace(BOB, user_id="bob-short"), make_bans(valkey.url)
    now = time.time()
    await bans.publish(bob.user_id, note_of(now, now + 60.0, 1))
    assert await shared_until(make_bans(valkey.url), bob)
    with SyncRedis.from_url(valkey.url) as redis:
        [key] = redis.keys("*bob-short*")
        # The rest of the ban and no more, by Valkey's own clock.
        assert 0 < redis.pttl(key) <= 60_000
        redis.pexpire(key, 0)
    assert await shared_until(make_bans(valkey.url), bob) == 0.0


async def test_ban_holds_on_the_process_that_set_it_while_valkey_is_away(
    make_bans: MakeBans, own_valkey: Valkey, tenants: Tenants
) -> None:
    here, there = make_bans(own_valkey.url), make_bans(own_valkey.url)
    own_valkey.stop()
    note = here.set("bob", Verdict.ERRORS, earlier=0)
    await here.publish("bob", note)
    await here.write_down()
    assert (until(here, BOB), await shared_until(here, BOB)) == (note.until, 0.0)
    # The others learn of it from the database.
    assert (until(there, BOB), await shared_until(there, BOB)) == (0.0, 0.0)
    assert until(there, tenants.users["bob"]) == note.until
    own_valkey.start()


async def test_ban_that_valkey_has_forgotten_holds_where_it_is_known(make_bans: MakeBans, own_valkey: Valkey) -> None:
    bans = make_bans(own_valkey.url)
    note = bans.set("bob", Verdict.ERRORS, earlier=0)
    await bans.publish("bob", note)
    await flush_all(own_valkey.url)
    assert (until(bans, BOB), await shared_until(bans, BOB)) == (note.until, 0.0)


# --- The database -----------------------------------------------------------------------------------------------------


async def test_ban_is_written_once_by_the_process_that_set_it(make_bans: MakeBans, tenants: Tenants) -> None:
    here, there = make_bans(), make_bans()
    note = here.set("bob", Verdict.FLOODING, earlier=0)
    heard(there, note)
    for _ in range(3):
        await here.write_down()
        await there.write_down()
    assert tenants.bans == [("bob", "flooding", note.starts_at, note.until, 1)]


async def test_two_who_write_at_once_write_one_ban(
    make_bans: MakeBans, tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, bans, may_write = tenants._ban, make_bans(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> None:
        assert may_write.wait(10.0)
        written(*arguments, **options)

    monkeypatch.setattr(tenants_access, "ban", slow)
    bans.set("bob", Verdict.ERRORS, earlier=0)
    writers = [asyncio.create_task(bans.write_down()) for _ in range(2)]
    await turns()
    may_write.set()
    await asyncio.gather(*writers)
    assert len(tenants.bans) == 1


async def test_ban_set_while_the_database_is_away_is_written_after_its_return(
    make_bans: MakeBans, tenants: Tenants
) -> None:
    bans = make_bans()
    tenants.is_down = True
    notes = [bans.set(user_id, Verdict.ERRORS, earlier=0) for user_id in ("bob", "alice")]
    with capture_logs() as logs:
        for _ in range(3):
            await bans.write_down()
    # Said once, however long it lasts.
    assert [entry["event"] for entry in logs] == ["ban_not_written_yet"]
    assert (tenants.bans, until(bans, BOB)) == ([], notes[0].until)
    tenants.is_down = False
    await bans.write_down()
    assert [row[:4] for row in tenants.bans] == [
        ("bob", "errors", notes[0].starts_at, notes[0].until),
        ("alice", "errors", notes[1].starts_at, notes[1].until),
    ]


async def test_ban_of_a_user_that_was_deleted_meanwhile_is_forgotten(make_bans: MakeBans, tenants: Tenants) -> None:
    bans = make_bans()
    bans.set("bob", Verdict.ERRORS, earlier=0)
    bans.set("alice", Verdict.ERRORS, earlier=0)
    del tenants.users["bob"]
    await bans.write_down()
    assert until(bans, BOB) == 0.0
    assert [row[0] for row in tenants.bans] == ["alice"]


async def test_ban_is_remembered_an_hour_longer_than_it_lasts(make_bans: MakeBans) -> None:
    bans, now = make_bans(), time.time()
    heard(bans, note_of(now - 4_000, now - 3_599, 3), "bob")
    heard(bans, note_of(now - 4_000, now - 3_601, 3), "alice")
    await bans.write_down()
    assert [bans.set(user_id, Verdict.ERRORS, earlier=0).repeat for user_id in ("bob", "alice")] == [4, 1]


@pytest.mark.usefixtures("committed_db")
async def test_ban_and_its_lifting_go_through_a_real_database() -> None:
    cast = await asyncio.to_thread(make_cast)
    bob, directory = str(cast.bob.pk), AccessDirectory(ttl=60.0, poll_interval=60.0)
    here, there = (Bans(Link("", name), directory) for name in ("here", "there"))
    note = here.set(bob, Verdict.FLOODING, earlier=0)
    for _ in range(2):
        await here.write_down()
    banned = await directory.ask(lambda: tenants_access.terminal_access(bob))
    assert banned is not None and (banned.bans, banned.lifted_at) == (1, 0.0)
    assert until(there, banned) == pytest.approx(note.until, abs=0.001)
    assert there.set(bob, Verdict.ERRORS, banned.bans).repeat == 2
    await there.write_down()
    assert await directory.ask(lambda: tenants_access.lift_bans(SYSTEM, bob)) == 2
    lifted = await directory.ask(lambda: tenants_access.terminal_access(bob))
    assert lifted is not None and (lifted.banned_until, lifted.bans) == (0.0, 0)
    assert (until(here, lifted), until(there, lifted)) == (0.0, 0.0)
    directory.close()
