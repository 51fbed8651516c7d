"""Tries to pay an invoice: one order id each, one at a time. Room: billing.

A row is there before Midtrans is asked for anything, so that whatever Midtrans then does is found again by it. Who asks
takes a lease of a minute first (``take``): two processes do not ask at the same time, and one that died is followed by
the next.
"""

from datetime import timedelta

import structlog
from django.db import transaction
from django.db.models import Q

from billing import books, clock, ledger
from billing.invoices import locked
from billing.midtrans.client import MidtransClient, new_idempotency_key
from billing.midtrans.outcomes import Done, Refusal, Refused
from billing.models import Invoice, PaymentAttempt, PaymentMethod
from billing.orders import new_order_id
from billing.transitions import PaymentState

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=1)


def begin(
    invoice: Invoice, by: PaymentAttempt.By, *, actor: str, method: PaymentMethod | None = None
) -> PaymentAttempt:
    """Writes a new one; the caller holds the invoice's locks and has seen that none is open."""
    attempt = PaymentAttempt.objects.create(
        order_id=new_order_id(invoice.pk),
        invoice=invoice,
        amount=invoice.total,
        by=by,
        method=method,
        idempotency_key=new_idempotency_key(),
        next_poll_at=clock.now() + LEASE,
    )
    books.entry("attempt_begun", actor=actor, attempt=attempt, amount=attempt.amount, note=by.value)
    return attempt


def take(attempt: PaymentAttempt) -> bool:
    """Whether this process may ask Midtrans for it now."""
    now = clock.now()
    free = Q(asked_at__isnull=True) | Q(asked_at__lte=now - LEASE)
    taken = PaymentAttempt.objects.filter(free, pk=attempt.pk, is_closed=False).update(asked_at=now)
    return bool(taken)


def hand_back(attempt: PaymentAttempt) -> None:
    """Midtrans answered, and may be asked again at once."""
    PaymentAttempt.objects.filter(pk=attempt.pk).update(asked_at=None)


def close(attempt: PaymentAttempt, *, state: PaymentState, problem: str, actor: str) -> bool:
    """Ends one of which Midtrans knows nothing and is to know nothing; whether it was still so."""
    with transaction.atomic():
        locked(attempt.invoice.subscription.company_id)
        row = (
            PaymentAttempt.objects.select_for_update(of=("self",))
            .select_related("invoice__subscription")
            .get(pk=attempt.pk)
        )
        if row.is_closed or row.state != PaymentState.CREATED:
            return False
        row.state, row.is_closed, row.last_problem, row.next_poll_at = state.value, True, problem[:120], None
        row.save(update_fields=["state", "is_closed", "last_problem", "next_poll_at"])
        books.entry(
            "attempt_closed",
            actor=actor,
            attempt=row,
            before=PaymentState.CREATED.value,
            after=state.value,
            note=problem,
        )
    return True


def look(client: MidtransClient, attempt: PaymentAttempt, *, source: str) -> bool:
    """Asks Midtrans how it stands and applies that; False: nobody knows. The row is read again."""
    outcome = client.status(attempt.order_id)
    if isinstance(outcome, Done):
        ledger.apply_status(attempt, outcome.value, source=source)
        return True
    attempt.refresh_from_db()
    return isinstance(outcome, Refused) and outcome.reason is Refusal.MISSING


def end_pending(client: MidtransClient, attempt: PaymentAttempt, *, source: str) -> bool:
    """Takes back what a customer has begun and not paid; whether it is known now how that ended, paid or not."""
    outcome = client.cancel(attempt.order_id)
    if isinstance(outcome, Done):
        ledger.apply_status(attempt, outcome.value, source=source)
        return True
    if isinstance(outcome, Refused) and outcome.reason in (Refusal.WRONG_STATE, Refusal.MISSING):
        return look(client, attempt, source=source)
    return False
