"""What a company admin does about the plan: price, buy, change, cancel, pay. Room: billing.

Everything takes the actor and the company; another company's answers like one that does not exist (NotVisible). Texts
of BillingError are for the screen.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol, TypeVar
from uuid import UUID

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.utils.translation import gettext as _

from billing import attempts, books, clock, entitlements, pages, quotes
from billing.invoices import locked, open_invoices, void, write
from billing.lifecycle import move
from billing.midtrans.client import MidtransClient
from billing.models import AccessGrant, Invoice, PaymentAttempt, Price, Subscription
from billing.periods import local_day
from billing.problems import BillingError
from billing.quotes import Quote, Takes
from billing.transitions import PaymentState, SubscriptionEvent, SubscriptionState, is_awaited
from tenants.access import Actor, NotVisible, find

_WITHOUT_PLAN = frozenset({SubscriptionState.NONE, SubscriptionState.ENDED, SubscriptionState.TRIAL})
_OVERDUE = frozenset({SubscriptionState.PAST_DUE, SubscriptionState.UNPAID})
# An offer whose price does not depend on the day.
_FIRST_DUE = timedelta(days=7)
# Less time than this to pay is none.
_LAST_CALL = timedelta(minutes=15)
# Each ends what was in the way; a customer who begins anew each time is told to wait.
_TURNS = 3
_PERIODS = (Invoice.Kind.FIRST, Invoice.Kind.RENEWAL, Invoice.Kind.CHANGE)
_ANCHORS = (Invoice.Kind.FIRST, Invoice.Kind.CHANGE)


_T = TypeVar("_T")


class Tenant(Protocol):
    """A company."""

    @property
    def pk(self) -> UUID: ...


def quote(actor: Actor, company: Tenant, price: Price) -> Quote:
    """What ``price`` costs now and when it takes effect; changes nothing."""
    _check(actor, company)
    rows = Subscription.objects.select_related("price__plan", "next_price__plan")
    subscription = rows.filter(company_id=company.pk).first() or Subscription(company_id=company.pk)
    return _quote(subscription, price)


def start(actor: Actor, company: Tenant, price: Price) -> Invoice:
    """The invoice of a first plan, or of the one that follows after an end; the same one again for a second click."""
    invoice = change_plan(actor, company, price)
    if invoice is None:
        raise BillingError(_("The company has a plan already: change it instead."))
    return invoice


def change_plan(actor: Actor, company: Tenant, price: Price) -> Invoice | None:
    """The invoice that is to be paid for it, or None: it takes effect at the end of the period and nothing is to be
    paid before. Chosen again what the company has: a change that was planned is withdrawn."""
    _check(actor, company)
    return _in_turns(lambda: _change(actor, company, price))


def cancel(actor: Actor, company: Tenant) -> Subscription:
    """At the end of what is paid; at once where it is over. Raises BillingError where there is nothing to cancel."""
    _check(actor, company)
    return _in_turns(lambda: _cancel(actor, company))


def withdraw_cancel(actor: Actor, company: Tenant) -> Subscription:
    """It goes on as before. Raises BillingError where it was not cancelled or is over."""
    _check(actor, company)
    with transaction.atomic():
        subscription = locked(company.pk)
        is_over = subscription.paid_until is None or subscription.paid_until <= clock.now()
        if subscription.state != SubscriptionState.CANCELLING or is_over:
            raise BillingError(_("There is no cancellation to withdraw: choose a plan to begin anew."))
        move(subscription, SubscriptionEvent.CANCEL_WITHDRAWN, actor=actor.name)
        entitlements.refresh(company.pk, actor=actor.name)
    return Subscription.objects.get(pk=subscription.pk)


def open_page(actor: Actor, invoice: Invoice, *, finish_url: str) -> str:
    """The address of Midtrans' payment page for an open invoice; the same again while it lives.

    ``finish_url``: absolute, where the customer comes back to; it says nothing about the payment. Raises NotVisible for
    another company's invoice, BillingError (temporary while Midtrans does not answer).
    """
    row = find(actor, Invoice, pk=invoice.pk)
    row = Invoice.objects.select_related("subscription__company", "price__plan").get(pk=row.pk)
    if row.kind in (Invoice.Kind.UPGRADE, Invoice.Kind.CHANGE) and row.due_at <= clock.now() + _LAST_CALL:
        raise BillingError(_("This offer has run out: choose the plan again."))
    return pages.open_page(row, finish_url=finish_url, actor=actor.name)


def _check(actor: Actor, company: Tenant) -> None:
    if actor.sees_all or (actor.is_company_admin and actor.company_id == company.pk):
        return
    if actor.company_id == company.pk:
        raise PermissionDenied("only an admin of the company pays for it")
    raise NotVisible("there is no such company")


class _UnderWay(Exception):
    """Customers' payments that were begun and have no end yet."""

    def __init__(self, waiting: list[PaymentAttempt]) -> None:
        super().__init__("payments are under way")
        self.waiting = waiting


def _in_turns(act: Callable[[], _T]) -> _T:
    """Acts in one transaction; ends what is under way for invoices that would be voided, and acts again.

    So none is voided while money is on its way to it. Raises BillingError where that cannot be known now.
    """
    for _turn in range(_TURNS):
        try:
            with transaction.atomic():
                return act()
        except _UnderWay as found:
            waiting = found.waiting
        with MidtransClient.from_settings() as client:
            if not all(attempts.end_pending(client, attempt, source="checkout") for attempt in waiting):
                break
    raise BillingError(_("Midtrans does not answer at the moment: try again in a minute."), is_temporary=True)


def _voidable(subscription: Subscription) -> list[Invoice]:
    """The open invoices, none of which waits for money that a customer has sent. Raises _UnderWay."""
    opened = open_invoices(subscription)
    rows = PaymentAttempt.objects.filter(invoice__in=opened, is_closed=False, by=PaymentAttempt.By.CUSTOMER)
    waiting = list(rows.filter(state__in=[state.value for state in PaymentState if is_awaited(state)]))
    if begun := [attempt for attempt in waiting if attempt.state != PaymentState.CREATED]:
        raise _UnderWay(begun)
    return opened


def _is_charged(invoice: Invoice) -> bool:
    """We are charging for it just now: it is left to its end."""
    return invoice.attempts.filter(is_closed=False, by=PaymentAttempt.By.MERCHANT).exists()


def _change(actor: Actor, company: Tenant, price: Price) -> Invoice | None:
    subscription = locked(company.pk)
    price = Price.objects.select_related("plan").get(pk=price.pk)
    _check_offer(subscription, price)
    offer = _quote(subscription, price)
    if same := _same_open(subscription, offer):
        return same
    if any(_is_charged(invoice) for invoice in _voidable(subscription)):
        text = _("A charge of your payment method is under way: try again in a few minutes.")
        raise BillingError(text, is_temporary=True)
    if not offer.is_now:
        _plan(actor, subscription, offer)
        return None
    if subscription.next_price_id not in (None, price.pk) and SubscriptionState(subscription.state) not in _OVERDUE:
        raise BillingError(_("A change is planned for the end of the period: withdraw it first."))
    return _write(actor, subscription, offer)


def _cancel(actor: Actor, company: Tenant) -> Subscription:
    subscription = locked(company.pk)
    if SubscriptionState(subscription.state) in _WITHOUT_PLAN:
        raise BillingError(_("There is no subscription to cancel."))
    for invoice in _voidable(subscription):
        if not _is_charged(invoice):
            void(invoice, actor=actor.name, why="the subscription was cancelled")
    subscription.next_price = subscription.next_retry_at = subscription.first_failure_at = None
    move(subscription, SubscriptionEvent.CANCEL_REQUESTED, actor=actor.name)
    entitlements.refresh(company.pk, actor=actor.name)
    return Subscription.objects.get(pk=subscription.pk)


def _check_offer(subscription: Subscription, price: Price) -> None:
    agreed = {subscription.price_id, subscription.next_price_id}
    if not (price.is_active and price.plan.is_public) and price.pk not in agreed:
        raise BillingError(_("This plan is not offered any more: choose another one."))
    if subscription.state == SubscriptionState.CANCELLING:
        raise BillingError(_("The subscription was cancelled: withdraw the cancellation first."))


def _quote(subscription: Subscription, price: Price) -> Quote:
    now = clock.now()
    paid = _paid_periods(subscription, now)
    return quotes.quote(subscription, price, paid=paid, now=now, tax_rate=settings.GATEWAY_TAX_RATE)


def _paid_periods(subscription: Subscription, now: datetime) -> list[tuple[datetime, datetime]]:
    """That are not over. A change of the interval begins anew: what it took the place of does not count."""
    rows = AccessGrant.objects.filter(
        company_id=subscription.company_id, revoked_at__isnull=True, ends_at__gt=now, invoice__kind__in=_PERIODS
    )
    periods = list(rows.order_by("starts_at").values_list("starts_at", "ends_at", "invoice__kind"))
    begins = max((start for start, _end, kind in periods if kind in _ANCHORS), default=None)
    return [(start, end) for start, end, _kind in periods if begins is None or start >= begins]


def _plan(actor: Actor, subscription: Subscription, offer: Quote) -> None:
    """Writes down what the next period is to be; an invoice for it as it was agreed before is void."""
    price = offer.price
    ahead = AccessGrant.objects.filter(
        company_id=subscription.company_id, revoked_at__isnull=True, starts_at__gt=clock.now(), invoice__isnull=False
    )
    if ahead.exclude(invoice__price=price).exists():
        day = local_day(offer.period_start)
        raise BillingError(_("The next period is paid already: change the plan after it has begun.") + f" ({day})")
    wanted = None if price.pk == subscription.price_id else price
    if offer.takes is Takes.NOTHING and subscription.next_price_id == (wanted.pk if wanted else None):
        if subscription.next_price_id is None:
            raise BillingError(_("The company has this plan already."))
        return
    before = subscription.next_price
    subscription.next_price = wanted
    subscription.save(update_fields=["next_price"])
    for invoice in open_invoices(subscription):
        void(invoice, actor=actor.name, why="another plan was chosen")
    books.entry(
        "change_planned",
        actor=actor.name,
        company_id=subscription.company_id,
        before=str(before or subscription.price),
        after=str(wanted or subscription.price),
    )


def _same_open(subscription: Subscription, offer: Quote) -> Invoice | None:
    """An invoice for the same thing at the same price that can still be paid."""
    # Of an overdue one the renewal stands, whichever period the payment will begin.
    kinds = {offer.kind, Invoice.Kind.RENEWAL} if SubscriptionState(subscription.state) in _OVERDUE else {offer.kind}
    for invoice in open_invoices(subscription):
        is_same = invoice.kind in kinds and invoice.price_id == offer.price.pk and invoice.total == offer.total
        if is_same and (invoice.kind == Invoice.Kind.RENEWAL or invoice.due_at > clock.now() + _LAST_CALL):
            return invoice
    return None


def _write(actor: Actor, subscription: Subscription, offer: Quote) -> Invoice:
    now, kind = clock.now(), offer.kind or Invoice.Kind.FIRST
    start, end = offer.period_start, offer.period_end
    if kind == Invoice.Kind.RENEWAL and _was_returned(subscription, start):
        # Its money went back; what is bought now begins with the payment.
        kind = Invoice.Kind.FIRST
    due = now + _FIRST_DUE
    if kind in (Invoice.Kind.UPGRADE, Invoice.Kind.CHANGE):
        due = now + timedelta(seconds=settings.GATEWAY_PAYMENT_PAGE_TTL)
        if subscription.paid_until is not None:
            due = min(due, subscription.paid_until)
        if due <= now + _LAST_CALL:
            raise BillingError(_("The period ends within minutes: choose the plan again when the next one has begun."))
    return write(
        subscription, kind=kind, price=offer.price, total=offer.total, period=(start, end), due_at=due, actor=actor.name
    )


def _was_returned(subscription: Subscription, period_start: datetime) -> bool:
    renewals = Invoice.objects.filter(subscription=subscription, kind=Invoice.Kind.RENEWAL, period_start=period_start)
    return renewals.exclude(state__in=(Invoice.State.VOID, Invoice.State.OPEN)).exists()
