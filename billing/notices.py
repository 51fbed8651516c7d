"""Mails about paying, to the admins of a company, in Indonesian and in English. Room: billing.

Nobody's language is known when the worker writes, so every mail says it twice. A mail is sent once or, when the process
dies just then, not at all: what it tells is on the page of the company too.
"""

from dataclasses import dataclass
from datetime import datetime

import structlog
from django.conf import settings
from django.core.mail import EmailMessage
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import formats, translation

from billing.models import Invoice, PaymentMethod, Price, Subscription
from billing.money import rupiah
from billing.periods import Interval, local_day
from tenants.access import Actor, contacts

log = structlog.get_logger(__name__)

_LANGUAGES = ("id", "en")
_INTERVALS = {
    "id": {Interval.MONTHLY: "bulanan", Interval.YEARLY: "tahunan"},
    "en": {Interval.MONTHLY: "monthly", Interval.YEARLY: "yearly"},
}
_RULE = "\n" + "-" * 40 + "\n\n"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a mail speaks of; ``amount`` in rupiah."""

    company: str
    price: Price | None
    amount: int
    method: PaymentMethod | None
    link: str
    # Of the paid time; the last day to pay; the next try.
    end: datetime | None
    until: datetime | None
    retry: datetime | None


def send(
    kind: str,
    subscription: Subscription,
    *,
    amount: int,
    method: PaymentMethod | None = None,
    link: str = "",
    until: datetime | None = None,
    retry: datetime | None = None,
) -> int:
    """Mails ``billing/mail/<kind>.<language>.txt`` to every admin of the company; how many were taken.

    The first line of the text is the subject. ``subscription`` has its company and price loaded. Not in a transaction:
    a mail server may take its time.
    """
    company_id = subscription.company_id
    people = contacts(Actor.system("billing"), str(company_id))
    if not people:
        log.warning("billing_mail_without_reader", kind=kind, company_id=str(company_id))
    price = subscription.next_price or subscription.price
    facts = Facts(
        subscription.company.name, price, amount, method, link or plan_page(), subscription.paid_until, until, retry
    )
    subject, text = _text(kind, facts)
    sent = 0
    for person in people:
        try:
            sent += EmailMessage(subject, f"{person.name},\n\n{text}", to=[person.email]).send()
        except Exception as error:  # what a mail server does wrong is not ours to list
            log.error("billing_mail_failed", kind=kind, company_id=str(company_id), error=type(error).__name__)
    log.info("billing_mail", kind=kind, company_id=str(company_id), sent=sent)
    return sent


def plan_page() -> str:
    """Where a company admin sees the plan and pays."""
    return absolute(reverse("billing:plan"))


def invoice_page(invoice: Invoice) -> str:
    """Where an invoice is paid; a payment page of Midtrans lives for days only, this address stays."""
    return absolute(reverse("billing:invoice", args=[invoice.number]))


def absolute(path: str) -> str:
    return (settings.GATEWAY_PUBLIC_URL or f"http://localhost:{settings.RUNNING_GATEWAY_PORT}") + path


def _text(kind: str, facts: Facts) -> tuple[str, str]:
    subjects, bodies = [], []
    for language in _LANGUAGES:
        with translation.override(language):
            text = render_to_string(f"billing/mail/{kind}.{language}.txt", _words(facts, language))
        subject, _, body = text.partition("\n")
        subjects.append(subject.strip())
        bodies.append(body.strip() + "\n")
    return " / ".join(subjects), _RULE.join(bodies)


def _words(facts: Facts, language: str) -> dict[str, str]:
    price = facts.price
    return {
        "company": facts.company,
        "plan": price.plan.name if price else "",
        "interval": _INTERVALS[language][Interval(price.interval)] if price else "",
        "end": _day(facts.end),
        "until": _day(facts.until),
        "retry": _day(facts.retry),
        "amount": rupiah(facts.amount),
        "link": facts.link,
        "method": str(facts.method) if facts.method is not None else "",
    }


def _day(moment: datetime | None) -> str:
    return formats.date_format(local_day(moment), "j F Y") if moment is not None else ""
