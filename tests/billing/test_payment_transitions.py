"""Every pair of states of a payment, and what no order of arrival may change."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.midtrans.payload import parse_transaction
from billing.transitions import (
    Access,
    Effect,
    Money,
    PaymentState,
    PaymentVerdict,
    holds_access,
    is_awaited,
    is_final,
    judge_payment,
    money_of,
    reported_state,
)
from tests.billing import samples

P = PaymentState
# How Midtrans tells each state: transaction_status, fraud_status, status_code.
TOLD = {
    P.PENDING: ("pending", None, "201"),
    P.AUTHORIZED: ("authorize", "accept", "200"),
    P.CHALLENGED: ("capture", "challenge", "201"),
    P.CAPTURED: ("capture", "accept", "200"),
    P.SETTLED: ("settlement", None, "200"),
    P.DENIED: ("deny", "accept", "202"),
    P.CANCELLED: ("cancel", "accept", "200"),
    P.EXPIRED: ("expire", None, "407"),
    P.FAILED: ("failure", None, "202"),
    P.REFUNDED: ("refund", "accept", "200"),
    P.PARTIALLY_REFUNDED: ("partial_refund", "accept", "200"),
    P.CHARGED_BACK: ("chargeback", "accept", "200"),
    P.PARTIALLY_CHARGED_BACK: ("partial_chargeback", "accept", "200"),
}
# Written out by hand: c is a change, = the same, l comes late and is ignored, x is ignored and needs a look.
# Columns in the order of TOLD.
PAIRS = {
    # .                       pen aut cha cap set den can exp fai ref par cb  pcb
    P.CREATED: "              c   c   c   c   c   c   c   c   c   c   c   c   c",
    P.PENDING: "              =   c   c   c   c   c   c   c   c   c   c   c   c",
    P.AUTHORIZED: "           l   =   c   c   c   c   c   c   c   c   c   c   c",
    P.CHALLENGED: "           l   l   =   c   c   c   c   c   c   c   c   c   c",
    P.CAPTURED: "             l   l   l   =   c   c   c   x   x   c   c   c   c",
    P.SETTLED: "              l   l   l   l   =   c   x   x   x   c   c   c   c",
    P.DENIED: "               l   l   l   l   l   =   x   x   x   x   x   x   x",
    P.CANCELLED: "            l   l   l   l   x   x   =   x   x   x   x   x   x",
    P.EXPIRED: "              l   l   l   x   x   x   x   =   x   x   x   x   x",
    P.FAILED: "               l   l   l   x   x   x   x   x   =   x   x   x   x",
    P.REFUNDED: "             l   l   l   l   l   x   x   x   x   =   l   x   l",
    P.PARTIALLY_REFUNDED: "   l   l   l   l   l   x   x   x   x   c   =   c   c",
    P.CHARGED_BACK: "         l   l   l   l   l   x   x   x   x   x   l   =   l",
    P.PARTIALLY_CHARGED_BACK: "l  l   l   l   l   x   x   x   x   c   l   c   =",
}
# Ways through the states that Midtrans documents, from beginning to end.
HISTORIES = (
    (P.PENDING, P.SETTLED),
    (P.PENDING, P.EXPIRED),
    (P.PENDING, P.CANCELLED),
    (P.PENDING, P.DENIED),
    (P.PENDING, P.SETTLED, P.DENIED),
    (P.PENDING, P.CAPTURED, P.SETTLED, P.PARTIALLY_REFUNDED, P.REFUNDED),
    (P.PENDING, P.CAPTURED, P.CANCELLED),
    (P.PENDING, P.CHALLENGED, P.CAPTURED, P.SETTLED, P.CHARGED_BACK),
    (P.PENDING, P.CHALLENGED, P.DENIED),
    (P.AUTHORIZED, P.CAPTURED, P.SETTLED, P.PARTIALLY_CHARGED_BACK, P.CHARGED_BACK),
    (P.PENDING, P.SETTLED, P.PARTIALLY_REFUNDED, P.PARTIALLY_CHARGED_BACK),
)


def judge(previous: PaymentState, told: PaymentState) -> PaymentVerdict:
    status, fraud, code = TOLD[told]
    return judge_payment(previous, transaction_status=status, fraud_status=fraud, status_code=code)


def run(reports: list[PaymentState]) -> tuple[PaymentState, int]:
    """The final state, and the access given so far: grants less reversals."""
    state, access = P.CREATED, 0
    for report in reports:
        verdict = judge(state, report)
        access += {Access.GRANT: 1, Access.REVERSE: -1, Access.NONE: 0}[verdict.access]
        assert access in (0, 1), "granted twice, or reversed without a grant"
        state = verdict.state
    return state, access


@pytest.mark.parametrize("previous", P)
def test_every_pair_is_as_written(previous: PaymentState) -> None:
    marks = PAIRS[previous].split()
    assert len(marks) == len(TOLD)
    for told, mark in zip(TOLD, marks, strict=True):
        verdict = judge(previous, told)
        expected = {"c": Effect.CHANGED, "=": Effect.UNCHANGED, "l": Effect.IGNORED, "x": Effect.IGNORED}[mark]
        assert verdict.effect is expected, (previous, told)
        assert verdict.state is (told if mark == "c" else previous)
        if mark in "lx":
            assert verdict.needs_review is (mark == "x"), (previous, told)
            assert verdict.access is Access.NONE


def test_every_state_can_be_told_except_our_own() -> None:
    assert {*TOLD} == {*P} - {P.CREATED}
    for state, (status, fraud, code) in TOLD.items():
        assert reported_state(status, fraud, code) is state


@pytest.mark.parametrize(
    ("status", "fraud", "code"),
    [
        ("settlement", "accept", "201"),
        ("settlement", None, "202"),
        ("settlement", "challenge", "200"),
        ("settlement", "deny", "200"),
        ("capture", "accept", "201"),
        ("capture", None, "201"),
        ("capture", "maybe", "200"),
        ("paid", "accept", "200"),
        ("", None, "200"),
    ],
)
def test_contradicting_report_is_ignored_and_looked_at(status: str, fraud: str | None, code: str) -> None:
    assert reported_state(status, fraud, code) is None
    for previous in P:
        verdict = judge_payment(previous, transaction_status=status, fraud_status=fraud, status_code=code)
        assert verdict.state is previous
        assert verdict.effect is Effect.IGNORED
        assert verdict.access is Access.NONE
        assert verdict.needs_review


def test_status_is_read_in_either_case() -> None:
    assert reported_state("PENDING", None, "200") is P.PENDING
    assert reported_state("Settlement", "ACCEPT", "200") is P.SETTLED


def test_only_captured_and_settled_money_counts_as_paid() -> None:
    assert {state for state in P if money_of(state) is Money.PAID} == {P.CAPTURED, P.SETTLED}
    assert {state for state in P if money_of(state) is Money.PARTLY} == {
        P.PARTIALLY_REFUNDED,
        P.PARTIALLY_CHARGED_BACK,
    }
    assert {state for state in P if holds_access(state)} == {
        *(P.CAPTURED, P.SETTLED, P.PARTIALLY_REFUNDED, P.PARTIALLY_CHARGED_BACK)
    }


def test_final_states_and_those_to_be_polled() -> None:
    final = {P.DENIED, P.CANCELLED, P.EXPIRED, P.FAILED, P.REFUNDED, P.CHARGED_BACK}
    assert {state for state in P if is_final(state)} == final
    assert {state for state in P if is_awaited(state)} == {P.CREATED, P.PENDING, P.AUTHORIZED, P.CHALLENGED}


def test_reversal_of_a_settlement_takes_access_back() -> None:
    verdict = judge(P.SETTLED, P.DENIED)
    assert (verdict.access, verdict.money, verdict.is_final) == (Access.REVERSE, Money.UNPAID, True)


def test_partial_refund_leaves_access_and_partial_chargeback_asks_for_a_look() -> None:
    assert judge(P.SETTLED, P.PARTIALLY_REFUNDED).access is Access.NONE
    verdict = judge(P.SETTLED, P.PARTIALLY_CHARGED_BACK)
    assert (verdict.access, verdict.needs_review) == (Access.NONE, True)


@given(st.sampled_from(HISTORIES), st.data())
def test_order_of_arrival_does_not_change_the_end(history: tuple[PaymentState, ...], data: st.DataObject) -> None:
    """All of a true history arrives, in any order and any number of times."""
    extra = data.draw(st.lists(st.sampled_from(history), max_size=6))
    arrivals = data.draw(st.permutations([*history, *extra]))
    assert run(list(arrivals)) == run(list(history))
    assert run(list(arrivals))[0] is history[-1]


@given(st.sampled_from(HISTORIES), st.data())
def test_each_trigger_reads_the_truth_of_its_moment(history: tuple[PaymentState, ...], data: st.DataObject) -> None:
    """Notifications are lost, late and doubled; each makes us read the state of that moment, the last one the end."""
    moments = sorted(data.draw(st.lists(st.integers(0, len(history) - 1), max_size=8)))
    seen = [history[moment] for moment in moments] + [history[-1]]
    state, access = run(seen)
    assert state is history[-1]
    assert access == int(holds_access(history[-1]))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*{told[0] for told in TOLD.values()}, "unheard_of"]),
            st.sampled_from([None, "accept", "challenge", "deny", "other"]),
            st.sampled_from(["200", "201", "202", "407", "500"]),
        ),
        max_size=12,
    )
)
def test_nothing_is_paid_without_settlement_or_accepted_capture(reports: list[tuple[str, str | None, str]]) -> None:
    state, proven, final = P.CREATED, False, False
    for status, fraud, code in reports:
        verdict = judge_payment(state, transaction_status=status, fraud_status=fraud, status_code=code)
        proven |= status in ("capture", "settlement") and fraud in (None, "accept") and code == "200"
        assert verdict.money is not Money.PAID or proven
        assert not final or verdict.state is state, "a final state was left"
        state, final = verdict.state, verdict.is_final


def test_documented_histories_are_steps_of_the_table() -> None:
    for history in HISTORIES:
        for before, after in pairwise((P.CREATED, *history)):
            assert judge(before, after).effect is Effect.CHANGED


@pytest.mark.parametrize("entry", samples.GENUINE, ids=lambda entry: entry["file"])
def test_sample_counts_as_its_manifest_says(entry: dict[str, object]) -> None:
    status = parse_transaction(samples.read(str(entry["file"])))
    verdict = judge_payment(
        P.CREATED,
        transaction_status=status.transaction_status,
        fraud_status=status.fraud_status,
        status_code=status.status_code,
    )
    expected = {True: Money.PAID, "partly": Money.PARTLY}.get(entry["counts_as_paid"])
    if expected is None:
        assert entry["counts_as_paid"] is False
        assert verdict.money in (Money.UNPAID, Money.RETURNED)
    else:
        assert verdict.money is expected


def test_settlement_with_a_pending_code_is_not_paid() -> None:
    status = parse_transaction(samples.read("negative/tampered_status_signature_still_valid_201.json"))
    assert reported_state(status.transaction_status, status.fraud_status, status.status_code) is None


def test_settlement_replayed_after_a_refund_opens_nothing() -> None:
    status = parse_transaction(samples.read("negative/refund_replayed_as_settlement_signature_still_valid.json"))
    verdict = judge_payment(
        P.REFUNDED,
        transaction_status=status.transaction_status,
        fraud_status=status.fraud_status,
        status_code=status.status_code,
    )
    assert (verdict.state, verdict.effect, verdict.access) == (P.REFUNDED, Effect.IGNORED, Access.NONE)
