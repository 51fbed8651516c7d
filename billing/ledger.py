"""Applies what Midtrans says of a payment: the same function for webhook, poller, replay and the answer of a charge.

Room: billing. Locks company, subscription, invoice, attempt, in this order everywhere. The payment, the invoice, the
grant, the subscription and the company's access change in one transaction, or nothing does. Applying the same answer
again, late, or in another order changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction

from billing import books, clock, entitlements
from billing.midtrans.payload import TransactionStatus
from billing.models import Invoice, PaymentAttempt, Transaction
from billing.schedule import plan_next_poll
from billing.settlement import settle_invoice
from billing.transitions import (
    Access,
    Effect,
    Money,
    PaymentState,
    PaymentVerdict,
    holds_access,
    is_awaited,
    judge_payment,
    money_of,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Applied:
    """``state``: of the transaction, afterwards. ``reason`` names why it was ignored: unknown_order, order, amount,
    currency, merchant, transaction, late or unexpected; empty otherwise."""

    effect: Effect
    state: PaymentState
    access: Access = Access.NONE
    reason: str = ""


# Called in the transaction of a change, with the attempt and what was said of it. One that fails is logged and undone
# by itself: it cannot keep a payment from being applied.
Follower = Callable[[PaymentAttempt, TransactionStatus, Applied], None]
_followers: list[Follower] = []


def on_payment_change(follower: Follower) -> Follower:
    """Registers, as a decorator: for what else follows from a payment, such as a card to be kept."""
    if follower not in _followers:
        _followers.append(follower)
    return follower


def apply_status(
    attempt: PaymentAttempt | str, status: TransactionStatus, *, source: str, receipt_id: int | None = None
) -> Applied:
    """``attempt``: the row or its order id. ``status``: from the API, never from a notification's body.

    ``source`` goes into the books: webhook, poller, replay, charge, or a person's username. Raises DatabaseError only.
    """
    order_id = attempt if isinstance(attempt, str) else attempt.order_id
    known = PaymentAttempt.objects.filter(order_id=order_id).values_list("invoice__subscription__company_id").first()
    if known is None:
        return Applied(Effect.IGNORED, PaymentState.CREATED, reason="unknown_order")
    with transaction.atomic():
        entitlements.locked_subscription(known[0])
        row = _locked_attempt(order_id)
        applied = _apply(row, status, source, receipt_id)
        if isinstance(attempt, PaymentAttempt):
            attempt.refresh_from_db()
    log.info("payment_status", order_id=order_id, source=source, effect=applied.effect.value, state=applied.state.value)
    return applied


def _locked_attempt(order_id: str) -> PaymentAttempt:
    attempts = PaymentAttempt.objects.filter(order_id=order_id)
    Invoice.objects.select_for_update().get(pk__in=attempts.values("invoice_id"))
    rows = PaymentAttempt.objects.select_for_update(of=("self",))
    return rows.select_related("invoice__subscription__company", "invoice__price__plan__tier").get(order_id=order_id)


def _apply(attempt: PaymentAttempt, status: TransactionStatus, source: str, receipt_id: int | None) -> Applied:
    row = Transaction.objects.filter(transaction_id=status.transaction_id).first()
    problem = _mismatch(attempt, status, row)
    if problem:
        return _refuse(attempt, status, row, problem, source, receipt_id)
    if row is None:
        row = Transaction(attempt=attempt, transaction_id=status.transaction_id, payment_type=status.payment_type)
    before = PaymentState(row.state)
    verdict = judge_payment(
        before,
        transaction_status=status.transaction_status,
        fraud_status=status.fraud_status,
        status_code=status.status_code,
    )
    if verdict.effect is Effect.IGNORED:
        return _ignore(attempt, status, row, verdict, source, receipt_id)
    _write(row, status, verdict)
    refunded_before = attempt.invoice.returned
    if verdict.effect is Effect.CHANGED:
        books.entry(
            "payment_changed",
            actor=source,
            attempt=attempt,
            transaction_id=row.transaction_id,
            receipt_id=receipt_id,
            before=before.value,
            after=verdict.state.value,
            amount=row.refunded or attempt.amount,
            note=f"{status.payment_type} {status.transaction_status} {status.status_code}",
        )
    settle_invoice(attempt, row, source=source, receipt_id=receipt_id)
    _summarize(attempt)
    applied = Applied(verdict.effect, verdict.state, verdict.access)
    if verdict.effect is Effect.CHANGED or attempt.invoice.returned != refunded_before:
        for follower in _followers:
            _tell(follower, attempt, status, applied)
    return applied


def _mismatch(attempt: PaymentAttempt, status: TransactionStatus, row: Transaction | None) -> str:
    """What shows that this answer is not about this attempt; empty when it is."""
    if status.order_id != attempt.order_id:
        return "order"
    if status.gross_amount != attempt.amount or attempt.amount != attempt.invoice.total:
        return "amount"
    if status.currency != "IDR":
        return "currency"
    if settings.MIDTRANS_MERCHANT_ID and status.merchant_id not in ("", settings.MIDTRANS_MERCHANT_ID):
        return "merchant"
    if row is not None and row.attempt_id != attempt.pk:
        return "transaction"
    return ""


def _refuse(
    attempt: PaymentAttempt,
    status: TransactionStatus,
    row: Transaction | None,
    problem: str,
    source: str,
    receipt_id: int | None,
) -> Applied:
    """Nothing of it counts; somebody looks. Said once, however often it comes."""
    note = f"{problem} does not match: {status.transaction_status} of {status.gross_amount}"
    if attempt.last_problem != note[:120]:
        books.entry(
            "mismatch",
            actor=source,
            attempt=attempt,
            transaction_id=status.transaction_id,
            receipt_id=receipt_id,
            amount=status.gross_amount,
            note=note,
        )
        attempt.last_problem = note[:120]
        attempt.save(update_fields=["last_problem"])
        log.error("payment_mismatch", order_id=attempt.order_id, problem=problem)
    return Applied(Effect.IGNORED, PaymentState(row.state if row else PaymentState.CREATED), reason=problem)


def _ignore(
    attempt: PaymentAttempt,
    status: TransactionStatus,
    row: Transaction,
    verdict: PaymentVerdict,
    source: str,
    receipt_id: int | None,
) -> Applied:
    if verdict.needs_review and not row.needs_review:
        row.needs_review = True
        row.save()
        books.entry(
            "unexpected",
            actor=source,
            attempt=attempt,
            transaction_id=row.transaction_id,
            receipt_id=receipt_id,
            before=row.state,
            note=f"{status.transaction_status} {status.fraud_status or ''} {status.status_code}",
        )
        log.error("payment_unexpected", order_id=attempt.order_id, state=row.state, told=status.transaction_status)
    return Applied(Effect.IGNORED, verdict.state, reason="unexpected" if verdict.needs_review else "late")


def _write(row: Transaction, status: TransactionStatus, verdict: PaymentVerdict) -> None:
    row.state = verdict.state.value
    row.payment_type = status.payment_type
    row.details = _details(status)
    row.needs_review |= verdict.needs_review
    if money_of(verdict.state) is not Money.UNPAID:
        row.settled_at = row.settled_at or status.settlement_time or clock.now()
    if verdict.money is Money.RETURNED:
        row.refunded = status.gross_amount
    elif verdict.money is Money.PARTLY:
        row.refunded = min(max(row.refunded, status.refund_amount), status.gross_amount)
    row.save()


def _details(status: TransactionStatus) -> dict[str, Any]:
    """What is worth keeping; nothing that charges somebody or proves anything."""
    times = {
        name: moment.isoformat()
        for name in ("transaction_time", "settlement_time", "expiry_time")
        if (moment := getattr(status, name)) is not None
    }
    texts = {
        name: text
        for name in ("masked_card", "bank", "channel_response_code", "channel_response_message", "fraud_status")
        if (text := getattr(status, name))
    }
    refunds = [
        {"id": one.chargeback_id, "amount": one.amount, "key": one.refund_key, "confirmed": one.is_confirmed}
        for one in status.refunds
    ]
    return {
        "transaction_status": status.transaction_status,
        "status_code": status.status_code,
        "payment_type": status.payment_type,
        **times,
        **texts,
        **({"refunds": refunds, "refund_amount": status.refund_amount} if refunds or status.refund_amount else {}),
    }


def _summarize(attempt: PaymentAttempt) -> None:
    """The attempt as its transactions stand, and when it is asked for again."""
    rows = list(attempt.transactions.all())
    best = max(rows, key=lambda row: (_weight(PaymentState(row.state)), row.pk))
    attempt.state = best.state
    attempt.last_problem = ""
    if best.state in (PaymentState.DENIED, PaymentState.FAILED):
        code, message = (best.details.get(f"channel_response_{part}", "") for part in ("code", "message"))
        attempt.last_problem = f"{code} {message}".strip()[:120] or best.details.get("transaction_status", "")
    plan_next_poll(attempt, rows, clock.now())
    attempt.save()


def _weight(state: PaymentState) -> int:
    """Which of several transactions says most about their order."""
    if holds_access(state):
        return 4
    if state is PaymentState.CREATED:
        return 0
    if is_awaited(state):
        return 3
    return 2 if money_of(state) is Money.RETURNED else 1


def _tell(follower: Follower, attempt: PaymentAttempt, status: TransactionStatus, applied: Applied) -> None:
    try:
        with transaction.atomic():
            follower(attempt, status, applied)
    except Exception:
        log.exception("payment_follower_failed", order_id=attempt.order_id)
