"""What happened to a company's plan and payments, in words for its people. Room: billing.

Of the books only what concerns them: who of the operator's people did it, and what Midtrans was asked, stays there.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext as _

from billing.console import wording
from billing.models import BillingEntry
from billing.money import rupiah
from billing.transitions import PaymentState, SubscriptionState

_LIMIT = 50
_KINDS = (
    "invoice_written",
    "invoice_voided",
    "payment_changed",
    "subscription_changed",
    "access_granted",
    "access_revoked",
    "change_planned",
    "method_kept",
    "method_removed",
    "method_refused",
)
# Steps on the way, of interest to nobody but us.
_QUIET_PAYMENTS = frozenset({PaymentState.CREATED, PaymentState.AUTHORIZED, PaymentState.CAPTURED})


@dataclass(frozen=True, slots=True)
class Event:
    at: datetime
    text: str
    invoice_number: str


def of_company(company_id: uuid.UUID) -> list[Event]:
    """The latest first."""
    rows = BillingEntry.objects.filter(company_id=company_id, kind__in=_KINDS)[: 2 * _LIMIT]
    events = [Event(row.at, text, row.invoice_number) for row in rows if (text := _text(row))]
    return events[:_LIMIT]


def _text(row: BillingEntry) -> str:
    amount = rupiah(row.amount) if row.amount is not None else ""
    if row.kind == "payment_changed":
        return _payment(row, amount)
    if row.kind == "subscription_changed":
        return _("The plan is now: %(state)s") % {"state": _state(row.after)}
    texts = {
        "invoice_written": _("Invoice over %(amount)s written"),
        "invoice_voided": _("Invoice void: another one took its place, or it is no longer due"),
        "change_planned": _("Chosen for the next period: %(after)s"),
        "method_kept": _("Payment method for renewals kept: %(note)s"),
        "method_removed": _("Payment method removed: %(note)s"),
        "method_refused": _("Payment method refused for good: %(note)s"),
        "access_granted": _("Access with %(after)s given"),
        "access_revoked": _("Access with %(before)s taken back"),
    }
    return texts[row.kind] % {"amount": amount, "after": row.after, "before": row.before, "note": row.note}


def _payment(row: BillingEntry, amount: str) -> str:
    try:
        state = PaymentState(row.after)
    except ValueError:
        return ""
    if state in _QUIET_PAYMENTS:
        return ""
    texts = {
        PaymentState.PENDING: _("Payment of %(amount)s begun"),
        PaymentState.CHALLENGED: _("Payment of %(amount)s is being checked"),
        PaymentState.SETTLED: _("Payment of %(amount)s received"),
        PaymentState.DENIED: _("Payment of %(amount)s refused"),
        PaymentState.CANCELLED: _("Payment of %(amount)s cancelled"),
        PaymentState.EXPIRED: _("Payment of %(amount)s not made in time"),
        PaymentState.FAILED: _("Payment of %(amount)s failed"),
        PaymentState.REFUNDED: _("%(amount)s paid back"),
        PaymentState.PARTIALLY_REFUNDED: _("%(amount)s paid back in all"),
        PaymentState.CHARGED_BACK: _("%(amount)s taken back by the bank"),
        PaymentState.PARTIALLY_CHARGED_BACK: _("%(amount)s taken back by the bank in all"),
    }
    return texts[state] % {"amount": amount}


def _state(value: str) -> str:
    return wording.subscription_state(value) if value in {state.value for state in SubscriptionState} else value
