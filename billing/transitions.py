"""What becomes of a payment and of a subscription when something is told of them. Room: billing.

Pure: no Django, no clock. These tables are the one place where it stands; whatever they do not name is stored and
ignored. The same rules serve the webhook, the poller and an operator's replay.

A payment here is one transaction id. Its state comes from ``GET status``: the signature of a notification does not
cover the state. Answers may be applied twice, late or with some left out, so a payment may skip states it would have
gone through (``pending`` to ``refund``), and can never go back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from types import MappingProxyType

# --- Payments ---------------------------------------------------------------------------------------------------------


class PaymentState(StrEnum):
    # Ours: nothing is known at Midtrans yet, as before the customer has chosen a method.
    CREATED = "created"
    PENDING = "pending"
    AUTHORIZED = "authorized"
    # Captured, and waiting for somebody to accept or refuse it as fraud.
    CHALLENGED = "challenged"
    CAPTURED = "captured"
    SETTLED = "settled"
    DENIED = "denied"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"
    REFUNDED = "refunded"
    PARTIALLY_REFUNDED = "partially_refunded"
    CHARGED_BACK = "charged_back"
    PARTIALLY_CHARGED_BACK = "partially_charged_back"


class Money(Enum):
    UNPAID = "unpaid"
    PAID = "paid"
    # A part of what was paid went back.
    PARTLY = "partly"
    # All of what was paid went back.
    RETURNED = "returned"


class Access(Enum):
    """What is to be done about access, compared with before."""

    NONE = "none"
    GRANT = "grant"
    REVERSE = "reverse"


class Effect(Enum):
    CHANGED = "changed"
    # The same again; details such as the refunded amount or the bank's confirmation may be new.
    UNCHANGED = "unchanged"
    # Not in the table: stored and ignored.
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class _Facts:
    money: Money
    holds_access: bool
    # States it may change to, as documented by Midtrans; what follows from those is added below.
    next: frozenset[PaymentState]


def _facts(money: Money, holds_access: bool, *following: PaymentState) -> _Facts:
    return _Facts(money, holds_access, frozenset(following))


_P = PaymentState
_PAYMENTS: Mapping[PaymentState, _Facts] = MappingProxyType(
    {
        _P.CREATED: _facts(
            Money.UNPAID, False, _P.PENDING, _P.AUTHORIZED, _P.CHALLENGED, _P.CAPTURED, _P.SETTLED, _P.FAILED
        ),
        _P.PENDING: _facts(
            Money.UNPAID,
            False,
            *(_P.AUTHORIZED, _P.CHALLENGED, _P.CAPTURED, _P.SETTLED),
            *(_P.DENIED, _P.CANCELLED, _P.EXPIRED, _P.FAILED),
        ),
        _P.AUTHORIZED: _facts(
            Money.UNPAID, False, _P.CHALLENGED, _P.CAPTURED, _P.DENIED, _P.CANCELLED, _P.EXPIRED, _P.FAILED
        ),
        _P.CHALLENGED: _facts(
            Money.UNPAID, False, _P.CAPTURED, _P.SETTLED, _P.DENIED, _P.CANCELLED, _P.EXPIRED, _P.FAILED
        ),
        _P.CAPTURED: _facts(Money.PAID, True, _P.SETTLED, _P.CANCELLED),
        # DENIED: the reversal within minutes that Permata, Mandiri Bill and Indomaret know.
        _P.SETTLED: _facts(
            Money.PAID,
            True,
            *(_P.REFUNDED, _P.PARTIALLY_REFUNDED, _P.CHARGED_BACK, _P.PARTIALLY_CHARGED_BACK, _P.DENIED),
        ),
        _P.DENIED: _facts(Money.UNPAID, False),
        _P.CANCELLED: _facts(Money.UNPAID, False),
        _P.EXPIRED: _facts(Money.UNPAID, False),
        _P.FAILED: _facts(Money.UNPAID, False),
        _P.REFUNDED: _facts(Money.RETURNED, False),
        # Midtrans names only the refund of the rest; a bank can take back what is left all the same.
        _P.PARTIALLY_REFUNDED: _facts(Money.PARTLY, True, _P.REFUNDED, _P.CHARGED_BACK, _P.PARTIALLY_CHARGED_BACK),
        _P.CHARGED_BACK: _facts(Money.RETURNED, False),
        _P.PARTIALLY_CHARGED_BACK: _facts(Money.PARTLY, True, _P.CHARGED_BACK, _P.REFUNDED),
    }
)


def _later(state: PaymentState) -> frozenset[PaymentState]:
    """All states that can follow, with those between left out."""
    found: set[PaymentState] = set()
    waiting = [state]
    while waiting:
        fresh = _PAYMENTS[waiting.pop()].next - found
        found |= fresh
        waiting += fresh
    return frozenset(found)


_LATER: Mapping[PaymentState, frozenset[PaymentState]] = MappingProxyType({state: _later(state) for state in _P})

# transaction_status of Midtrans where it alone decides; capture and settlement depend on fraud_status and status_code.
_TOLD: Mapping[str, PaymentState] = MappingProxyType(
    {
        "pending": _P.PENDING,
        "authorize": _P.AUTHORIZED,
        "deny": _P.DENIED,
        "cancel": _P.CANCELLED,
        "expire": _P.EXPIRED,
        "failure": _P.FAILED,
        "refund": _P.REFUNDED,
        "partial_refund": _P.PARTIALLY_REFUNDED,
        "chargeback": _P.CHARGED_BACK,
        "partial_chargeback": _P.PARTIALLY_CHARGED_BACK,
    }
)
# (transaction_status, fraud_status, whether status_code is 200); "" is an absent fraud_status.
_TOLD_WITH_FRAUD: Mapping[tuple[str, str, bool], PaymentState] = MappingProxyType(
    {
        ("capture", "", True): _P.CAPTURED,
        ("capture", "accept", True): _P.CAPTURED,
        ("capture", "challenge", True): _P.CHALLENGED,
        ("capture", "challenge", False): _P.CHALLENGED,
        ("capture", "deny", True): _P.DENIED,
        ("capture", "deny", False): _P.DENIED,
        ("settlement", "", True): _P.SETTLED,
        ("settlement", "accept", True): _P.SETTLED,
    }
)


@dataclass(frozen=True, slots=True)
class PaymentVerdict:
    state: PaymentState
    effect: Effect
    money: Money
    access: Access
    # Nothing can follow.
    is_final: bool
    # Somebody should look: what was told can neither follow nor have come before, or is unknown.
    needs_review: bool


def reported_state(transaction_status: str, fraud_status: str | None, status_code: str) -> PaymentState | None:
    """The state that Midtrans' three fields mean together; None when they contradict each other or are unknown."""
    status = transaction_status.lower()
    if status in _TOLD:
        return _TOLD[status]
    return _TOLD_WITH_FRAUD.get((status, (fraud_status or "").lower(), status_code == "200"))


def judge_payment(
    previous: PaymentState, *, transaction_status: str, fraud_status: str | None, status_code: str
) -> PaymentVerdict:
    """What a transaction in ``previous`` becomes when Midtrans tells these three fields; raises nothing."""
    told = reported_state(transaction_status, fraud_status, status_code)
    if told == previous:
        return _payment_verdict(previous, previous, Effect.UNCHANGED)
    if told is not None and told in _LATER[previous]:
        # A bank that takes back a part does it against us: somebody decides what that means.
        return _payment_verdict(previous, told, Effect.CHANGED, needs_review=told is _P.PARTIALLY_CHARGED_BACK)
    is_late = told is not None and previous in _LATER[told]
    return _payment_verdict(previous, previous, Effect.IGNORED, needs_review=not is_late)


def money_of(state: PaymentState) -> Money:
    return _PAYMENTS[state].money


def holds_access(state: PaymentState) -> bool:
    """Whether a payment in this state pays for access."""
    return _PAYMENTS[state].holds_access


def is_final(state: PaymentState) -> bool:
    return not _PAYMENTS[state].next


def is_awaited(state: PaymentState) -> bool:
    """Whether the outcome is still open, so that a poll should ask for it."""
    return _PAYMENTS[state].money is Money.UNPAID and not is_final(state)


def _payment_verdict(
    previous: PaymentState, state: PaymentState, effect: Effect, *, needs_review: bool = False
) -> PaymentVerdict:
    facts = _PAYMENTS[state]
    access = _access_change(_PAYMENTS[previous].holds_access, facts.holds_access)
    return PaymentVerdict(state, effect, facts.money, access, not facts.next, needs_review)


def _access_change(before: bool, after: bool) -> Access:
    if before == after:
        return Access.NONE
    return Access.GRANT if after else Access.REVERSE


# --- Subscriptions ----------------------------------------------------------------------------------------------------


class SubscriptionState(StrEnum):
    """Of a paid plan; a company without access by it has what the free plan gives, unless it is cut off for a debt."""

    NONE = "none"
    TRIAL = "trial"
    ACTIVE = "active"
    # The paid time is over, the grace time is not.
    PAST_DUE = "past_due"
    # Cut off.
    UNPAID = "unpaid"
    # Active to the end of the paid time, and not renewed then.
    CANCELLING = "cancelling"
    ENDED = "ended"


class SubscriptionEvent(StrEnum):
    TRIAL_STARTED = "trial_started"
    PAYMENT_RECEIVED = "payment_received"
    # An attempt, whatever it was for; the retry calendar is the business of dunning.
    PAYMENT_FAILED = "payment_failed"
    # The money of the running period went back: refund, chargeback, reversal.
    PAYMENT_REVERSED = "payment_reversed"
    PERIOD_ENDED = "period_ended"
    GRACE_ENDED = "grace_ended"
    CANCEL_REQUESTED = "cancel_requested"
    CANCEL_WITHDRAWN = "cancel_withdrawn"
    # Unpaid for longer than is waited for.
    WRITTEN_OFF = "written_off"
    OPERATOR_ENDED = "operator_ended"
    OPERATOR_SUSPENDED = "operator_suspended"
    OPERATOR_RESUMED = "operator_resumed"


_S, _E = SubscriptionState, SubscriptionEvent
_WITH_ACCESS = frozenset({_S.TRIAL, _S.ACTIVE, _S.PAST_DUE, _S.CANCELLING})
# A pair that leads to the same state is known and changes nothing but dates; a pair that is missing is ignored.
_SUBSCRIPTIONS: Mapping[tuple[SubscriptionState, SubscriptionEvent], SubscriptionState] = MappingProxyType(
    {
        (_S.NONE, _E.TRIAL_STARTED): _S.TRIAL,
        (_S.NONE, _E.PAYMENT_RECEIVED): _S.ACTIVE,
        (_S.NONE, _E.PAYMENT_FAILED): _S.NONE,
        (_S.TRIAL, _E.PAYMENT_RECEIVED): _S.ACTIVE,
        (_S.TRIAL, _E.PAYMENT_FAILED): _S.TRIAL,
        (_S.TRIAL, _E.PERIOD_ENDED): _S.ENDED,
        # A trial ends by itself.
        (_S.TRIAL, _E.CANCEL_REQUESTED): _S.TRIAL,
        (_S.TRIAL, _E.OPERATOR_ENDED): _S.ENDED,
        (_S.ACTIVE, _E.PAYMENT_RECEIVED): _S.ACTIVE,
        (_S.ACTIVE, _E.PAYMENT_FAILED): _S.ACTIVE,
        (_S.ACTIVE, _E.PAYMENT_REVERSED): _S.UNPAID,
        (_S.ACTIVE, _E.PERIOD_ENDED): _S.PAST_DUE,
        (_S.ACTIVE, _E.CANCEL_REQUESTED): _S.CANCELLING,
        (_S.ACTIVE, _E.OPERATOR_ENDED): _S.ENDED,
        (_S.PAST_DUE, _E.PAYMENT_RECEIVED): _S.ACTIVE,
        (_S.PAST_DUE, _E.PAYMENT_FAILED): _S.PAST_DUE,
        (_S.PAST_DUE, _E.PAYMENT_REVERSED): _S.UNPAID,
        (_S.PAST_DUE, _E.GRACE_ENDED): _S.UNPAID,
        (_S.PAST_DUE, _E.CANCEL_REQUESTED): _S.ENDED,
        (_S.PAST_DUE, _E.OPERATOR_ENDED): _S.ENDED,
        (_S.UNPAID, _E.PAYMENT_RECEIVED): _S.ACTIVE,
        (_S.UNPAID, _E.PAYMENT_FAILED): _S.UNPAID,
        (_S.UNPAID, _E.PAYMENT_REVERSED): _S.UNPAID,
        (_S.UNPAID, _E.CANCEL_REQUESTED): _S.ENDED,
        (_S.UNPAID, _E.WRITTEN_OFF): _S.ENDED,
        (_S.UNPAID, _E.OPERATOR_ENDED): _S.ENDED,
        # A charge that was under way: more time is paid, the wish to leave stands.
        (_S.CANCELLING, _E.PAYMENT_RECEIVED): _S.CANCELLING,
        (_S.CANCELLING, _E.PAYMENT_FAILED): _S.CANCELLING,
        (_S.CANCELLING, _E.PAYMENT_REVERSED): _S.ENDED,
        (_S.CANCELLING, _E.PERIOD_ENDED): _S.ENDED,
        (_S.CANCELLING, _E.CANCEL_REQUESTED): _S.CANCELLING,
        (_S.CANCELLING, _E.CANCEL_WITHDRAWN): _S.ACTIVE,
        (_S.CANCELLING, _E.OPERATOR_ENDED): _S.ENDED,
        # A late payment of an open invoice.
        (_S.ENDED, _E.PAYMENT_RECEIVED): _S.ACTIVE,
        (_S.ENDED, _E.PAYMENT_FAILED): _S.ENDED,
    }
)


@dataclass(frozen=True, slots=True)
class SubscriptionVerdict:
    state: SubscriptionState
    is_suspended: bool
    effect: Effect
    access: Access


def judge_subscription(
    previous: SubscriptionState, event: SubscriptionEvent, *, is_suspended: bool = False
) -> SubscriptionVerdict:
    """What becomes of a subscription; raises nothing.

    An operator's suspension lies over the state: periods run on and payments count below it, access comes back at its
    end if the state then gives it.
    """
    if event in (_E.OPERATOR_SUSPENDED, _E.OPERATOR_RESUMED):
        after = event is _E.OPERATOR_SUSPENDED
        effect = Effect.UNCHANGED if after == is_suspended else Effect.CHANGED
        access = _access_change(
            subscription_access(previous, is_suspended=is_suspended), subscription_access(previous, is_suspended=after)
        )
        return SubscriptionVerdict(previous, after, effect, access)
    state = _SUBSCRIPTIONS.get((previous, event))
    if state is None:
        return SubscriptionVerdict(previous, is_suspended, Effect.IGNORED, Access.NONE)
    access = _access_change(
        subscription_access(previous, is_suspended=is_suspended), subscription_access(state, is_suspended=is_suspended)
    )
    effect = Effect.UNCHANGED if state is previous else Effect.CHANGED
    return SubscriptionVerdict(state, is_suspended, effect, access)


def subscription_access(state: SubscriptionState, *, is_suspended: bool = False) -> bool:
    """Whether the plan's limits and features are to be given."""
    return state in _WITH_ACCESS and not is_suspended
