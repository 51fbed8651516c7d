"""What a process knows of its users: from the cache, kept true by the poll."""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from streaming import access
from streaming.access import AccessDirectory, AccessUnavailable, policy_of
from streaming.cluster.cache import AccessCache
from streaming.cluster.link import Link
from tenants import access as tenants_access
from tenants.access import TerminalAccess
from tests.streaming.shell_cast import ALICE, BOB, Clock, Tenants
from tests.support.valkey import Valkey
from tests.tenants import acts
from tests.tenants.cast import make_cast

TTL = 60.0


@dataclass
class Listener:
    """The twin of the runtime: the versions its sessions live by, and what it was told."""

    live: dict[str, dict[str, int]] = field(default_factory=dict)
    changes: list[tuple[str, TerminalAccess | None]] = field(default_factory=list)
    revoked: list[set[str]] = field(default_factory=list)
    kicks: list[tuple[str, str, float]] = field(default_factory=list)

    def live_versions(self, companies: Collection[str] | None = None) -> dict[str, dict[str, int]]:
        return {name: users for name, users in self.live.items() if companies is None or name in companies}

    def access_changed(self, user_id: str, access: TerminalAccess | None) -> None:
        self.changes.append((user_id, access))

    def tokens_revoked(self, jtis: Collection[str]) -> None:
        self.revoked.append(set(jtis))

    def kicked(self, user_id: str, session_id: str, at: float) -> None:
        self.kicks.append((user_id, session_id, at))


@pytest.fixture
def directory() -> AccessDirectory:
    return AccessDirectory(ttl=TTL, poll_interval=60.0)


async def test_second_look_comes_from_the_cache(tenants: Tenants, directory: AccessDirectory) -> None:
    assert await directory.find("bob") is BOB
    assert await directory.find("bob") is BOB
    assert await directory.find("alice") is ALICE
    assert tenants.visits == ["bob", "alice"]


async def test_many_connections_at_once_make_one_visit(tenants: Tenants, directory: AccessDirectory) -> None:
    found = await asyncio.gather(*(directory.find("bob") for _ in range(200)))
    assert all(one is BOB for one in found)
    assert tenants.visits == ["bob"]


async def test_client_that_leaves_does_not_cancel_the_visit_of_the_others(
    tenants: Tenants, directory: AccessDirectory
) -> None:
    first, second = [asyncio.create_task(directory.find("bob")) for _ in range(2)]
    await asyncio.sleep(0)
    first.cancel()
    assert await second is BOB
    assert tenants.visits == ["bob"]


async def test_unknown_user_is_not_remembered(tenants: Tenants, directory: AccessDirectory) -> None:
    assert await directory.find("eve") is None
    tenants.users["eve"] = BOB
    assert await directory.find("eve") is BOB


@pytest.mark.parametrize(("elapsed", "visits"), [(TTL - 0.1, 1), (TTL, 2)])
async def test_cache_is_used_for_its_time(
    tenants: Tenants, directory: AccessDirectory, monkeypatch: pytest.MonkeyPatch, elapsed: float, visits: int
) -> None:
    clock = Clock(monkeypatch, access)
    await directory.find("bob")
    clock.elapsed = elapsed
    await directory.find("bob")
    assert len(tenants.visits) == visits


async def test_known_users_are_let_in_without_a_database_until_their_time_is_over(
    tenants: Tenants, directory: AccessDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, listener = Clock(monkeypatch, access), Listener(live={"alpha": {"bob": 3}})
    await directory.poll(listener)
    await directory.find("bob")
    tenants.is_down = True
    with capture_logs() as logs:
        for clock.elapsed in (1.0, TTL - 0.1):
            await directory.poll(listener)
            assert await directory.find("bob") is BOB
        with pytest.raises(AccessUnavailable):
            await directory.find("alice")
        clock.elapsed = TTL
        with pytest.raises(AccessUnavailable):
            await directory.find("bob")
        tenants.is_down = False
        await directory.poll(listener)
    assert await directory.find("bob") is BOB
    assert listener.changes == []
    assert [entry["event"] for entry in logs] == ["access_database_down", "access_database_back"]


async def test_directory_is_loaded_after_the_first_poll_that_succeeds(
    tenants: Tenants, directory: AccessDirectory
) -> None:
    seen = []
    for tenants.is_down in (True, False, True):
        await directory.poll(Listener())
        seen.append(directory.is_loaded)
    assert seen == [False, True, True]


async def test_change_reaches_the_cache_and_the_connections(tenants: Tenants, directory: AccessDirectory) -> None:
    listener = Listener(live={"alpha": {"bob": 3}})
    await directory.find("bob")
    await directory.find("alice")
    await directory.poll(listener)
    assert (listener.changes, tenants.visits) == ([], ["bob", "alice"])
    tenants.change("bob", connection_limit=1)
    await directory.poll(listener)
    assert listener.changes == [("bob", tenants.users["bob"])]
    # Alice is of the same company: asked anew when she comes, not before.
    assert tenants.visits == ["bob", "alice", "bob"]
    assert await directory.find("alice") is tenants.users["alice"]
    listener.live = {"alpha": {"bob": 4}}
    await directory.poll(listener)
    assert len(listener.changes) == 1


async def test_change_of_another_company_disturbs_nobody(tenants: Tenants, directory: AccessDirectory) -> None:
    tenants.change("alice", company_id="beta")
    listener = Listener(live={"alpha": {"bob": 3}})
    await directory.find("bob")
    tenants.change("alice", refusal="user_disabled")
    await directory.poll(listener)
    assert (listener.changes, tenants.visits) == ([], ["bob"])


async def test_user_that_is_deleted_with_the_company_is_reported_as_gone(
    tenants: Tenants, directory: AccessDirectory
) -> None:
    listener = Listener(live={"alpha": {"bob": 3}})
    await directory.find("bob")
    tenants.users.clear()
    await directory.poll(listener)
    assert listener.changes == [("bob", None)]


async def test_change_missed_while_the_database_was_away_comes_after_its_return(
    tenants: Tenants, directory: AccessDirectory
) -> None:
    listener = Listener(live={"alpha": {"bob": 3}})
    await directory.find("bob")
    tenants.change("bob", refusal="user_disabled")
    tenants.is_down = True
    await directory.poll(listener)
    assert listener.changes == []
    tenants.is_down = False
    await directory.poll(listener)
    assert [(name, found and found.refusal) for name, found in listener.changes] == [("bob", "user_disabled")]


async def test_user_whose_time_in_the_cache_is_over_takes_no_memory(
    tenants: Tenants, directory: AccessDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, access)
    await directory.find("bob")
    clock.elapsed = TTL + 1
    await directory.poll(Listener())
    assert directory._cache == {}


async def test_each_revoked_token_reaches_the_listener_once(tenants: Tenants, directory: AccessDirectory) -> None:
    listener = Listener()
    tenants.revoke("one")
    assert not directory.is_revoked("one")
    await directory.poll(listener)
    await directory.poll(listener)
    tenants.revoke("two")
    await directory.poll(listener)
    assert listener.revoked == [{"one"}, {"two"}]
    assert [directory.is_revoked(jti) for jti in ("one", "two", "three")] == [True, True, False]


async def test_token_revoked_by_a_transaction_that_commits_late_is_not_missed(
    tenants: Tenants, directory: AccessDirectory
) -> None:
    listener = Listener()
    tenants.revoke("late")
    tenants.revoke("early")
    late = tenants.revoked.pop(0)
    await directory.poll(listener)
    tenants.revoked.insert(0, late)
    await directory.poll(listener)
    assert listener.revoked == [{"early"}, {"late"}]


async def test_revoked_token_is_forgotten_a_minute_after_its_own_end(
    tenants: Tenants, directory: AccessDirectory
) -> None:
    tenants.revoke("old", expires_in=-61)
    tenants.revoke("ending", expires_in=-30)
    await directory.poll(Listener())
    assert (directory.is_revoked("old"), directory.is_revoked("ending")) == (False, True)


def test_policy_has_every_limit_of_the_access() -> None:
    policy = policy_of(BOB)
    assert (policy.user_id, policy.company_id, policy.tier, policy.version) == ("bob", "alpha", "PRO", 3)
    assert (policy.message_rate_limit, policy.connection_limit) == (50.0, 2)
    assert (policy.company_connection_limit, policy.monthly_data_limit) == (200, 50_000_000_000)
    assert (policy.pair_limit, policy.account_limit) == (20, 10)
    assert (policy.active_pairs, policy.accounts) == (BOB.active_pairs, BOB.accounts)
    assert policy.features == BOB.features


@pytest.mark.usefixtures("committed_db")
def test_rows_of_a_real_database_reach_the_connections(directory: AccessDirectory) -> None:
    cast = make_cast()
    user_id, company_id = str(cast.bob.pk), str(cast.alpha.pk)

    def poll() -> Listener:
        async def both() -> Listener:
            found = await directory.find(user_id)
            assert found is not None
            listener = Listener(live={company_id: {user_id: version}})
            await directory.poll(listener)
            return listener

        return asyncio.run(both())

    found = tenants_access.terminal_access(user_id)
    assert found is not None
    version = found.access_version
    assert poll().changes == []
    acts.disable(user_id)
    [(changed, now)] = poll().changes
    assert (changed, now and now.refusal) == (user_id, "user_disabled")
    acts.revoke_token("jti", user_id, 4_000_000_000.0)
    assert poll().revoked == [{"jti"}]


# --- News -------------------------------------------------------------------------------------------------------------


async def is_idle(directory: AccessDirectory, listener: Listener) -> bool:
    """Whether there is no news to follow."""
    try:
        async with asyncio.timeout(0.05):
            await directory.follow(listener)
    except TimeoutError:
        return True
    return False


async def test_news_brings_the_change_before_the_poll_which_finds_nothing_more(
    tenants: Tenants, directory: AccessDirectory
) -> None:
    listener = Listener(live={"alpha": {"bob": 3}})
    await directory.find("bob")
    tenants.change("bob", connection_limit=1)
    directory.company_changed("alpha", 4)
    await directory.follow(listener)
    assert listener.changes == [("bob", tenants.users["bob"])]
    assert await directory.find("bob") is tenants.users["bob"]
    listener.live = {"alpha": {"bob": 4}}
    await directory.poll(listener)
    assert len(listener.changes) == 1


async def test_news_that_comes_after_the_poll_makes_no_visit(tenants: Tenants, directory: AccessDirectory) -> None:
    listener = Listener(live={"alpha": {"bob": 3}})
    tenants.change("bob", connection_limit=1)
    await directory.poll(listener)
    before = tenants.questions
    for version in (3, 4):
        directory.company_changed("alpha", version)
    assert await is_idle(directory, listener)
    assert (tenants.questions, len(listener.changes)) == (before, 1)


async def test_news_of_a_deleted_company_is_always_looked_at(tenants: Tenants, directory: AccessDirectory) -> None:
    listener = Listener(live={"alpha": {"bob": 3}})
    await directory.poll(listener)
    tenants.users.clear()
    directory.company_changed("alpha", 0)
    await directory.follow(listener)
    assert listener.changes == [("bob", None)]


async def test_news_that_comes_while_the_database_is_away_is_brought_by_the_poll(
    tenants: Tenants, directory: AccessDirectory
) -> None:
    listener = Listener(live={"alpha": {"bob": 3}})
    tenants.change("bob", refusal="user_disabled")
    tenants.is_down = True
    directory.company_changed("alpha", 4)
    await directory.follow(listener)
    assert listener.changes == []
    tenants.is_down = False
    await directory.poll(listener)
    assert [name for name, _ in listener.changes] == ["bob"]


async def test_news_of_many_changes_at_once_makes_one_look(tenants: Tenants, directory: AccessDirectory) -> None:
    listener = Listener(live={"alpha": {"bob": 3}})
    for version in range(4, 40):
        tenants.change("bob", connection_limit=version)
        directory.company_changed("alpha", version)
    before = tenants.questions
    await directory.follow(listener)
    # The versions, and whoever lives by an older one.
    assert tenants.questions == before + 2
    assert await is_idle(directory, listener)


async def test_gap_in_the_news_is_made_good_by_a_look_at_everything(
    tenants: Tenants, directory: AccessDirectory
) -> None:
    listener = Listener(live={"alpha": {"bob": 3}})
    tenants.change("bob", refusal="user_disabled")
    tenants.revoke("jti")
    row = tenants.kick("alice", "s1")
    directory.look_at_everything()
    await directory.follow(listener)
    assert [name for name, _ in listener.changes] == ["bob"]
    assert (listener.revoked, listener.kicks) == ([{"jti"}], [("alice", "s1", row[3])])


async def test_connection_that_was_let_in_by_what_is_outdated_is_looked_at_again(
    tenants: Tenants, directory: AccessDirectory
) -> None:
    old, listener = tenants.users["bob"], Listener(live={"alpha": {"alice": 3}})
    directory.look_again(old)
    assert await is_idle(directory, listener)
    tenants.change("bob", refusal="user_disabled")
    await directory.poll(listener)
    listener.changes.clear()
    directory.look_again(tenants.users["bob"])
    assert await is_idle(directory, listener)
    listener.live = {"alpha": {"bob": 3}}
    directory.look_again(old)
    await directory.follow(listener)
    assert [name for name, _ in listener.changes] == ["bob"]


async def test_change_that_concerns_two_hundred_users_makes_as_many_visits_as_one_of_two(
    tenants: Tenants, directory: AccessDirectory
) -> None:
    asked = []
    for number in (2, 200):
        names = [f"user{n}" for n in range(number)]
        tenants.users = {name: dataclasses.replace(BOB, user_id=name) for name in names}
        listener = Listener(live={"alpha": dict.fromkeys(names, 2)})
        before = tenants.questions
        await directory.poll(listener)
        asked.append(tenants.questions - before)
        assert sorted(name for name, _ in listener.changes) == sorted(names)
    assert asked[0] == asked[1] <= 4


async def test_change_that_concerns_many_users_leaves_others_their_turn(
    tenants: Tenants, directory: AccessDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"user{n}" for n in range(200)]
    tenants.users = {name: dataclasses.replace(BOB, user_id=name) for name in names}
    listener, turn, turns = Listener(live={"alpha": dict.fromkeys(names, 2)}), 0, Counter[int]()

    async def neighbour() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(listener, "access_changed", lambda _user_id, _access: turns.update([turn]))
    task = asyncio.create_task(neighbour())
    await directory.poll(listener)
    task.cancel()
    assert turns.total() == 200
    assert max(turns.values()) <= 50


# --- Kicks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ways", [["news", "poll"], ["poll", "news"], ["news", "news"], ["poll", "poll"]])
async def test_kick_is_carried_out_once_whichever_way_it_comes(
    tenants: Tenants, directory: AccessDirectory, ways: list[str]
) -> None:
    listener = Listener()
    row, session_id, user_id, at = tenants.kick("bob", "s1")
    for way in ways:
        if way == "news":
            directory.kick(listener, row, user_id, session_id, at)
        else:
            await directory.poll(listener)
    assert listener.kicks == [("bob", "s1", at)]
    again = tenants.kick("bob")
    await directory.poll(listener)
    assert listener.kicks[1:] == [("bob", "", again[3])]


async def test_kick_by_a_transaction_that_commits_late_is_not_missed(
    tenants: Tenants, directory: AccessDirectory
) -> None:
    listener = Listener()
    tenants.kick("bob", "late")
    tenants.kick("bob", "early")
    late = tenants.kicked.pop(0)
    await directory.poll(listener)
    tenants.kicked.insert(0, late)
    await directory.poll(listener)
    assert [session_id for _, session_id, _ in listener.kicks] == ["early", "late"]


# --- The cache of all processes ---------------------------------------------------------------------------------------


@pytest.fixture
async def make_sharing(own_valkey: Valkey) -> AsyncIterator[Callable[[], AccessDirectory]]:
    """Directories of processes that share a Valkey."""
    links: list[Link] = []

    def make() -> AccessDirectory:
        links.append(Link(own_valkey.url, f"process-{len(links)}"))
        return AccessDirectory(ttl=TTL, poll_interval=60.0, shared=AccessCache(links[-1], TTL))

    yield make
    for link in links:
        await link.close()


MakeSharing = Callable[[], AccessDirectory]


async def test_process_that_knows_the_version_takes_what_another_has_looked_up(
    tenants: Tenants, make_sharing: MakeSharing
) -> None:
    first, second, listener = make_sharing(), make_sharing(), Listener(live={"alpha": {"alice": 3}})
    await first.find("bob")
    await second.poll(listener)
    assert await second.find("bob") == BOB
    assert tenants.visits == ["bob"]


async def test_process_that_does_not_know_the_version_asks_the_database(
    tenants: Tenants, make_sharing: MakeSharing
) -> None:
    first, second = make_sharing(), make_sharing()
    await first.find("bob")
    assert await second.find("bob") is BOB
    assert tenants.visits == ["bob", "bob"]


async def test_entry_of_an_older_version_is_not_taken(tenants: Tenants, make_sharing: MakeSharing) -> None:
    first, second, listener = make_sharing(), make_sharing(), Listener(live={"alpha": {"alice": 3}})
    await first.find("bob")
    tenants.change("bob", refusal="user_disabled")
    await second.poll(listener)
    found = await second.find("bob")
    assert found is not None and found.refusal == "user_disabled"


async def test_version_that_was_heard_long_ago_is_not_trusted(
    tenants: Tenants, make_sharing: MakeSharing, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, access)
    first, second, listener = make_sharing(), make_sharing(), Listener(live={"alpha": {"alice": 3}})
    await first.find("bob")
    await second.poll(listener)
    clock.elapsed = 121.0
    await second.find("bob")
    assert tenants.visits == ["bob", "bob"]


async def test_entry_of_another_process_lets_the_user_in_while_the_database_is_away(
    tenants: Tenants, make_sharing: MakeSharing
) -> None:
    first, second = make_sharing(), make_sharing()
    await first.find("bob")
    tenants.is_down = True
    assert await second.find("bob") == BOB
    with pytest.raises(AccessUnavailable):
        await second.find("alice")


async def test_entry_that_is_known_to_be_outdated_lets_nobody_in_while_the_database_is_away(
    tenants: Tenants, make_sharing: MakeSharing
) -> None:
    first, second, listener = make_sharing(), make_sharing(), Listener(live={"alpha": {"alice": 3}})
    await first.find("bob")
    tenants.change("bob", refusal="user_disabled")
    await second.poll(listener)
    tenants.is_down = True
    with pytest.raises(AccessUnavailable):
        await second.find("bob")


async def test_without_valkey_the_database_is_asked(
    tenants: Tenants, make_sharing: MakeSharing, own_valkey: Valkey
) -> None:
    directory = make_sharing()
    own_valkey.stop()
    assert await directory.find("bob") is BOB
    assert await directory.find("bob") is BOB
    assert tenants.visits == ["bob"]


async def test_change_that_one_process_has_looked_up_is_there_for_the_next(
    tenants: Tenants, make_sharing: MakeSharing
) -> None:
    first, second = make_sharing(), make_sharing()
    tenants.change("bob", connection_limit=1)
    await first.poll(Listener(live={"alpha": {"bob": 3}}))
    await second.poll(Listener(live={"alpha": {"alice": 4}}))
    visits = len(tenants.visits)
    assert await second.find("bob") == tenants.users["bob"]
    assert len(tenants.visits) == visits
