"""A terminal that says at connect which MT5 account it runs: ``?account=<login>``."""

import dataclasses

import pytest

from streaming.admission import AdmissionRefused
from tests.streaming.shell_cast import ALICE, BOB, Process, Tenants, token_of, upgrade


@pytest.fixture
def process(tenants: Tenants) -> Process:
    return Process(tenants)


async def test_account_that_is_named_counts_as_seen_from_the_start(process: Process) -> None:
    bob = await process.connect(query="stream=s1&account=1001")
    assert bob.connection.account == "1001"
    assert bob.connection.session.accounts == {"1001"}
    assert process.fleet.live._row(bob.connection).accounts == ["1001"]


async def test_terminal_that_names_none_is_let_in_without(process: Process) -> None:
    for query in ("stream=s1", "stream=s2&account="):
        bob = await process.connect(query=query)
        assert bob.connection.account == "" and bob.connection.session.accounts == set()


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
