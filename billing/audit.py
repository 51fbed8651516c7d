"""Proves the books: that money, time and access tell the same story. Room: billing.

Reads only. Each rule is a function that yields what breaks it; none trusts the code that wrote the rows.
"""

import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from billing import clock
from billing.entitlements import compute, spans_of
from billing.models import AccessGrant, BillingEntry, Invoice, InvoiceCounter, PaymentAttempt, Subscription, Transaction
from billing.schedule import begins_until
from billing.transitions import Money, PaymentState, SubscriptionState, holds_access, is_awaited, money_of
from tenants import access
from tenants.access import Actor

# Jobs that follow the clock may be this late without a word.
_SETTLING = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Finding:
    """``subject``: the row it is about, as an invoice's number, an order, or a company's short name."""

    rule: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    findings: list[Finding]
    # How many rows were looked at.
    invoices: int
    attempts: int
    transactions: int
    grants: int
    companies: int
    # Companies that neither bought nor were given anything: their access is not the business of billing.
    outside: int


class Books:
    """The rows, read once."""

    def __init__(self) -> None:
        self.now = clock.now()
        self.transactions = list(Transaction.objects.select_related("attempt__invoice").order_by("pk"))
        self.invoices = list(Invoice.objects.select_related("subscription__company").order_by("pk"))
        self.attempts = list(PaymentAttempt.objects.select_related("invoice").order_by("pk"))
        self.grants = list(AccessGrant.objects.select_related("company__tier", "invoice", "plan__tier").order_by("pk"))
        self.subscriptions = list(Subscription.objects.select_related("company__tier").order_by("pk"))
        self.paid_by: dict[int, list[Transaction]] = defaultdict(list)
        self.of_attempt: dict[int, list[Transaction]] = defaultdict(list)
        for row in self.transactions:
            self.of_attempt[row.attempt_id].append(row)
            self.paid_by[row.attempt.invoice_id].append(row)
        self.live = [row for row in self.grants if row.revoked_at is None]
        self.live_invoices = {row.invoice_id for row in self.live if row.invoice_id is not None}


def run() -> Report:
    books = Books()
    findings = [finding for rule in _RULES for finding in rule(books)]
    concerned = {row.company_id for row in books.subscriptions} | {row.company_id for row in books.grants}
    return Report(
        findings=findings,
        invoices=len(books.invoices),
        attempts=len(books.attempts),
        transactions=len(books.transactions),
        grants=len(books.grants),
        companies=len(concerned),
        outside=len(access.companies(Actor.system())) - len(concerned),
    )


Rule = Callable[[Books], Iterable[Finding]]
_RULES: list[Rule] = []


def _rule(rule: Rule) -> Rule:
    _RULES.append(rule)
    return rule


@_rule
def grants_are_paid_or_given(books: Books) -> Iterator[Finding]:
    """Every grant has a confirmed payment of the whole invoice, or the name of an operator."""
    for grant in books.live:
        if grant.invoice is None:
            if not grant.given_by.strip():
                yield Finding("grant_unexplained", grant.company.slug, f"grant {grant.pk} has no invoice and no name")
            continue
        total = grant.invoice.total
        if not any(_holds(row) and row.attempt.amount >= total for row in books.paid_by[grant.invoice.pk]):
            yield Finding("grant_unpaid", grant.invoice.number, f"grant {grant.pk} stands on no payment")


@_rule
def payments_give_access(books: Books) -> Iterator[Finding]:
    """Every payment has its grant, or somebody is asked to look."""
    for invoice in books.invoices:
        holding = [row for row in books.paid_by[invoice.pk] if _holds(row)]
        if holding and invoice.pk not in books.live_invoices and not any(row.needs_review for row in holding):
            yield Finding("payment_without_grant", invoice.number, f"{holding[0].transaction_id} is paid")


@_rule
def void_invoices_are_not_paid(books: Books) -> Iterator[Finding]:
    for invoice in books.invoices:
        if invoice.state == Invoice.State.VOID:
            for row in books.paid_by[invoice.pk]:
                if _holds(row) and not row.needs_review:
                    yield Finding("void_invoice_paid", invoice.number, f"{row.transaction_id} waits for nobody")


@_rule
def one_live_grant_an_invoice(books: Books) -> Iterator[Finding]:
    counts = Counter(row.invoice.number for row in books.live if row.invoice is not None)
    for number, count in counts.items():
        if count > 1:
            yield Finding("granted_twice", number, f"{count} grants stand")


@_rule
def attempts_ask_for_the_invoice(books: Books) -> Iterator[Finding]:
    for attempt in books.attempts:
        if attempt.amount != attempt.invoice.total:
            detail = f"asks for {attempt.amount}, the invoice for {attempt.invoice.total}"
            yield Finding("attempt_amount", attempt.order_id, detail)


@_rule
def invoices_add_up(books: Books) -> Iterator[Finding]:
    """Totals, what was returned, the state and the time of payment follow from the transactions."""
    for invoice in books.invoices:
        if invoice.net + invoice.tax != invoice.total:
            yield Finding("invoice_sum", invoice.number, f"{invoice.net} + {invoice.tax} is not {invoice.total}")
        if invoice.state == Invoice.State.VOID:
            continue
        received = [row for row in books.paid_by[invoice.pk] if money_of(PaymentState(row.state)) is not Money.UNPAID]
        kept = sum(row.attempt.amount - row.refunded for row in received)
        # What was paid too much goes back first.
        returned = max(invoice.total - kept, 0) if received else 0
        if invoice.returned != returned:
            yield Finding("invoice_returned", invoice.number, f"says {invoice.returned}, {returned} went back")
        if (invoice.paid_at is not None) != bool(received):
            yield Finding("invoice_paid_at", invoice.number, "has a time of payment and no payment, or none and one")
        state = "open" if not received else "paid" if not returned else "partly_returned"
        state = "returned" if received and returned == invoice.total else state
        if invoice.state != state:
            yield Finding("invoice_state", invoice.number, f"is {invoice.state}, its money is {state}")


@_rule
def transactions_return_no_more_than_they_took(books: Books) -> Iterator[Finding]:
    for row in books.transactions:
        money = money_of(PaymentState(row.state))
        fits = {
            Money.UNPAID: row.refunded == 0,
            Money.PAID: row.refunded == 0,
            Money.PARTLY: 0 < row.refunded <= row.attempt.amount,
            Money.RETURNED: row.refunded == row.attempt.amount,
        }[money]
        if not fits:
            detail = f"is {row.state}, {row.refunded} of {row.attempt.amount} went back"
            yield Finding("transaction_refunded", row.transaction_id, detail)


@_rule
def changes_are_written_down(books: Books) -> Iterator[Finding]:
    """The last line of the log about a transaction says the state that it has."""
    entries = BillingEntry.objects.filter(kind="payment_changed").order_by("pk")
    last = dict(entries.values_list("transaction_id", "after"))
    for row in books.transactions:
        if row.state != PaymentState.CREATED and last.get(row.transaction_id) != row.state:
            detail = f"is {row.state}, the log says {last.get(row.transaction_id) or 'nothing'}"
            yield Finding("payment_unwritten", row.transaction_id, detail)


@_rule
def open_money_is_followed(books: Books) -> Iterator[Finding]:
    """Nothing is closed whose end is not known."""
    for attempt in books.attempts:
        if not attempt.is_closed:
            continue
        rows = books.of_attempt[attempt.pk]
        is_open = any(is_awaited(PaymentState(row.state)) or row.state == PaymentState.CAPTURED for row in rows)
        may_begin = attempt.state == PaymentState.CREATED and books.now < begins_until(attempt)
        if is_open or (not rows and may_begin):
            yield Finding("closed_too_early", attempt.order_id, f"is {attempt.state} and asked for no longer")


@_rule
def tenants_have_what_follows(books: Books) -> Iterator[Finding]:
    """Tier, end of the paid time and status of a company are what its grants say."""
    states = {row.company_id: SubscriptionState(row.state) for row in books.subscriptions}
    companies = {row.company_id: row.company for row in books.grants}
    companies |= {row.company_id: row.company for row in books.subscriptions}
    for company_id, company in companies.items():
        state = states.get(company_id, SubscriptionState.NONE)
        wanted = [_wanted(company_id, state, company.grace, books.now - late) for late in (timedelta(), _SETTLING)]
        is_unpaid = company.status == "unpaid"
        # A suspension lies over what billing says of the status.
        found = (company.tier.code, company.paid_until, is_unpaid)
        fits = any(found[:2] == one[:2] and (found[2] == one[2] or company.status == "suspended") for one in wanted)
        if not fits:
            tier, until, cut_off = wanted[0]
            detail = (
                f"has {found[0]} until {found[1]}, {company.status}; the books say {tier} until {until}, "
                f"{'unpaid' if cut_off else 'active'}"
            )
            yield Finding("access_differs", company.slug, detail)


@_rule
def numbers_leave_none_out(books: Books) -> Iterator[Finding]:
    numbers = {invoice.number for invoice in books.invoices}
    for counter in InvoiceCounter.objects.all():
        for number in range(1, counter.last + 1):
            text = f"INV-{counter.year}-{number:06}"
            if text not in numbers:
                yield Finding("number_missing", text, "no invoice has this number")


def _holds(row: Transaction) -> bool:
    return holds_access(PaymentState(row.state))


def _wanted(
    company_id: uuid.UUID, state: SubscriptionState, grace: timedelta, now: datetime
) -> tuple[str, datetime | None, bool]:
    result = compute(state, spans_of(company_id), grace=grace, now=now)
    return result.tier, result.paid_until, result.is_cut_off
