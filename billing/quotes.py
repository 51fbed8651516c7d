"""What a change of plan costs, and when it takes effect. Room: billing.

Pure: rows go in, nothing is written, nothing is asked of the database or of the clock. Prices include the tax.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum

from billing.models import Invoice, Price, Subscription
from billing.money import tax_inside, unused_value, upgrade_price
from billing.periods import Interval, local_day, next_period_end
from billing.transitions import SubscriptionState

# What has been paid for: (start, end), the running period and what is paid ahead.
Periods = Sequence[tuple[datetime, datetime]]
# A new period begins with the payment.
_WITHOUT_ACCESS = frozenset(
    {SubscriptionState.NONE, SubscriptionState.ENDED, SubscriptionState.TRIAL, SubscriptionState.UNPAID}
)


class Takes(Enum):
    """When a choice takes effect."""

    # Once the invoice is paid.
    ON_PAYMENT = "on_payment"
    # With the next period; nothing is to be paid before.
    AT_PERIOD_END = "at_period_end"
    # It is what the company has, or has agreed for the next period.
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Quote:
    """``total`` is to be paid now, 0 where nothing is: ``net + tax == total``, in rupiah. ``tax_rate`` in per cent.

    ``kind`` is the invoice's, None where none is written.
    """

    price: Price
    takes: Takes
    kind: Invoice.Kind | None
    net: int
    tax: int
    total: int
    tax_rate: Decimal
    # What is paid for; of a change at the end of the period, the period that begins then.
    period_start: datetime
    period_end: datetime

    @property
    def is_now(self) -> bool:
        """It takes effect with the payment; otherwise at the end of the period, or it is what the company has."""
        return self.takes is Takes.ON_PAYMENT


def quote(subscription: Subscription, price: Price, *, paid: Periods, now: datetime, tax_rate: Decimal) -> Quote:
    """``paid``: paid periods that are not over at ``now``; ``subscription.price.plan`` and ``price.plan`` are loaded.

    An upgrade of the same interval pays the difference for the days left; a change from monthly to yearly begins a new
    period and has the unused days taken off; everything else waits for the end of the period. Of an overdue
    subscription any price takes the place of the one that is owed.
    """
    state, current = SubscriptionState(subscription.state), subscription.price
    interval = Interval(price.interval)
    fresh_end = next_period_end(now, interval, anchor_day=local_day(now).day)

    def made(takes: Takes, kind: Invoice.Kind | None, total: int, start: datetime, until: datetime) -> Quote:
        taxed = tax_inside(total, tax_rate)
        return Quote(price, takes, kind, taxed.net, taxed.tax, taxed.total, tax_rate, start, until)

    if current is None or subscription.paid_until is None or state in _WITHOUT_ACCESS:
        return made(Takes.ON_PAYMENT, Invoice.Kind.FIRST, price.amount, now, fresh_end)
    end = subscription.paid_until
    if state is SubscriptionState.PAST_DUE:
        after = next_period_end(end, interval, anchor_day=subscription.anchor_day)
        return made(Takes.ON_PAYMENT, Invoice.Kind.RENEWAL, price.amount, end, after)

    on = local_day(now)
    # What begins and ends on one day has no day left.
    paid = [(start, until) for start, until in paid if local_day(until) > local_day(start)]
    rises = price.plan.rank > current.plan.rank
    if rises and price.interval == current.interval:
        total = sum(
            upgrade_price(
                old_price=current.amount,
                new_price=price.amount,
                period_start=local_day(start),
                period_end=local_day(until),
                on=on,
            )
            for start, until in paid
        )
        if total > 0:
            return made(Takes.ON_PAYMENT, Invoice.Kind.UPGRADE, total, now, end)
    elif price.plan.rank >= current.plan.rank and interval is Interval.YEARLY and price.interval != current.interval:
        # What is left of several periods exceeds the price of a year at times: then the year waits for their end.
        total = price.amount - sum(
            unused_value(current.amount, period_start=local_day(start), period_end=local_day(until), on=on)
            for start, until in paid
        )
        if total > 0:
            return made(Takes.ON_PAYMENT, Invoice.Kind.CHANGE, total, now, fresh_end)
    agreed = subscription.next_price_id or current.pk
    takes = Takes.NOTHING if price.pk == agreed else Takes.AT_PERIOD_END
    after = next_period_end(end, interval, anchor_day=subscription.anchor_day)
    return made(takes, None, 0, end, after)
