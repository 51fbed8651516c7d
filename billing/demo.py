"""Plans of the demo's companies: given in the demo's name, as the books say. Room: billing."""

from collections.abc import Mapping
from datetime import timedelta

from django.db import transaction

from billing import books, clock, entitlements
from billing.models import AccessGrant, PaymentAttempt, Plan, Subscription
from billing.transitions import PaymentState, is_awaited
from tenants import access
from tenants.access import Actor

DEMO = "demo"
_LENGTH = timedelta(days=365)


@transaction.atomic
def give_plans(tiers: Mapping[str, str]) -> None:
    """``tiers``: code of the tier by the company's short name. What was given, bought or taken back since is kept."""
    for company in access.companies(Actor.system(DEMO)):
        code = tiers.get(company.slug)
        if code is None:
            continue
        subscription, _ = Subscription.objects.get_or_create(company_id=company.company_id)
        plan = Plan.objects.get(tier__code=code)
        if code == entitlements.FREE or _has_something(subscription):
            continue
        now = clock.now()
        entitlements.grant(subscription.company_id, plan, now, now + _LENGTH, given_by=DEMO, actor=DEMO)


def _has_something(subscription: Subscription) -> bool:
    rows = AccessGrant.objects.filter(company_id=subscription.company_id)
    is_running = rows.filter(ends_at__gt=clock.now()).exists()
    return is_running or subscription.state != "none"


@transaction.atomic
def forget_payments() -> int:
    """Ends what was begun and not paid: the stand-in that knew of it has forgotten it. How many."""
    unpaid = [state.value for state in PaymentState if is_awaited(state)]
    rows = PaymentAttempt.objects.filter(is_closed=False, state__in=unpaid).select_related("invoice__subscription")
    ended, note = PaymentState.EXPIRED.value, "the stand-in for Midtrans was started anew"
    begun = list(rows)
    for row in begun:
        before, row.state, row.is_closed, row.next_poll_at = row.state, ended, True, None
        row.save(update_fields=["state", "is_closed", "next_poll_at"])
        books.entry("attempt_closed", actor=DEMO, attempt=row, before=before, after=ended, note=note)
        for payment in row.transactions.filter(state__in=unpaid):
            before, payment.state = payment.state, ended
            payment.save(update_fields=["state"])
            books.entry(
                "payment_changed",
                actor=DEMO,
                attempt=row,
                transaction_id=payment.transaction_id,
                before=before,
                after=ended,
                amount=row.amount,
                note=note,
            )
    return len(begun)
