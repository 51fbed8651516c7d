"""What a process knows of its users: from the cache, kept true by the poll."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from streaming import access
from streaming.access import AccessDirectory, AccessUnavailable, policy_of
from tenants import access as tenants_access
from tenants.access import TerminalAccess
from tests.streaming.shell_cast import ALICE, BOB, Clock, Tenants
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

    def live_versions(self) -> dict[str, dict[str, int]]:
        return self.live

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
