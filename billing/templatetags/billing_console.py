"""What an operator should look at first. Room: billing."""

from dataclasses import dataclass
from datetime import timedelta

from django import template
from django.urls import reverse
from django.utils.translation import gettext as _

from billing import clock
from billing.models import BillingEntry, Invoice, Subscription, Transaction, WebhookReceipt
from billing.transitions import SubscriptionState

register = template.Library()
_LATELY = timedelta(days=1)
# A receipt that waits longer than this is stuck.
_LONG = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Matter:
    label: str
    url: str
    count: int


@register.inclusion_tag("admin/billing/attention.html")
def billing_attention() -> dict[str, list[Matter]]:
    now = clock.now()
    receipts, lately = WebhookReceipt.objects.all(), {"received_at__gt": now - _LATELY}
    stuck = receipts.filter(verdict__in=("received", "waiting"), received_at__lt=now - _LONG)
    refused = receipts.filter(verdict="refused", **lately)
    found = BillingEntry.objects.filter(kind="found_by_poll", at__gt=now - _LATELY)
    unpaid = Subscription.objects.filter(state=SubscriptionState.UNPAID.value)
    overdue = Invoice.objects.filter(state=Invoice.State.OPEN, due_at__lt=now)
    rows = [
        (_("transactions to be looked at"), _to("transaction", "needs_review__exact=1"), _reviews()),
        (_("refused signatures in a day"), _to("webhookreceipt", "verdict__exact=refused"), refused.count()),
        (_("receipts that failed"), _to("webhookreceipt", "verdict__exact=failed"), _failed()),
        (
            _("receipts that wait for more than 15 minutes"),
            _to("webhookreceipt", "verdict__exact=waiting"),
            stuck.count(),
        ),
        (
            _("payments in a day that the poller found and no webhook brought"),
            _to("billingentry", "kind__exact=found_by_poll"),
            found.count(),
        ),
        (_("companies that are cut off"), _to("subscription", "state__exact=unpaid"), unpaid.count()),
        (_("invoices that are overdue"), _to("invoice", "state__exact=open"), overdue.count()),
    ]
    return {"matters": [Matter(*row) for row in rows if row[2]]}


def _reviews() -> int:
    return Transaction.objects.filter(needs_review=True).count()


def _failed() -> int:
    return WebhookReceipt.objects.filter(verdict="failed").count()


def _to(model: str, query: str) -> str:
    return f"{reverse(f'admin:billing_{model}_changelist')}?{query}"
