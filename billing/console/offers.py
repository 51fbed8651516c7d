"""What is sold, beside what a company has: limits, prices, and what a smaller plan would take away. Room: billing."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from billing.console.wording import interval_name, per_interval
from billing.models import Plan, Price, Subscription
from billing.money import rupiah
from billing.periods import Interval
from tenants.pages import Place

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class OfferedPrice:
    """``note``: what is saved by it, or that it is the company's own. ``can_choose``: it would change something."""

    price: Price
    text: str
    interval: str
    note: str
    is_own: bool
    can_choose: bool


@dataclass(frozen=True, slots=True)
class Offer:
    plan: Plan
    is_own: bool
    prices: list[OfferedPrice]
    limits: list[tuple[str, str]]


def offers(company: Any, subscription: Subscription | None) -> list[Offer]:
    """The plans that are offered, the smallest first, and the company's own one if it is no longer among them."""
    plans = Plan.objects.select_related("tier").prefetch_related("prices")
    own = company.tier_id
    return [_offer(plan, subscription, own) for plan in plans if plan.is_public or plan.tier_id == own]


def _offer(plan: Plan, subscription: Subscription | None, own_tier: object) -> Offer:
    held = subscription.price_id if subscription is not None and subscription.state not in ("none", "ended") else None
    following = subscription.next_price_id if subscription is not None else None
    active = {price.interval: price for price in plan.prices.all() if price.is_active}
    prices = []
    for interval in Interval:
        price = active.get(interval.value)
        if price is not None:
            is_own, is_next = price.pk == held, price.pk == following
            note = _("your plan") if is_own else _("from the next period on") if is_next else _saving(price, active)
            can_choose = not is_next and not (is_own and following is None)
            interval_text = interval_name(price.interval)
            prices.append(OfferedPrice(price, per_interval(price), interval_text, note, is_own, can_choose))
    return Offer(plan, plan.tier_id == own_tier, prices, limits(plan.tier))


def _saving(price: Price, active: dict[str, Price]) -> str:
    monthly = active.get(Interval.MONTHLY.value)
    if price.interval != Interval.YEARLY.value or monthly is None or monthly.amount * 12 <= price.amount:
        return ""
    return _("you save %(amount)s a year") % {"amount": rupiah(monthly.amount * 12 - price.amount)}


def limits(tier: Any) -> list[tuple[str, str]]:
    """Label and value; ``tier`` is a tier or a company's own limits."""
    yes_no = {True: _("yes"), False: _("no")}
    return [
        (_("users"), _number(tier.user_limit)),
        (_("MT5 accounts"), _number(tier.company_account_limit)),
        (_("MT5 accounts a user"), _number(tier.user_account_limit)),
        (_("active pairs a user"), _number(tier.pair_limit)),
        (_("messages a second a user"), f"{tier.message_rate_limit:g}"),
        (_("connections a user"), _number(tier.connection_limit)),
        (_("data a month"), _("%(count)s GB") % {"count": f"{tier.monthly_data_limit / _GIB:g}"}),
        (_("API calls a month"), _number(tier.monthly_api_call_limit)),
        (_("trading signals"), yes_no[tier.has_signals]),
        (_("alerts"), yes_no[tier.has_alerts]),
        (_("replay"), yes_no[tier.has_replay]),
    ]


def losses(before: Any, after: Any, places: Iterable[Place]) -> list[str]:
    """What becomes smaller by a change of limits, one line each; ``places``: users and accounts in use, in this order.

    Whoever is above a limit keeps what is there, and can add nothing.
    """
    rows = zip(limits(before), limits(after), _less(before, after), strict=True)
    lines = [
        _("%(label)s: %(after)s instead of %(before)s") % {"label": label, "before": was, "after": becomes}
        for (label, was), (_label, becomes), is_less in rows
        if is_less
    ]
    users, accounts = places
    if users.taken > after.user_limit:
        lines.append(_("%(count)d users are there: all stay, none can be added.") % {"count": users.taken})
    if accounts.taken > after.company_account_limit:
        lines.append(_("%(count)d MT5 accounts are there: all stay, none can be added.") % {"count": accounts.taken})
    return lines


def _less(before: Any, after: Any) -> list[bool]:
    names = (
        "user_limit", "company_account_limit", "user_account_limit", "pair_limit", "message_rate_limit",
        "connection_limit", "monthly_data_limit", "monthly_api_call_limit", "has_signals", "has_alerts", "has_replay",
    )  # fmt: skip
    return [getattr(after, name) < getattr(before, name) for name in names]


def _number(count: int) -> str:
    """With the thousands apart by a space, which reads the same in both languages."""
    return f"{count:,}".replace(",", " ")
