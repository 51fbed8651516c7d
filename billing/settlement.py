"""What an invoice's payments make of it: its state, what was returned, and the time that it bought. Room: billing.

Worked out from all transactions of the invoice each time, so that any of them may change in any order.
"""

import structlog

from billing import books, clock, entitlements
from billing.grants import period_of
from billing.models import AccessGrant, Invoice, PaymentAttempt, Transaction
from billing.transitions import Money, PaymentState, holds_access, is_final, money_of

log = structlog.get_logger(__name__)


def settle_invoice(attempt: PaymentAttempt, row: Transaction, *, source: str, receipt_id: int | None) -> None:
    """The invoice's money as all its transactions have it, and the grant that follows from it.

    ``row``: the transaction that has just been written. The caller holds the locks of ``ledger``.
    """
    invoice = attempt.invoice
    rows = list(Transaction.objects.filter(attempt__invoice=invoice).select_related("attempt"))
    received = [one for one in rows if money_of(PaymentState(one.state)) is not Money.UNPAID]
    kept = sum(one.attempt.amount - one.refunded for one in received)
    is_void = invoice.state == Invoice.State.VOID
    before, returned_before = invoice.state, invoice.returned
    if not is_void:
        invoice.state, invoice.returned = _state_of(invoice, kept, is_paid=bool(received))
        invoice.paid_at = (invoice.paid_at or clock.now()) if received else None
    if (before, returned_before) != (invoice.state, invoice.returned):
        invoice.save(update_fields=["state", "returned", "paid_at"])
        books.entry(
            "invoice_changed",
            actor=source,
            invoice=invoice,
            receipt_id=receipt_id,
            before=before,
            after=invoice.state,
            amount=invoice.returned,
        )
    holding = [one for one in rows if holds_access(PaymentState(one.state))]
    if (is_void and holding) or kept > invoice.total:
        _needs_review(attempt, row, "paid although void" if is_void else "paid twice", source, receipt_id)
    live = AccessGrant.objects.filter(invoice=invoice, revoked_at__isnull=True).first()
    if holding and live is None and not is_void:
        _grant(attempt, row, source, receipt_id)
    elif live is not None and not holding:
        entitlements.revoke(live, because=f"payment {row.state}", actor=source, receipt_id=receipt_id)


def _state_of(invoice: Invoice, kept: int, *, is_paid: bool) -> tuple[str, int]:
    """State and rupiah returned. What was paid too much goes back first, without touching the invoice."""
    if not is_paid:
        return Invoice.State.OPEN.value, 0
    left = min(max(kept, 0), invoice.total)
    if left == invoice.total:
        return Invoice.State.PAID.value, 0
    return (Invoice.State.PARTLY_RETURNED if left else Invoice.State.RETURNED).value, invoice.total - left


def _grant(attempt: PaymentAttempt, row: Transaction, source: str, receipt_id: int | None) -> None:
    invoice, now = attempt.invoice, clock.now()
    subscription = invoice.subscription
    period = period_of(invoice, subscription, now)
    if period is None:
        _needs_review(attempt, row, "paid when its period was over", source, receipt_id)
        return
    if period.anchor_day is not None:
        subscription.anchor_day = period.anchor_day
        subscription.save(update_fields=["anchor_day"])
    entitlements.grant(
        subscription.company_id,
        invoice.price.plan,
        period.starts_at,
        period.ends_at,
        invoice=invoice,
        actor=source,
        receipt_id=receipt_id,
    )


def _needs_review(attempt: PaymentAttempt, row: Transaction, why: str, source: str, receipt_id: int | None) -> None:
    if row.needs_review or is_final(PaymentState(row.state)):
        return
    row.needs_review = True
    row.save(update_fields=["needs_review"])
    books.entry(
        "review",
        actor=source,
        attempt=attempt,
        transaction_id=row.transaction_id,
        receipt_id=receipt_id,
        amount=attempt.amount,
        note=why,
    )
    log.error("payment_needs_review", order_id=attempt.order_id, why=why)
