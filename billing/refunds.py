"""Money goes back: refunds by operators, and captures that are cancelled before they settle. Room: billing.

A refund is written down with its key before Midtrans is asked; the same key again is the same refund, so one whose
answer was lost is asked again (for seven days). What a refund does to invoice and access, the ledger decides by what
GET status then tells.
"""

import secrets
from datetime import timedelta

import structlog
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Q, Sum
from django.utils.translation import gettext as _

from billing import attempts, books, clock
from billing.invoices import locked
from billing.midtrans.client import MidtransClient
from billing.midtrans.outcomes import Done, Outcome, Refused
from billing.midtrans.payload import TransactionStatus
from billing.models import Refund, Transaction
from billing.money import rupiah
from billing.problems import BillingError
from billing.transitions import PaymentState
from tenants.access import Actor, find

log = structlog.get_logger(__name__)

_CARD, _DIRECT = "credit_card", frozenset({"gopay", "qris"})
_PAID = frozenset({PaymentState.SETTLED, PaymentState.PARTIALLY_REFUNDED})
# Midtrans takes the same key again for this long.
_KEY_LIFE = timedelta(days=7)


def refund(actor: Actor, payment: Transaction, *, amount: int | None = None, reason: str) -> Refund:
    """Sends ``amount`` rupiah back, None: all that is left. For operators.

    The row that comes back is done, refused, or still asked: then nobody knows yet, and the worker asks again. Raises
    PermissionDenied, NotVisible, and BillingError where the payment cannot be sent back.
    """
    if not actor.sees_all:
        raise PermissionDenied("only an operator sends money back")
    row = find(actor, Transaction, pk=payment.pk)
    with transaction.atomic():
        made = _write(actor, row, amount, reason)
    ask(made)
    made.refresh_from_db()
    return made


def cancel_capture(actor: Actor, payment: Transaction) -> Transaction:
    """Takes back a card payment that has not settled yet: nothing is booked to the card. For operators."""
    if not actor.sees_all:
        raise PermissionDenied("only an operator cancels a payment")
    row = find(actor, Transaction, pk=payment.pk)
    if row.state not in (PaymentState.CAPTURED, PaymentState.CHALLENGED, PaymentState.AUTHORIZED):
        raise BillingError(_("Only a card payment that has not settled can be cancelled: refund this one."))
    books.entry("cancel_asked", actor=actor.name, attempt=row.attempt, transaction_id=row.transaction_id)
    with MidtransClient.from_settings() as client:
        if not attempts.end_pending(client, row.attempt, source=actor.name):
            raise BillingError(_("Midtrans does not answer at the moment: try again in a minute."), is_temporary=True)
    row.refresh_from_db()
    if row.state in _PAID:
        raise BillingError(_("The payment has settled meanwhile: refund it."))
    return row


def ask_again(limit: int) -> int:
    """Those of which nobody knows whether Midtrans has them; how many have an end now."""
    before = clock.now() - attempts.LEASE
    idle = Q(asked_at__isnull=True, created_at__lte=before) | Q(asked_at__lte=before)
    rows = Refund.objects.filter(idle, state=Refund.State.ASKED).order_by("asked_at", "pk")[:limit]
    return sum(ask(row) for row in list(rows))


def ask(row: Refund) -> bool:
    """Asks Midtrans for it, the first time or again; whether it has an end now."""
    now = clock.now()
    free = Q(asked_at__isnull=True) | Q(asked_at__lte=now - attempts.LEASE)
    if not Refund.objects.filter(free, pk=row.pk, state=Refund.State.ASKED).update(asked_at=now):
        return False
    if now - row.created_at > _KEY_LIFE:
        return _end(row, Refund.State.REFUSED, "Midtrans did not answer for seven days: look at its dashboard")
    with MidtransClient.from_settings() as client:
        outcome = _call(client, row)
        if isinstance(outcome, Refused):
            return _end(row, Refund.State.REFUSED, f"{outcome.status_code} {outcome.message}")
        if not isinstance(outcome, Done):
            return False
        _end(row, Refund.State.DONE, "")
        # How much went back in all is told there; when this gets no answer, the notification or the poller brings it.
        attempts.look(client, row.transaction.attempt, source=row.asked_by)
    return True


def _write(actor: Actor, payment: Transaction, amount: int | None, reason: str) -> Refund:
    attempt = payment.attempt
    locked(attempt.invoice.subscription.company_id)
    row = Transaction.objects.select_for_update(of=("self",)).get(pk=payment.pk)
    if row.payment_type not in {_CARD, *_DIRECT}:
        raise BillingError(
            _("Midtrans cannot send a bank transfer back: transfer the money by your bank, and give or take access.")
        )
    if row.state == PaymentState.CAPTURED:
        raise BillingError(_("The payment has not settled yet: cancel it instead."))
    if row.state not in _PAID:
        raise BillingError(_("Only a settled payment can be sent back; this one is %(state)s.") % {"state": row.state})
    waiting = row.refunds.filter(state=Refund.State.ASKED).aggregate(sum=Sum("amount"))["sum"] or 0
    left = attempt.amount - row.refunded - waiting
    wanted = left if amount is None else amount
    if not 0 < wanted <= left:
        raise BillingError(_("Between 1 rupiah and %(left)s can be sent back.") % {"left": rupiah(left)})
    made = Refund.objects.create(
        transaction=row, refund_key=f"rf-{row.pk}-{secrets.token_hex(6)}", amount=wanted, reason=reason[:200],
        asked_by=actor.name, created_at=clock.now(),
    )  # fmt: skip
    books.entry(
        "refund_asked", actor=actor.name, attempt=attempt, transaction_id=row.transaction_id, amount=wanted,
        note=reason,
    )  # fmt: skip
    return made


def _call(client: MidtransClient, row: Refund) -> Outcome[TransactionStatus]:
    payment = row.transaction
    send = client.refund_direct if payment.payment_type in _DIRECT else client.refund
    return send(payment.transaction_id, refund_key=row.refund_key, amount=row.amount, reason=row.reason)


def _end(row: Refund, state: Refund.State, problem: str) -> bool:
    with transaction.atomic():
        if not Refund.objects.filter(pk=row.pk, state=Refund.State.ASKED).update(state=state, problem=problem[:120]):
            return False
        payment = row.transaction
        books.entry(
            f"refund_{state.value}", actor=row.asked_by, attempt=payment.attempt,
            transaction_id=payment.transaction_id, amount=row.amount, note=problem,
        )  # fmt: skip
    return True
