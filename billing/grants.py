"""Which time an invoice buys when it is paid. Room: billing. Pure: rows go in, nothing is read or written."""

from dataclasses import dataclass
from datetime import datetime

from billing.models import Invoice, Subscription
from billing.periods import Interval, local_day, next_period_end
from billing.transitions import SubscriptionState

# The period that follows joins the one that runs, or that is over for no longer than the grace.
_JOINED = frozenset({SubscriptionState.ACTIVE, SubscriptionState.PAST_DUE, SubscriptionState.CANCELLING})


@dataclass(frozen=True, slots=True)
class Period:
    """[starts_at, ends_at). ``anchor_day``: the subscription's from now on; None: as it was."""

    starts_at: datetime
    ends_at: datetime
    anchor_day: int | None = None


def period_of(invoice: Invoice, subscription: Subscription, now: datetime) -> Period | None:
    """The period that begins with a payment at ``now``; None: there is none left to be had for it.

    A renewal joins the period before. Whoever was cut off, or begins, gets a whole period from now: nobody pays for
    time in which nobody was let in.
    """
    if invoice.kind == Invoice.Kind.UPGRADE:
        return Period(now, invoice.period_end) if now < invoice.period_end else None
    is_joined = SubscriptionState(subscription.state) in _JOINED and now < invoice.period_end
    if invoice.kind == Invoice.Kind.RENEWAL and is_joined:
        return Period(invoice.period_start, invoice.period_end)
    anchor = local_day(now).day
    end = next_period_end(now, Interval(invoice.price.interval), anchor_day=anchor)
    return Period(now, end, anchor)
