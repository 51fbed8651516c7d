"""Charges of renewals, and what follows when one fails: another try, or another method. Room: billing."""

from datetime import datetime

import structlog
from django.db import transaction
from django.db.models import QuerySet

from billing import books, charges, clock, faults, methods, notices
from billing.invoices import locked
from billing.lifecycle import move
from billing.midtrans.declines import Decline
from billing.models import Invoice, PaymentAttempt, Subscription
from billing.periods import next_retry
from billing.transitions import PaymentState, SubscriptionEvent, SubscriptionState

log = structlog.get_logger(__name__)

ACTOR = "worker"
# The states in which renewals are charged.
CHARGED = (SubscriptionState.ACTIVE.value, SubscriptionState.PAST_DUE.value)
# How charges of ours end that brought no money. CREATED: Midtrans has never heard of it, and will not any more.
_NOT_BEGUN = (PaymentState.CREATED.value, PaymentState.CANCELLED.value)
_FAILED = (*_NOT_BEGUN, PaymentState.DENIED.value, PaymentState.EXPIRED.value, PaymentState.FAILED.value)


def charge_now(attempt: PaymentAttempt) -> None:
    """Carries out a charge that is committed, and deals with its failure."""
    faults.reach(faults.AFTER_PREPARE)
    if charges.carry_out(attempt.pk):
        note_failure(attempt.pk)


def resume(attempt_id: int) -> bool:
    """Goes on with a charge that was begun and left; whether that did something."""
    is_done = charges.carry_out(attempt_id)
    return note_failure(attempt_id) or is_done


def waiting(limit: int) -> list[int]:
    """Failed charges that nobody has dealt with, as those of which a notification told."""
    return list(_failed().order_by("pk").values_list("pk", flat=True)[:limit])


def note_failure(attempt_id: int) -> bool:
    """Decides what follows from a charge that failed: another try, another method; whether that was still to do."""
    faults.reach(faults.BEFORE_NOTE)
    rows = _failed().filter(pk=attempt_id)
    company_id = rows.values_list("invoice__subscription__company_id", flat=True).first()
    if company_id is None:
        return False
    now = clock.now()
    with transaction.atomic():
        subscription = locked(company_id)
        if not rows.update(failure_noted_at=now):
            return False
        attempt = PaymentAttempt.objects.select_related("invoice", "method").get(pk=attempt_id)
        invoice, method = attempt.invoice, attempt.method
        if invoice.state != Invoice.State.OPEN or subscription.state not in CHARGED:
            return True
        if attempt.state in _NOT_BEGUN:
            subscription.next_retry_at = now
            subscription.save(update_fields=["next_retry_at"])
            return True
        until = access_ends(subscription)
        subscription.first_failure_at = subscription.first_failure_at or now
        is_hard = charges.decline_of(attempt) is Decline.HARD
        retry = None if is_hard else next_retry(subscription.first_failure_at, now=now, access_ends=until)
        subscription.next_retry_at = retry
        move(subscription, SubscriptionEvent.PAYMENT_FAILED, actor=ACTOR)
        if is_hard and method is not None:
            methods.refuse(method, actor=ACTOR, why=attempt.last_problem)
        books.entry(
            "charge_failed", actor=ACTOR, attempt=attempt, amount=attempt.amount,
            note=f"{'hard' if is_hard else 'soft'}, next try {retry or 'never'}: {attempt.last_problem}",
        )  # fmt: skip
    notices.send(
        "method_needed" if is_hard else "charge_failed", subscription, amount=invoice.total, method=method,
        link=notices.invoice_page(invoice), until=until, retry=retry,
    )  # fmt: skip
    return True


def access_ends(subscription: Subscription) -> datetime:
    """The end of the paid time and of the grace after it."""
    return (subscription.paid_until or clock.now()) + subscription.company.grace


def _failed() -> QuerySet[PaymentAttempt]:
    return PaymentAttempt.objects.filter(
        by=PaymentAttempt.By.MERCHANT, is_closed=True, failure_noted_at__isnull=True, state__in=_FAILED
    )
