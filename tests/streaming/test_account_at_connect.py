"""A terminal that says at connect which MT5 account it runs: ``?account=<login>``."""

import dataclasses
import math

import pytest

from proto.gateway.v1 import control_pb2
from streaming.admission import AdmissionRefused
from tests.streaming.core.cast import ticks
from tests.streaming.shell_cast import ALICE, BOB, Process, Tenants, token_of, upgrade


@pytest.fixture
def process(tenants: Tenants) -> Process:
    return Process(tenants)


async def test_account_that_is_named_counts_as_seen_from_the_start(process: Process) -> None:
    bob = await process.connect(query="stream=s1&account=1001")
    assert bob.connection.account == "1001"
    assert bob.connection.session.accounts == {"1001"}
    assert process.fleet.live._row(bob.connection).accounts == ["1001"]


@pytest.mark.parametrize("query", ["stream=s1", "stream=s1&account="])
@pytest.mark.parametrize(
    ("accounts", "meant"), [({"1001"}, {"1001"}), ({"1001", "1002"}, set()), (set(), set())], ids=["one", "two", "none"]
)
async def test_terminal_that_names_none_is_let_in_for_the_only_one_there_is(
    process: Process, tenants: Tenants, query: str, accounts: set[str], meant: set[str]
) -> None:
    tenants.change("bob", accounts=frozenset(accounts))
    bob = await process.connect(query=query)
    assert (bob.connection.account, bob.connection.session.accounts) == ("", meant)
    bob.send(payload=ticks(account=""))
    assert [nack.code for nack in bob.heard("Nack")] == ([] if meant else ["account_unknown"])


# --- A key that is bound to one account -------------------------------------------------------------------------------


@pytest.fixture
def two(tenants: Tenants) -> dict[str, float]:
    """Bob has two accounts and a key."""
    keys = {"7": math.inf, "8": math.inf}
    tenants.change("bob", accounts=frozenset({"1001", "1002"}), api_keys=keys, connection_limit=5)
    return keys


@pytest.mark.parametrize("query", ["stream=s1", "stream=s1&account=1002", "stream=s1&account="])
async def test_bound_key_is_all_that_a_terminal_needs(
    process: Process, tenants: Tenants, two: dict[str, float], query: str
) -> None:
    bob = await process.connect(token_of(api_key="7", account="1002"), query=query)
    assert (bob.connection.account, bob.connection.session.accounts) == ("1002", {"1002"})
    assert process.fleet.live._row(bob.connection).accounts == ["1002"]
    # The client is told of no other either, now and after a change.
    tenants.change("bob", message_rate_limit=20.0)
    await process.poll()
    told = [bob.heard("Welcome")[0].policy, *bob.heard("Policy")]
    assert [list(policy.accounts) for policy in told] == [["1002"], ["1002"]]
    bob.send(payload=ticks(account=""), sequence=1)
    bob.send(payload=ticks(account="1001"), sequence=2)
    assert [(nack.sequence, nack.code) for nack in bob.heard("Nack")] == [(2, "account_unknown")]


async def test_bound_key_opens_no_connection_for_another_account(process: Process, two: dict[str, float]) -> None:
    for account in ("1001", "9999"):
        answer = await process.ask(upgrade(token_of(api_key="7", account="1002"), query=f"account={account}"))
        assert (answer.status, answer.body["code"]) == (403, "account_not_allowed")
        assert "bound to MT5 account 1002" in answer.body["detail"]
    assert process.runtime.registry.held_by_user("bob") == 0


async def test_bound_key_opens_nothing_once_its_account_is_gone(
    process: Process, tenants: Tenants, two: dict[str, float]
) -> None:
    bob = await process.connect(token_of(api_key="7", account="1002"))
    tenants.change("bob", accounts=frozenset({"1001"}))
    await process.poll()
    assert bob.close_code == 4506
    answer = await process.ask(upgrade(token_of(api_key="7", account="1002")))
    assert (answer.status, answer.body["code"]) == (403, "account_not_allowed")


@pytest.mark.parametrize(("account", "is_taken"), [("1002", True), ("", True), ("1001", False)])
async def test_refresh_takes_no_token_that_is_bound_to_another_account(
    process: Process, two: dict[str, float], account: str, is_taken: bool
) -> None:
    bob = await process.connect(token_of(api_key="7", account="1002"))
    bob.send("gateway.refresh", control_pb2.Refresh(token=token_of(api_key="8", account=account)))
    assert [nack.code for nack in bob.heard("Nack")] == ([] if is_taken else ["token_invalid"])
    assert bob.close_code == 0


@pytest.mark.parametrize("account", ["1002", "10011", "100", "-1", "x" * 500, "%00"])
async def test_account_that_is_not_the_users_is_refused_before_accept(process: Process, account: str) -> None:
    answer = await process.ask(upgrade(token_of(), query=f"account={account}"))
    assert (answer.status, answer.body["code"]) == (403, "account_not_allowed")
    assert "admin" in answer.body["detail"] and account not in answer.body["detail"]
    # The place that was taken for the moment is free again.
    assert process.runtime.registry.held_by_user("bob") == process.runtime.registry.held_by_company("alpha") == 0


async def test_account_of_a_colleague_answers_as_one_that_does_not_exist(process: Process, tenants: Tenants) -> None:
    tenants.users["alice"] = dataclasses.replace(ALICE, accounts=frozenset({"2002"}))
    answers = [await process.ask(upgrade(token_of(), query=f"account={one}")) for one in ("2002", "9999")]
    assert answers[0].body == answers[1].body and answers[0].status == answers[1].status == 403


async def test_account_that_was_added_a_moment_ago_is_let_in(process: Process, tenants: Tenants) -> None:
    await process.connect(query="stream=s1")
    tenants.change("bob", accounts=BOB.accounts | {"1002"})
    late = await process.connect(query="stream=s2&account=1002")
    assert late.connection.session.accounts == {"1002"}
    assert "1002" in late.connection.session.policy.accounts


async def test_unknown_account_asks_the_database_once_a_connect_and_within_the_users_rate(tenants: Tenants) -> None:
    process = Process(tenants, user_rate_limit=1.0)
    await process.connect(query="stream=s1&account=1001")
    visits, codes = len(tenants.visits), []
    for _ in range(20):
        with pytest.raises(AdmissionRefused) as refused:
            await process.connect(query="account=1002")
        codes.append(refused.value.code)
    assert codes == ["account_not_allowed"] * 9 + ["connect_rate"] * 11
    assert len(tenants.visits) - visits == 9


async def test_unknown_account_is_answered_with_503_while_the_database_is_away(
    process: Process, tenants: Tenants
) -> None:
    await process.connect(query="stream=s1")
    tenants.is_down = True
    with pytest.raises(AdmissionRefused) as refused:
        await process.connect(query="stream=s2&account=1002")
    assert (refused.value.status, refused.value.code) == (503, "identity_unavailable")
    # What is known goes on.
    await process.connect(query="stream=s2&account=1001")


async def test_user_who_was_disabled_meanwhile_is_refused_for_that(process: Process, tenants: Tenants) -> None:
    await process.connect(query="stream=s1")
    tenants.change("bob", refusal="user_disabled")
    with pytest.raises(AdmissionRefused) as refused:
        await process.connect(query="stream=s2&account=1002")
    assert (refused.value.status, refused.value.code) == (403, "user_disabled")


async def test_connection_ends_when_its_account_is_gone_and_others_live_on(process: Process, tenants: Tenants) -> None:
    tenants.change("bob", accounts=frozenset({"1001", "1002"}), connection_limit=3)
    named = await process.connect(query="stream=s1&account=1001")
    beside = await process.connect(query="stream=s2&account=1002")
    unnamed = await process.connect(query="stream=s3")
    tenants.change("bob", accounts=frozenset({"1002"}))
    await process.poll()
    assert (named.close_code, beside.close_code, unnamed.close_code) == (4506, 0, 0)
    [told] = named.heard("Disconnect")
    assert (told.code, told.reconnect) == (4506, False)
    assert [policy.accounts for policy in unnamed.heard("Policy")] == [["1002"]]


async def test_disabled_user_is_told_that_and_not_of_the_account(process: Process, tenants: Tenants) -> None:
    named = await process.connect(query="stream=s1&account=1001")
    tenants.change("bob", accounts=frozenset(), refusal="user_disabled")
    await process.poll()
    assert named.close_code == 4504
