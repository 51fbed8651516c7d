"""Asks Midtrans for what its notifications did not bring. Room: billing.

Nothing here decides about money: every answer goes to the ledger. "Not found" is not started, and no answer is
unknown; neither is a failure. Several workers may run it: each claims an attempt by a conditional update first.
"""

from datetime import timedelta

import structlog
from django.db import transaction
from django.db.models import F, Q

from billing import books, clock
from billing.ledger import Applied, apply_status
from billing.midtrans.client import MidtransClient
from billing.midtrans.outcomes import Done, Outcome, Refusal, Refused
from billing.midtrans.payload import TransactionStatus
from billing.models import PaymentAttempt, WebhookReceipt
from billing.schedule import FIRST_LOOK, plan_next_poll
from billing.transitions import Effect
from billing.turns import in_turn

log = structlog.get_logger(__name__)

# How long a claim keeps others away; longer than Midtrans may take to answer.
_CLAIM = timedelta(minutes=1)
_BATCH = 200
_HEARD = (WebhookReceipt.Verdict.REFUSED, WebhookReceipt.Verdict.FAILED)


def poll_due() -> int:
    """Looks after every attempt that is due; how many changed. Bounded: what is left is done in the next turn."""
    now = clock.now()
    due = Q(next_poll_at__lte=now) | Q(next_poll_at__isnull=True, created_at__lte=now - FIRST_LOOK)
    waiting = PaymentAttempt.objects.filter(due, is_closed=False).order_by(F("next_poll_at").asc(nulls_first=True))
    pks = list(waiting.values_list("pk", flat=True)[:_BATCH])
    if not pks:
        return 0
    with MidtransClient.from_settings() as client:

        def poll(pk: int) -> bool:
            if not PaymentAttempt.objects.filter(due, pk=pk, is_closed=False).update(next_poll_at=now + _CLAIM):
                return False
            applied = poll_attempt(PaymentAttempt.objects.get(pk=pk), client=client)
            return applied is not None and applied.effect is Effect.CHANGED

        return in_turn(pks, poll)


def poll_attempt(
    attempt: PaymentAttempt,
    *,
    source: str = "poller",
    receipt_id: int | None = None,
    client: MidtransClient | None = None,
) -> Applied | None:
    """Asks for the state of one order now and applies the answer; None: Midtrans did not say one.

    The row in hand is up to date afterwards. Blocks for as long as Midtrans takes; call it outside of a transaction.
    """
    outcome = ask(attempt.order_id, client=client)
    if isinstance(outcome, Done):
        applied = apply_status(attempt, outcome.value, source=source, receipt_id=receipt_id)
        if source == "poller":
            _note_find(attempt, outcome.value, applied)
        if applied.effect is Effect.IGNORED:
            _plan(attempt, "")
        return applied
    if isinstance(outcome, Refused):
        is_missing = outcome.reason is Refusal.MISSING
        _plan(attempt, "" if is_missing else f"Midtrans: {outcome.reason.value}", is_known=is_missing)
    else:
        _plan(attempt, f"Midtrans: {outcome.doubt.value}", is_known=False)
    return None


def ask(reference: str, *, client: MidtransClient | None = None) -> Outcome[TransactionStatus]:
    """``GET status`` of an order id or a transaction id."""
    if client is not None:
        return client.status(reference)
    with MidtransClient.from_settings() as own:
        return own.status(reference)


def _plan(attempt: PaymentAttempt, problem: str, *, is_known: bool = True) -> None:
    """When it is asked for again. Without a word of Midtrans (``is_known``) nothing is given up."""
    with transaction.atomic():
        row = PaymentAttempt.objects.select_for_update(of=("self",)).select_related("invoice").get(pk=attempt.pk)
        plan_next_poll(row, list(row.transactions.all()), clock.now())
        if not is_known and row.is_closed:
            row.is_closed, row.next_poll_at = False, clock.now() + FIRST_LOOK
        row.polls += 1
        row.last_problem = problem[:120] or row.last_problem
        row.save(update_fields=["next_poll_at", "is_closed", "polls", "last_problem"])
    attempt.refresh_from_db()


def _note_find(attempt: PaymentAttempt, status: TransactionStatus, applied: Applied) -> None:
    """A change that no notification has told of: worth knowing when many are lost."""
    PaymentAttempt.objects.filter(pk=attempt.pk).update(polls=F("polls") + 1)
    if applied.effect is not Effect.CHANGED:
        return
    told = f"{status.transaction_id.lower()}|{status.transaction_status}|"
    heard = WebhookReceipt.objects.filter(order_id=attempt.order_id, event_key__startswith=told).exclude(
        verdict__in=_HEARD
    )
    if not heard.exists():
        books.entry(
            "found_by_poll",
            actor="poller",
            attempt=attempt,
            transaction_id=status.transaction_id,
            after=applied.state.value,
            amount=attempt.amount,
        )
        log.warning("payment_found_by_poll", order_id=attempt.order_id, state=applied.state.value)
