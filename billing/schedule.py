"""When an attempt is asked for again, and when nothing more is expected of it. Room: billing.

Pure: sets two fields of the row in hand. Midtrans' notifications are retried for under six hours and then gone; what
they did not bring is found by these looks.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from billing.models import PaymentAttempt, Transaction
from billing.transitions import PaymentState, holds_access, is_awaited

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FIRST_LOOK = 5 * _MINUTE
# (age below which, interval): rarer as hope fades.
_AWAITED = ((2 * _HOUR, FIRST_LOOK), (_DAY, 30 * _MINUTE), (7 * _DAY, 3 * _HOUR))
_AWAITED_LATER = _DAY
# Looks after a payment, counted from it. A bank may take a transfer back within minutes.
_AFTER_TRANSFER = (5 * _MINUTE, 10 * _MINUTE)
_AFTER_PAYMENT = (_DAY, 7 * _DAY)
_AFTER_PAYMENT_LATER = 30 * _DAY
_REVERSIBLE = frozenset({"bank_transfer", "permata", "echannel", "cstore"})
# What has not begun when this is over does not begin any more.
_CHARGE_LIFE = 15 * _MINUTE
_PAGE_MARGIN = _HOUR
_PAGE_LIFE = 8 * _DAY
# A page on which one try has failed takes another one, except when it has expired.
_ENDS_THE_PAGE = frozenset({PaymentState.EXPIRED, PaymentState.REFUNDED, PaymentState.CHARGED_BACK})


def plan_next_poll(attempt: PaymentAttempt, rows: Sequence[Transaction], now: datetime) -> None:
    """Sets ``is_closed`` and ``next_poll_at``. ``rows``: all transactions of the attempt; its invoice is loaded."""
    states = {PaymentState(row.state) for row in rows}
    if any(holds_access(state) for state in states):
        moment = _after_payment(attempt, rows, now)
    elif any(is_awaited(state) for state in states if state is not PaymentState.CREATED):
        moment = now + _interval(now - attempt.created_at)
    elif states & _ENDS_THE_PAGE or now >= begins_until(attempt) or (states and attempt.by == attempt.By.MERCHANT):
        moment = None
    else:
        moment = now + _interval(now - attempt.created_at)
    attempt.next_poll_at, attempt.is_closed = moment, moment is None


def begins_until(attempt: PaymentAttempt) -> datetime:
    """Until when a payment can begin of which Midtrans knows nothing yet."""
    if attempt.by == attempt.By.MERCHANT:
        return attempt.created_at + _CHARGE_LIFE
    if attempt.page_expires_at is not None:
        return attempt.page_expires_at + _PAGE_MARGIN
    return attempt.created_at + _PAGE_LIFE


def _interval(age: timedelta) -> timedelta:
    return next((interval for limit, interval in _AWAITED if age < limit), _AWAITED_LATER)


def _after_payment(attempt: PaymentAttempt, rows: Sequence[Transaction], now: datetime) -> datetime | None:
    """None: nothing is expected any more, the time that was bought is over."""
    paid = [row for row in rows if holds_access(PaymentState(row.state))]
    since = attempt.invoice.paid_at or min(row.settled_at or row.created_at for row in paid)
    looks = [*_AFTER_PAYMENT]
    if any(row.payment_type in _REVERSIBLE for row in paid):
        looks = [*_AFTER_TRANSFER, *looks]
    until = max(attempt.invoice.period_end, since + _AFTER_PAYMENT_LATER)
    moment = next((since + look for look in looks if since + look > now), None)
    if moment is None:
        moment = now + _AFTER_PAYMENT_LATER
    # A captured card settles on the next day; until it does its money is open.
    is_open = any(row.state == PaymentState.CAPTURED for row in paid)
    return moment if moment <= until or is_open else None
