"""What happens when nobody pays: retries, reminders, grace, cut-off, end. Room: billing.

Jobs of the worker, bounded in one turn and safe in several workers at once: each row is looked at again under the lock
of its company. Mails go out after the transaction of what they tell.
"""

from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import DateTimeField, Exists, ExpressionWrapper, F, OuterRef, Q

from billing import attempts, charges, clock, entitlements, failures, methods, notices, refunds
from billing.invoices import locked, open_invoices, void
from billing.lifecycle import move
from billing.midtrans.client import MidtransClient
from billing.models import Invoice, PaymentAttempt, PaymentMethod, Subscription
from billing.periods import REMINDER_DAYS, due_reminder
from billing.transitions import PaymentState, SubscriptionEvent, SubscriptionState
from billing.turns import in_turn

log = structlog.get_logger(__name__)

ACTOR = "worker"
_LIMIT = 100
_WITH_PERIOD = (SubscriptionState.ACTIVE.value, SubscriptionState.CANCELLING.value, SubscriptionState.TRIAL.value)
# A customer is just paying by a page: the charge waits.
_STEP_ASIDE = timedelta(hours=1)
_ACCESS_ENDS = ExpressionWrapper(F("paid_until") + F("company__grace"), output_field=DateTimeField())


def retry_due(limit: int = _LIMIT) -> int:
    """Ends what was begun and left, notes what failed, tries again what is due; how much it did."""
    done = in_turn(charges.unfinished(limit), failures.resume)
    done += in_turn(failures.waiting(limit), failures.note_failure)
    due = Subscription.objects.filter(next_retry_at__lte=clock.now()).order_by("next_retry_at")
    done += in_turn(due.values_list("company_id", flat=True)[:limit], _retry)
    done += in_turn(_left_behind()[:limit], _take_back)
    return done + methods.complete() + refunds.ask_again(limit)


def remind_due(limit: int = _LIMIT) -> int:
    """Tells who has to pay, and when: seven days, three days and one day ahead; how many companies."""
    now = clock.now()
    soon = now + timedelta(days=max(REMINDER_DAYS) + 1)
    rows = Subscription.objects.filter(state=SubscriptionState.ACTIVE.value, paid_until__gt=now, paid_until__lte=soon)
    due = [
        company_id
        for company_id, paid_until, sent in rows.values_list("company_id", "paid_until", "reminders_sent")
        if paid_until is not None and due_reminder(paid_until, now=now, sent=sent) is not None
    ]
    return in_turn(due[:limit], _remind)


def end_due(limit: int = _LIMIT) -> int:
    """Ends periods, grace times, and what was owed for too long; how many. Asks nothing of Midtrans."""
    now = clock.now()
    rows = Subscription.objects.annotate(access_ends=_ACCESS_ENDS)
    over = Q(state__in=_WITH_PERIOD, paid_until__lte=now)
    over |= Q(state=SubscriptionState.PAST_DUE.value, access_ends__lte=now)
    over |= Q(state=SubscriptionState.UNPAID.value, state_since__lte=_written_off_before(now))
    done = in_turn(rows.filter(over).order_by("paid_until").values_list("company_id", flat=True)[:limit], _end)
    waiting = PaymentAttempt.objects.filter(invoice=OuterRef("pk"), is_closed=False)
    stale = Invoice.objects.filter(~Exists(waiting), state=Invoice.State.OPEN).filter(
        (Q(due_at__lte=now) & ~Q(kind=Invoice.Kind.RENEWAL))
        | Q(kind=Invoice.Kind.RENEWAL, subscription__state__in=[SubscriptionState.ENDED, SubscriptionState.CANCELLING])
    )
    return done + in_turn(stale.order_by("due_at").values_list("pk", flat=True)[:limit], _void_stale)


def _retry(company_id: UUID) -> bool:
    now = clock.now()
    with transaction.atomic():
        subscription = locked(company_id)
        if subscription.next_retry_at is None or subscription.next_retry_at > now:
            return False
        method = PaymentMethod.objects.filter(methods.usable(), pk=subscription.method_id or 0).first()
        invoice = next(iter(open_invoices(subscription, [Invoice.Kind.RENEWAL])), None)
        is_wanted = invoice is not None and method is not None and subscription.state in failures.CHARGED
        is_busy = invoice is not None and invoice.attempts.filter(is_closed=False).exists()
        subscription.next_retry_at = now + _STEP_ASIDE if is_wanted and is_busy else None
        subscription.save(update_fields=["next_retry_at"])
        if invoice is None or method is None or not is_wanted or is_busy:
            return False
        attempt = charges.prepare(invoice, method)
    failures.charge_now(attempt)
    return True


def _remind(company_id: UUID) -> bool:
    now = clock.now()
    with transaction.atomic():
        subscription = locked(company_id)
        end = subscription.paid_until
        price = subscription.next_price or subscription.price
        if subscription.state != SubscriptionState.ACTIVE or end is None or price is None:
            return False
        days = due_reminder(end, now=now, sent=subscription.reminders_sent)
        if days is None:
            return False
        subscription.reminders_sent = [*subscription.reminders_sent, days]
        subscription.save(update_fields=["reminders_sent"])
        method = PaymentMethod.objects.filter(methods.usable(), pk=subscription.method_id or 0).first()
        invoice = next(iter(open_invoices(subscription, [Invoice.Kind.RENEWAL])), None)
    if subscription.first_failure_at is not None or (method is not None and days != max(REMINDER_DAYS)):
        # Told already, by the mail of a charge that failed; or there is nothing to do but to know of the charge once.
        return True
    link = notices.invoice_page(invoice) if invoice is not None else notices.plan_page()
    kind = "due" if method is None else "charge_ahead"
    notices.send(kind, subscription, amount=price.amount, method=method, link=link)
    return True


def _end(company_id: UUID) -> bool:
    now = clock.now()
    with transaction.atomic():
        subscription = locked(company_id)
        before = subscription.state
        event = _event(subscription, now)
        if event is None:
            return False
        move(subscription, event, actor=ACTOR)
        entitlements.refresh(subscription.company_id, actor=ACTOR)
        subscription.refresh_from_db(fields=["state", "next_retry_at", "paid_until"])
        invoice = next(iter(open_invoices(subscription, [Invoice.Kind.RENEWAL])), None)
        if subscription.state == SubscriptionState.UNPAID:
            subscription.next_retry_at = None
            subscription.save(update_fields=["next_retry_at"])
    kind = {"past_due": "past_due", "unpaid": "cut_off", "ended": "ended"}.get(subscription.state)
    if kind is not None and subscription.state != before:
        price = subscription.next_price or subscription.price
        amount = invoice.total if invoice is not None else price.amount if price is not None else 0
        link = notices.invoice_page(invoice) if invoice is not None and kind != "ended" else notices.plan_page()
        notices.send(kind, subscription, amount=amount, link=link, until=failures.access_ends(subscription))
    return True


def _event(subscription: Subscription, now: datetime) -> SubscriptionEvent | None:
    """What is over, as the row stands under its lock."""
    state, end = subscription.state, subscription.paid_until
    if state in _WITH_PERIOD and end is not None and end <= now:
        return SubscriptionEvent.PERIOD_ENDED
    if state == SubscriptionState.PAST_DUE and failures.access_ends(subscription) <= now:
        return SubscriptionEvent.GRACE_ENDED
    since = subscription.state_since
    if state == SubscriptionState.UNPAID and since is not None and since <= _written_off_before(now):
        return SubscriptionEvent.WRITTEN_OFF
    return None


def _void_stale(invoice_id: int) -> bool:
    company_id = Invoice.objects.values_list("subscription__company_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        opened = {invoice.pk: invoice for invoice in open_invoices(locked(company_id))}
        invoice = opened.get(invoice_id)
        if invoice is None or invoice.attempts.filter(is_closed=False).exists():
            return False
        void(invoice, actor=ACTOR, why="nobody waits for it any more")
    return True


def _left_behind() -> list[int]:
    """Payments that customers began for invoices that are void since."""
    begun = [PaymentState.PENDING.value, PaymentState.AUTHORIZED.value, PaymentState.CHALLENGED.value]
    before = clock.now() - attempts.LEASE
    rows = PaymentAttempt.objects.filter(
        Q(asked_at__isnull=True) | Q(asked_at__lte=before),
        invoice__state=Invoice.State.VOID, is_closed=False, state__in=begun,
    )  # fmt: skip
    return list(rows.order_by("pk").values_list("pk", flat=True))


def _take_back(attempt_id: int) -> bool:
    attempt = PaymentAttempt.objects.select_related("invoice__subscription").get(pk=attempt_id)
    if not attempts.take(attempt):
        return False
    with MidtransClient.from_settings() as client:
        return attempts.end_pending(client, attempt, source=ACTOR)


def _written_off_before(now: datetime) -> datetime:
    return now - timedelta(seconds=settings.GATEWAY_WRITE_OFF_DELAY)
