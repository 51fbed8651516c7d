"""The next period of a subscription: its invoice, its page or its charge. Room: billing.

Jobs of the worker, bounded in one turn and safe in several workers at once: each subscription is looked at again under
its lock. Companies without a saved method get an invoice and a payment page seven days before the end; the others are
charged on the day on which the paid time ends.
"""

from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from billing import charges, clock, pages
from billing.failures import ACTOR, CHARGED, charge_now
from billing.invoices import locked, open_invoices, write
from billing.methods import usable
from billing.models import Invoice, PaymentAttempt, PaymentMethod, Subscription
from billing.notices import invoice_page
from billing.periods import JAKARTA, Interval, next_period_end
from billing.problems import BillingError
from billing.turns import in_turn

log = structlog.get_logger(__name__)

_AHEAD = timedelta(days=7)
_CHANGES = (Invoice.Kind.UPGRADE, Invoice.Kind.CHANGE)
_LIMIT = 100


def renew_due(limit: int = _LIMIT) -> int:
    """Writes the invoices that are due, opens their pages or charges them; how many subscriptions."""
    now = clock.now()
    done = in_turn(_due(now).values_list("company_id", flat=True)[:limit], _renew)
    return done + in_turn(_chargeable(now).values_list("pk", flat=True)[:limit], _charge)


def _due(now: datetime) -> QuerySet[Subscription]:
    """Those whose next period has no invoice yet and is to have one now."""
    invoices = Invoice.objects.filter(subscription=OuterRef("pk"))
    written = invoices.filter(kind=Invoice.Kind.RENEWAL, period_start=OuterRef("paid_until"))
    # Somebody is about to buy another plan: the renewal is of what comes of that.
    changing = invoices.filter(kind__in=_CHANGES, state=Invoice.State.OPEN, due_at__gt=now)
    rows = Subscription.objects.filter(
        ~Exists(written.exclude(state=Invoice.State.VOID)), ~Exists(changing) | Q(paid_until__lte=now),
        state__in=CHARGED, price__isnull=False,
    )  # fmt: skip
    has_method = Exists(PaymentMethod.objects.filter(usable(), pk=OuterRef("method_id")))
    is_due = (Q(has_method) & Q(paid_until__lt=_day_end(now))) | (~Q(has_method) & Q(paid_until__lte=now + _AHEAD))
    return rows.filter(is_due).order_by("paid_until", "pk")


def _chargeable(now: datetime) -> QuerySet[Invoice]:
    """Open renewals whose company has got a method that was not charged for them yet."""
    rows = PaymentAttempt.objects.filter(invoice=OuterRef("pk"))
    charged = rows.filter(by=PaymentAttempt.By.MERCHANT, method_id=OuterRef("subscription__method_id"))
    return Invoice.objects.filter(
        ~Exists(charged), ~Exists(rows.filter(is_closed=False)),
        Exists(PaymentMethod.objects.filter(usable(), pk=OuterRef("subscription__method_id"))),
        kind=Invoice.Kind.RENEWAL, state=Invoice.State.OPEN,
        subscription__state__in=CHARGED, subscription__paid_until__lt=_day_end(now),
    ).order_by("due_at", "pk")  # fmt: skip


def _renew(company_id: UUID) -> bool:
    with transaction.atomic():
        subscription = locked(company_id)
        now = clock.now()
        if not _due(now).filter(pk=subscription.pk).exists() or subscription.paid_until is None:
            return False
        price = subscription.next_price or subscription.price
        if price is None:
            return False
        begins = subscription.paid_until
        ends = next_period_end(begins, Interval(price.interval), anchor_day=subscription.anchor_day)
        invoice = write(
            subscription, kind=Invoice.Kind.RENEWAL, price=price, total=price.amount, period=(begins, ends),
            due_at=begins, actor=ACTOR,
        )  # fmt: skip
        method = PaymentMethod.objects.filter(usable(), pk=subscription.method_id or 0).first()
        attempt = charges.prepare(invoice, method) if method is not None else None
    if attempt is not None:
        charge_now(attempt)
    else:
        _open_page(invoice, begins + subscription.company.grace - now)
    return True


def _charge(invoice_id: int) -> bool:
    company_id = Invoice.objects.values_list("subscription__company_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        subscription = locked(company_id)
        opened = {invoice.pk: invoice for invoice in open_invoices(subscription)}
        if invoice_id not in opened or not _chargeable(clock.now()).filter(pk=invoice_id).exists():
            return False
        method = PaymentMethod.objects.get(pk=subscription.method_id or 0)
        attempt = charges.prepare(opened[invoice_id], method)
    charge_now(attempt)
    return True


def _open_page(invoice: Invoice, life: timedelta) -> None:
    """Ahead of the first click. Without an answer nothing is lost: the click asks again."""
    try:
        pages.open_page(invoice, finish_url=invoice_page(invoice), actor=ACTOR, life=life)
    except BillingError:
        log.warning("renewal_page_not_open", invoice=invoice.number)


def _day_end(now: datetime) -> datetime:
    """The midnight in Asia/Jakarta with which the day ends."""
    local = now.astimezone(JAKARTA)
    return local.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
