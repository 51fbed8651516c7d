"""Looks again, for an operator: after one message, or after one order. Room: billing.

The body of a message is never applied; whatever it said, Midtrans is asked.
"""

import uuid

from billing import books, clock, entitlements, polling, receipts
from billing.models import PaymentAttempt, WebhookReceipt

Verdict = WebhookReceipt.Verdict
# Their verdict is still to be found, or was given up.
_OPEN = (Verdict.RECEIVED, Verdict.WAITING, Verdict.FAILED)


def replay_receipt(receipt_id: int, *, actor: str) -> str:
    """What became of it, in words. ``actor``: the name of who asked. Blocks on Midtrans.

    Raises WebhookReceipt.DoesNotExist.
    """
    receipt = WebhookReceipt.objects.get(pk=receipt_id)
    books.entry("replayed", actor=actor, order_id=receipt.order_id, receipt_id=receipt.pk, before=receipt.verdict)
    if receipt.verdict in _OPEN:
        again = {"verdict": Verdict.WAITING, "tries": 0, "received_at": clock.now(), "next_try_at": clock.now()}
        WebhookReceipt.objects.filter(pk=receipt.pk, verdict=receipt.verdict).update(**again)
        verdict = receipts.process(receipt.pk)
        receipt.refresh_from_db()
        return f"{verdict}: {receipt.reason}" if receipt.reason else verdict
    if receipt.order_id:
        return _look(receipt.order_id, receipt.pk)
    subject = receipt.body.get("data")
    company_id = subject.get("company_id") if isinstance(subject, dict) else None
    try:
        known = entitlements.refresh(uuid.UUID(str(company_id)), actor="replay")
    except ValueError:
        return "nothing to look after"
    return "refreshed" if known is not None else "unknown company"


def replay_order(order_id: str, *, actor: str) -> str:
    """As ``replay_receipt``, for an order of which no message is needed."""
    books.entry("replayed", actor=actor, order_id=order_id)
    return _look(order_id, None)


def _look(order_id: str, receipt_id: int | None) -> str:
    attempt = PaymentAttempt.objects.filter(order_id=order_id).first()
    if attempt is None:
        return "not an order of ours"
    before = attempt.state
    applied = polling.poll_attempt(attempt, source="replay", receipt_id=receipt_id)
    if applied is None:
        return f"no answer: {attempt.last_problem or 'not started at Midtrans'}"
    if applied.reason:
        return f"ignored: {applied.reason}"
    return f"{applied.effect.value}: {before} -> {attempt.state}" if before != attempt.state else applied.effect.value
