"""What becomes of a message at our endpoints once it is stored. Room: billing.

A genuine message is only a reason to look: its body says nothing that counts. The verdict compares what it told with
what ``GET status`` says. A receipt that waits is taken by whoever comes first; being taken twice does no harm.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import structlog
from django.db import transaction
from django.db.models import Q

from billing import books, clock, entitlements, polling
from billing.ledger import Applied, apply_status
from billing.midtrans.client import MidtransClient
from billing.midtrans.outcomes import Done, Refusal, Refused
from billing.midtrans.payload import Kind, PayloadError, TransactionStatus, kind_of, parse_account, parse_transaction
from billing.models import PaymentAttempt, WebhookReceipt
from billing.transitions import Effect, judge_payment

log = structlog.get_logger(__name__)

Verdict = WebhookReceipt.Verdict
Source = WebhookReceipt.Source
# The worker leaves new ones to the process that took them for so long.
FIRST_TRY = timedelta(seconds=3)
_LONGEST_PAUSE = timedelta(minutes=5)
_GIVE_UP = timedelta(days=1)
_WITHOUT_EFFECT = (Verdict.DUPLICATE, Verdict.IGNORED, Verdict.FAILED)
# Midtrans' answer may be a moment behind its own message.
_CONFIRMATION_TRIES = 3
# Seconds of one turn of the worker, and receipts in it.
_TURN = 15.0
_BATCH = 500

# Told that a linked GoPay account has changed, with its id; the handler asks Midtrans itself.
AccountHandler = Callable[[str], None]
_account_handlers: list[AccountHandler] = []
# By transaction id: what Midtrans said, and what it led to.
Answers = dict[str, tuple[TransactionStatus, Applied]]


def on_account_change(handler: AccountHandler) -> AccountHandler:
    """Registers, as a decorator. A handler that raises is called again later."""
    if handler not in _account_handlers:
        _account_handlers.append(handler)
    return handler


def process_waiting() -> int:
    """Everything whose time has come; how many orders and events got a verdict. Any number of workers may run it."""
    due = WebhookReceipt.objects.filter(verdict=Verdict.WAITING, next_try_at__lte=clock.now()).order_by("pk")
    until, done = time.monotonic() + _TURN, 0
    rows = list(due.values_list("pk", "order_id")[:_BATCH])
    if not rows:
        return 0
    orders: set[str] = set()
    with MidtransClient.from_settings() as client:
        for pk, order_id in rows:
            if time.monotonic() > until:
                break
            # The first one of an order has answered the others.
            if order_id not in orders:
                done += process(pk, client=client) != Verdict.WAITING
            if order_id:
                orders.add(order_id)
    return done


def process(receipt_id: int, *, client: MidtransClient | None = None) -> str:
    """Looks after one receipt that waits; its verdict, WAITING when it is to be tried again. Blocks on Midtrans."""
    receipt = WebhookReceipt.objects.get(pk=receipt_id)
    if not _claim(receipt):
        return receipt.verdict
    try:
        if receipt.source == Source.EVENTS:
            _process_event(receipt, client)
        elif receipt.order_id:
            _process_order(receipt, client)
        else:
            _process_account(receipt)
    except Exception:
        log.exception("receipt_failed", receipt_id=receipt.pk, tries=receipt.tries)
        conclude(receipt, Verdict.WAITING, "error")
    return receipt.verdict


def conclude(receipt: WebhookReceipt, verdict: str, reason: str = "") -> None:
    """Writes the verdict, once: the first one that is written stands. WAITING: it is tried again, for a day."""
    _conclude_all([(receipt, verdict, reason)])


def _conclude_all(found: list[tuple[WebhookReceipt, str, str]]) -> None:
    """Verdict and reason of each, in one transaction; a storm brings many of the same order."""
    now = clock.now()
    with transaction.atomic():
        rows = WebhookReceipt.objects.select_for_update().filter(
            pk__in=[receipt.pk for receipt, _, _ in found], verdict=Verdict.WAITING
        )
        held = {row.pk: row for row in rows.order_by("pk")}
        keys = {row.event_key for row in held.values() if row.event_key}
        known = WebhookReceipt.objects.filter(event_key__in=keys, verdict=Verdict.APPLIED)
        applied = set(known.values_list("source", "event_key")) if keys else set()
        for receipt, verdict, reason in found:
            row = held.get(receipt.pk)
            if row is None:
                continue
            event = (row.source, row.event_key)
            if verdict == Verdict.WAITING and now - row.received_at > _GIVE_UP:
                verdict = Verdict.FAILED
            elif verdict == Verdict.APPLIED and event in applied:
                verdict, reason = Verdict.DUPLICATE, ""
            elif verdict == Verdict.APPLIED and row.event_key:
                applied.add(event)
            row.verdict, row.reason = str(verdict), reason[:120]
            if verdict != Verdict.WAITING:
                row.processed_at, row.next_try_at = now, None
            receipt.verdict, receipt.reason = row.verdict, row.reason
        _write(list(held.values()))


def _write(rows: list[WebhookReceipt]) -> None:
    """In as many statements as there are different verdicts, however many rows."""
    groups: dict[tuple[str, str], list[WebhookReceipt]] = defaultdict(list)
    for row in rows:
        groups[row.verdict, row.reason].append(row)
    for (verdict, reason), same in groups.items():
        changes: dict[str, Any] = {"verdict": verdict, "reason": reason}
        if verdict != Verdict.WAITING:
            changes |= {"processed_at": same[0].processed_at, "next_try_at": None}
        WebhookReceipt.objects.filter(pk__in=[row.pk for row in same]).update(**changes)
        if verdict in _WITHOUT_EFFECT:
            note_verdicts(same)


def note_verdicts(rows: list[WebhookReceipt]) -> None:
    """A line each in the books for messages that had no effect."""
    books.entries(
        {
            "kind": f"webhook_{row.verdict}",
            "actor": "webhook",
            "order_id": row.order_id,
            "receipt_id": row.pk,
            "note": f"{row.source}: {row.reason}" if row.reason else row.source,
        }
        for row in rows
    )


def is_applied(source: str, event_key: str) -> bool:
    """Whether this event has had its effect before."""
    rows = WebhookReceipt.objects.filter(source=source, event_key=event_key, verdict=Verdict.APPLIED)
    return bool(event_key) and rows.exists()


def _claim(receipt: WebhookReceipt) -> bool:
    """Keeps others away until its next time; False: it has its verdict, or somebody is at it."""
    now = clock.now()
    pause = min(timedelta(seconds=5 * 3 ** min(receipt.tries, 6)), _LONGEST_PAUSE)
    free = Q(tries=0) | Q(next_try_at__lte=now)
    rows = WebhookReceipt.objects.filter(free, pk=receipt.pk, verdict=Verdict.WAITING, tries=receipt.tries)
    if not rows.update(tries=receipt.tries + 1, next_try_at=now + pause):
        return False
    receipt.tries, receipt.next_try_at = receipt.tries + 1, now + pause
    return True


# --- Notifications of Midtrans ----------------------------------------------------------------------------------------


def _process_order(receipt: WebhookReceipt, client: MidtransClient | None) -> None:
    if is_applied(receipt.source, receipt.event_key):
        conclude(receipt, Verdict.DUPLICATE)
        return
    if not PaymentAttempt.objects.filter(order_id=receipt.order_id).exists():
        conclude(receipt, Verdict.IGNORED, "unknown_order")
        return
    # One look answers all that were there before it.
    waiting = WebhookReceipt.objects.filter(verdict=Verdict.WAITING, source=receipt.source, order_id=receipt.order_id)
    receipts = sorted([receipt, *waiting.exclude(pk=receipt.pk)], key=lambda one: one.pk)
    answers: Answers = {}
    problem = _look(receipt.order_id, receipt, client, answers)
    found = []
    for one in receipts:
        told = _told(one)
        if told is not None and told.transaction_id.lower() not in answers and answers:
            # Of an earlier transaction of the same order.
            problem = _look(told.transaction_id, one, client, answers)
        found.append((one, *_verdict_of(one, told, answers, problem)))
    _conclude_all(found)


def _look(
    reference: str,
    receipt: WebhookReceipt,
    client: MidtransClient | None,
    answers: Answers,
) -> str:
    """Asks and applies; adds to ``answers`` by transaction id. Says what is the matter when there is no answer."""
    outcome = polling.ask(reference, client=client)
    if isinstance(outcome, Done):
        status = outcome.value
        applied = apply_status(receipt.order_id, status, source="webhook", receipt_id=receipt.pk)
        answers[status.transaction_id.lower()] = (status, applied)
        return ""
    if isinstance(outcome, Refused):
        return "missing" if outcome.reason is Refusal.MISSING else f"Midtrans: {outcome.reason.value}"
    return f"Midtrans: {outcome.doubt.value}"


def _verdict_of(
    receipt: WebhookReceipt, told: TransactionStatus | None, answers: Answers, problem: str
) -> tuple[str, str]:
    """Verdict and reason: does Midtrans' answer say what the message told?"""
    not_confirmed = (
        Verdict.WAITING if receipt.tries < _CONFIRMATION_TRIES else Verdict.IGNORED,
        "not confirmed",
    )
    status, applied = answers.get(told.transaction_id.lower() if told else "", (None, None))
    if told is None:
        # Genuine, and not readable: it was a reason to look all the same.
        return (Verdict.WAITING, problem) if problem else (Verdict.IGNORED, "unreadable")
    if status is None or applied is None:
        return not_confirmed if problem in ("", "missing") else (Verdict.WAITING, problem)
    if applied.reason and applied.reason not in ("late", "unexpected"):
        return Verdict.IGNORED, f"{applied.reason} does not match"
    if told.gross_amount != status.gross_amount:
        return Verdict.IGNORED, "amount does not match"
    verdict = judge_payment(
        applied.state,
        transaction_status=told.transaction_status,
        fraud_status=told.fraud_status,
        status_code=told.status_code,
    )
    if verdict.effect is Effect.UNCHANGED:
        return Verdict.APPLIED, ""
    if verdict.effect is Effect.IGNORED and not verdict.needs_review:
        return Verdict.IGNORED, "late"
    return not_confirmed


def _told(receipt: WebhookReceipt) -> TransactionStatus | None:
    try:
        return parse_transaction(receipt.body)
    except PayloadError:
        return None


def _process_account(receipt: WebhookReceipt) -> None:
    if kind_of(receipt.body) is not Kind.ACCOUNT or not _account_handlers:
        conclude(receipt, Verdict.IGNORED, "nothing to do")
        return
    account = parse_account(receipt.body)
    for handler in _account_handlers:
        handler(account.account_id)
    conclude(receipt, Verdict.APPLIED)


# --- Events of our own payment service --------------------------------------------------------------------------------


def _process_event(receipt: WebhookReceipt, client: MidtransClient | None) -> None:
    if is_applied(receipt.source, receipt.event_key):
        conclude(receipt, Verdict.DUPLICATE)
        return
    kind, data = receipt.body.get("type"), receipt.body.get("data")
    subject: dict[str, Any] = data if isinstance(data, dict) else {}
    if kind == "payment.updated":
        _event_of_payment(receipt, client)
    elif kind == "subscription.updated":
        company_id = _uuid_of(subject.get("company_id"))
        known = company_id is not None and entitlements.refresh(company_id, actor="webhook") is not None
        conclude(receipt, Verdict.APPLIED if known else Verdict.IGNORED, "" if known else "unknown_company")
    else:
        conclude(receipt, Verdict.IGNORED, "unknown_type")


def _event_of_payment(receipt: WebhookReceipt, client: MidtransClient | None) -> None:
    attempt = PaymentAttempt.objects.filter(order_id=receipt.order_id).first()
    if attempt is None:
        conclude(receipt, Verdict.IGNORED, "unknown_order")
    elif polling.poll_attempt(attempt, source="webhook", receipt_id=receipt.pk, client=client) is None:
        conclude(receipt, Verdict.WAITING, attempt.last_problem or "not started")
    else:
        conclude(receipt, Verdict.APPLIED)


def _uuid_of(text: object) -> uuid.UUID | None:
    try:
        return uuid.UUID(text) if isinstance(text, str) else None
    except ValueError:
        return None
