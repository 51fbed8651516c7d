"""Every pair of a subscription's state and event, and an operator's suspension over it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.transitions import (
    Access,
    Effect,
    SubscriptionEvent,
    SubscriptionState,
    judge_subscription,
    subscription_access,
)

S, E = SubscriptionState, SubscriptionEvent
EVENTS = (
    *(E.TRIAL_STARTED, E.PAYMENT_RECEIVED, E.PAYMENT_FAILED, E.PAYMENT_REVERSED, E.PERIOD_ENDED),
    *(E.GRACE_ENDED, E.CANCEL_REQUESTED, E.CANCEL_WITHDRAWN, E.WRITTEN_OFF, E.OPERATOR_ENDED),
)
# Written out by hand: the state after, = the same, . ignored. Columns in the order of EVENTS.
PAIRS = {
    #              trial      received    failed  reversed  period    grace   cancel      withdrawn  off    operator
    S.NONE: "      trial      active      =       .         .         .       .           .          .      .",
    S.TRIAL: "     .          active      =       .         ended     .       =           .          .      ended",
    S.ACTIVE: "    .          =           =       unpaid    past_due  .       cancelling  .          .      ended",
    S.PAST_DUE: "  .          active      =       unpaid    .         unpaid  ended       .          .      ended",
    S.UNPAID: "    .          active      =       =         .         .       ended       .          ended  ended",
    S.CANCELLING: ".          =           =       ended     ended     .       =           active     .      ended",
    S.ENDED: "     .          active      =       .         .         .       .           .          .      .",
}


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("is_suspended", [False, True])
def test_every_pair_is_as_written(state: SubscriptionState, is_suspended: bool) -> None:
    for event, mark in zip(EVENTS, PAIRS[state].split(), strict=True):
        verdict = judge_subscription(state, event, is_suspended=is_suspended)
        assert verdict.is_suspended is is_suspended
        if mark in "=.":
            assert verdict.state is state
            assert verdict.effect is (Effect.UNCHANGED if mark == "=" else Effect.IGNORED)
            assert verdict.access is Access.NONE
        else:
            assert (verdict.state, verdict.effect) == (S(mark), Effect.CHANGED), (state, event)


def test_events_of_the_table_and_those_of_suspension_are_all() -> None:
    assert {*EVENTS, E.OPERATOR_SUSPENDED, E.OPERATOR_RESUMED} == {*E}


def test_access_by_state() -> None:
    assert {state for state in S if subscription_access(state)} == {S.TRIAL, S.ACTIVE, S.PAST_DUE, S.CANCELLING}
    assert not any(subscription_access(state, is_suspended=True) for state in S)


def test_unpaid_company_is_cut_off_after_the_grace_time_and_comes_back_with_its_payment() -> None:
    overdue = judge_subscription(S.ACTIVE, E.PERIOD_ENDED)
    assert overdue.access is Access.NONE
    cut = judge_subscription(overdue.state, E.GRACE_ENDED)
    assert cut.access is Access.REVERSE
    assert judge_subscription(cut.state, E.PAYMENT_RECEIVED).access is Access.GRANT


def test_suspended_company_that_pays_stays_out_until_it_is_resumed() -> None:
    suspended = judge_subscription(S.PAST_DUE, E.OPERATOR_SUSPENDED)
    assert (suspended.state, suspended.is_suspended, suspended.access) == (S.PAST_DUE, True, Access.REVERSE)
    paid = judge_subscription(suspended.state, E.PAYMENT_RECEIVED, is_suspended=True)
    assert (paid.state, paid.access) == (S.ACTIVE, Access.NONE)
    resumed = judge_subscription(paid.state, E.OPERATOR_RESUMED, is_suspended=True)
    assert (resumed.state, resumed.access) == (S.ACTIVE, Access.GRANT)


def test_resuming_a_company_whose_time_ran_out_gives_nothing_back() -> None:
    assert judge_subscription(S.UNPAID, E.OPERATOR_RESUMED, is_suspended=True).access is Access.NONE


def test_second_suspension_changes_nothing() -> None:
    verdict = judge_subscription(S.ACTIVE, E.OPERATOR_SUSPENDED, is_suspended=True)
    assert (verdict.effect, verdict.access) == (Effect.UNCHANGED, Access.NONE)


@given(st.lists(st.sampled_from([*E]), max_size=30))
def test_grants_and_reversals_add_up_to_the_access_of_the_state(events: list[SubscriptionEvent]) -> None:
    state, is_suspended, access = S.NONE, False, 0
    for event in events:
        verdict = judge_subscription(state, event, is_suspended=is_suspended)
        access += {Access.GRANT: 1, Access.REVERSE: -1, Access.NONE: 0}[verdict.access]
        state, is_suspended = verdict.state, verdict.is_suspended
        assert access == int(subscription_access(state, is_suspended=is_suspended))
