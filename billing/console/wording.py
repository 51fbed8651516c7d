"""What a subscription, an invoice and a payment are, in plain words: what is so, and what happens next. Room: billing.

Nothing is asked of the database here.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.utils import formats, timezone
from django.utils.translation import gettext as _

from billing.models import AccessGrant, Invoice, PaymentMethod, Price, Subscription
from billing.money import rupiah
from billing.periods import Interval
from billing.transitions import PaymentState, SubscriptionState

_S, _P = SubscriptionState, PaymentState
# The same order in both languages; "10 February 2026", "10 Februari 2026".
_DAY = "j F Y"


@dataclass(frozen=True, slots=True)
class Situation:
    """``tone``: "good", "warn" or "bad"; ``lines``: what happens next."""

    headline: str
    lines: tuple[str, ...]
    tone: str = "good"
    can_cancel: bool = False
    can_withdraw: bool = False


def interval_name(interval: str) -> str:
    return {Interval.MONTHLY.value: _("monthly"), Interval.YEARLY.value: _("yearly")}[interval]


def per_interval(price: Price) -> str:
    """ "Rp499.000 a month"."""
    text = _("%(amount)s a month") if price.interval == Interval.MONTHLY.value else _("%(amount)s a year")
    return text % {"amount": rupiah(price.amount)}


def tax_rate(rate: Decimal) -> str:
    """Per cent: "11", "11,5"."""
    return formats.number_format(rate.normalize(), use_l10n=True)


def invoice_text(invoice: Invoice) -> str:
    """What it is for."""
    kinds = {
        Invoice.Kind.FIRST: _("Plan %(plan)s, %(interval)s"),
        Invoice.Kind.RENEWAL: _("Plan %(plan)s, %(interval)s, renewal"),
        Invoice.Kind.UPGRADE: _("Upgrade to %(plan)s, %(interval)s, for the rest of the period"),
        Invoice.Kind.CHANGE: _("Change to %(plan)s, %(interval)s, less what was left of the period before"),
    }
    values = {"plan": invoice.price.plan.name, "interval": interval_name(invoice.price.interval)}
    return kinds[Invoice.Kind(invoice.kind)] % values


def invoice_state(invoice: Invoice) -> str:
    return {
        Invoice.State.OPEN: _("to be paid"),
        Invoice.State.PAID: _("paid"),
        Invoice.State.VOID: _("void"),
        Invoice.State.PARTLY_RETURNED: _("partly paid back"),
        Invoice.State.RETURNED: _("paid back"),
    }[Invoice.State(invoice.state)]


def day(moment: datetime) -> str:
    return formats.date_format(timezone.localtime(moment), _DAY)


def day_and_time(moment: datetime) -> str:
    local = timezone.localtime(moment)
    return _("%(day)s at %(time)s") % {
        "day": formats.date_format(local, _DAY),
        "time": f"{formats.date_format(local, 'H:i')} {local.tzname()}",
    }


def method_name(method: PaymentMethod) -> str:
    kind = _("Card") if method.kind == PaymentMethod.Kind.CARD else "GoPay"
    return f"{kind} {method.label}".strip()


def subscription_state(state: str) -> str:
    return {
        _S.NONE: _("no paid plan"),
        _S.TRIAL: _("on trial"),
        _S.ACTIVE: _("active"),
        _S.PAST_DUE: _("overdue"),
        _S.UNPAID: _("cut off, unpaid"),
        _S.CANCELLING: _("cancelled, runs to its end"),
        _S.ENDED: _("ended"),
    }[SubscriptionState(state)]


def situation(company: Any, subscription: Subscription | None, gift: AccessGrant | None, now: datetime) -> Situation:
    """``company``: a tenants' company; ``gift``: given time that runs now. Rows are loaded with price and plan."""
    if company.status == company.Status.SUSPENDED:
        reason = company.status_reason or _("no reason was given")
        lines: tuple[str, ...] = (
            _("Nobody can connect until the operator resumes it. Reason: %(reason)s.") % {"reason": reason},
        )
        return Situation(_("The company is suspended by the operator."), lines, "bad")
    state = SubscriptionState(subscription.state) if subscription is not None else _S.NONE
    if subscription is None or subscription.price is None or subscription.paid_until is None or state in _NO_PLAN:
        return _without_plan(company, gift)
    plan, end = subscription.price.plan.name, subscription.paid_until
    values = {"plan": plan, "end": day_and_time(end), "last": day_and_time(end + company.grace)}
    if state is _S.TRIAL:
        lines = (_("After it the limits of FREE hold, unless you choose a plan."),)
        return Situation(_("%(plan)s on trial until %(end)s.") % values, lines)
    if state is _S.CANCELLING:
        lines = (
            _("It is cancelled: nothing is charged any more, and from then on the limits of FREE hold."),
            _("Until then you can take the cancellation back."),
        )
        return Situation(_("%(plan)s until %(end)s.") % values, lines, "warn", can_withdraw=True)
    if state is _S.PAST_DUE:
        lines = (_("Pay by %(last)s: at that moment all terminals are cut off.") % values, *_retry(subscription, now))
        return Situation(_("The paid time of %(plan)s is over since %(end)s.") % values, lines, "warn", can_cancel=True)
    if state is _S.UNPAID:
        lines = (_("Nobody can connect. Pay the open invoice, and terminals are let in again at once."),)
        return Situation(_("%(plan)s is unpaid: the company is cut off.") % values, lines, "bad", can_cancel=True)
    following = _renewal(subscription, subscription.price, end, now)
    return Situation(_("%(plan)s, paid until %(end)s.") % values, following, can_cancel=True)


_NO_PLAN = frozenset({_S.NONE, _S.ENDED})


def _without_plan(company: Any, gift: AccessGrant | None) -> Situation:
    if gift is not None:
        values = {"plan": gift.plan.name, "by": gift.given_by, "end": day_and_time(gift.ends_at)}
        lines = (_("Nothing is charged. After it the limits of FREE hold, unless you choose a plan."),)
        return Situation(_("%(plan)s until %(end)s, given by %(by)s.") % values, lines)
    if company.paid_until is not None:
        values = {"tier": company.tier.code, "end": day_and_time(company.paid_until)}
        return Situation(_("%(tier)s until %(end)s, as agreed with the operator.") % values, ())
    lines = (_("Nothing is charged. Choose a plan below for more users, accounts and data."),)
    return Situation(_("You use the plan %(tier)s.") % {"tier": company.tier.code}, lines)


def _renewal(subscription: Subscription, price: Price, end: datetime, now: datetime) -> tuple[str, ...]:
    """What happens at ``end``, that of the paid time."""
    following = subscription.next_price
    values = {"end": day(end), "price": per_interval(following or price)}
    lines = []
    if following is not None:
        name = f"{following.plan.name}, {interval_name(following.interval)}"
        lines.append(_("From %(end)s on it is %(name)s.") % {**values, "name": name})
    method = subscription.method
    if method is not None and method.removed_at is None and method.refused_at is None:
        values["method"] = method_name(method)
        lines.append(_("On %(end)s it is renewed by itself: %(method)s is charged %(price)s.") % values)
    else:
        values["day"] = day(end - timedelta(days=7))
        lines.append(
            _("On %(day)s you get the next invoice (%(price)s) by e-mail and on this page. Pay it by %(end)s.") % values
        )
        if method is not None and method.removed_at is None:
            lines.append(
                _("%(method)s was refused for good: renew by an invoice, or pay with another card.")
                % {"method": method_name(method)}
            )
    return (*lines, *_retry(subscription, now))


def _retry(subscription: Subscription, now: datetime) -> tuple[str, ...]:
    if subscription.next_retry_at is None or subscription.next_retry_at < now:
        return ()
    values = {"moment": day_and_time(subscription.next_retry_at)}
    return (_("The last charge failed. It is tried again on %(moment)s.") % values,)


def payment_text(state: PaymentState, payment_type: str) -> str:
    """Where a payment stands, and what its payer can do."""
    if state is _P.PENDING:
        return {
            "bank_transfer": _("We wait for your bank transfer. The account number is on the payment page."),
            "echannel": _("We wait for your payment at Mandiri. The codes are on the payment page."),
            "qris": _("We wait for your payment. Scan the QR code on the payment page."),
            "gopay": _("We wait for your payment. Confirm it in the GoPay application."),
            "credit_card": _("We wait for your bank to confirm the card."),
        }.get(payment_type, _("We wait for your payment."))
    return {
        _P.CREATED: _("The payment page is ready. Nothing has been paid yet."),
        _P.AUTHORIZED: _("The amount is reserved on your card. It has not been charged yet."),
        _P.CHALLENGED: _("Your payment is being checked. That can take a day; nothing has to be done."),
        _P.CAPTURED: _("Your payment has arrived."),
        _P.SETTLED: _("Your payment has arrived."),
        _P.DENIED: _("The payment was refused. Nothing has been paid: try again, or choose another method."),
        _P.CANCELLED: _("The payment was cancelled. Nothing has been paid."),
        _P.EXPIRED: _("The time to pay is over. Nothing has been paid: begin again."),
        _P.FAILED: _("The payment failed. Nothing has been paid: try again, or choose another method."),
        _P.REFUNDED: _("The payment was paid back."),
        _P.PARTIALLY_REFUNDED: _("A part of the payment was paid back."),
        _P.CHARGED_BACK: _("Your bank has taken the payment back."),
        _P.PARTIALLY_CHARGED_BACK: _("Your bank has taken a part of the payment back."),
    }[state]


def payment_type_name(payment_type: str) -> str:
    return {
        "credit_card": _("Card"),
        "bank_transfer": _("Bank transfer"),
        "echannel": _("Mandiri Bill"),
        "cstore": _("Shop"),
        "gopay": "GoPay",
        "qris": "QRIS",
    }.get(payment_type, payment_type)
