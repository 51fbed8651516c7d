"""The proof of the books: clean ones pass, and each way of breaking them is found and named."""

import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import call_command
from django.db import connection

from billing import audit, clock
from billing.models import AccessGrant, Invoice, InvoiceCounter, PaymentAttempt, Transaction
from tenants.models import Company, SubscriptionTier
from tests.billing.buyer import Buyer

pytestmark = pytest.mark.django_db
PRICE = 499_000


@pytest.fixture(autouse=True)
def hand() -> Iterator[clock.Hand]:
    with clock.stopped_at(datetime(2026, 5, 4, 3, 0, tzinfo=UTC)) as hand:
        yield hand


@pytest.fixture
def buyer() -> Buyer:
    return Buyer.new("buyer")


@pytest.fixture
def order(buyer: Buyer) -> PaymentAttempt:
    """Paid."""
    order = buyer.order()
    buyer.told(order, "settlement")
    return order


def rules() -> set[str]:
    return {finding.rule for finding in audit.run().findings}


def test_books_of_every_kind_of_story_are_clean(hand: clock.Hand) -> None:
    stories = {
        "open": [],
        "pending": ["pending"],
        "paid": ["settlement"],
        "refunded": ["settlement", "refund"],
        "part": ["settlement", "part"],
        "charged back": ["settlement", "chargeback"],
        "reversed": ["settlement", "deny"],
        "captured": ["capture"],
        "expired": ["pending", "expire"],
        "contradicted": ["expire", "settlement"],
    }
    for name, story in stories.items():
        buyer = Buyer.new(name.replace(" ", "-"))
        order = buyer.order()
        for told in story:
            if told == "part":
                buyer.refunded(order, 1_000)
            else:
                buyer.told(order, told)
        assert audit.run().findings == [], name
    twice = Buyer.new("twice")
    first = twice.order()
    second = twice.attempt(first.invoice)
    for order in (first, second):
        twice.told(order, "settlement")
    twice.refunded(second, PRICE)
    Buyer.new("gift").give("ENTERPRISE", 10)
    suspended = Buyer.new("suspended")
    suspended.told(suspended.order(), "settlement")
    Company.objects.filter(slug="suspended").update(status="suspended")
    report = audit.run()
    assert report.findings == []
    assert (report.invoices, report.companies) == (len(stories) + 2, len(stories) + 3)


def break_grant_unpaid(order: PaymentAttempt) -> None:
    Transaction.objects.update(state="expired")


def break_grant_too_little(order: PaymentAttempt) -> None:
    PaymentAttempt.objects.update(amount=1)


def break_grant_unexplained(order: PaymentAttempt) -> None:
    AccessGrant.objects.create(
        company=order.invoice.subscription.company,
        plan=order.invoice.price.plan,
        starts_at=clock.now(),
        ends_at=clock.now() + timedelta(days=1),
        given_by=" ",
    )


def break_payment_without_grant(order: PaymentAttempt) -> None:
    AccessGrant.objects.update(revoked_at=clock.now())


def break_void_invoice_paid(order: PaymentAttempt) -> None:
    Invoice.objects.update(state="void")


def break_granted_twice(order: PaymentAttempt) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX one_live_grant_an_invoice")
    grant = AccessGrant.objects.get()
    grant.pk = None
    grant.save()


def break_attempt_amount(order: PaymentAttempt) -> None:
    PaymentAttempt.objects.update(amount=PRICE - 1)


def break_invoice_returned(order: PaymentAttempt) -> None:
    Invoice.objects.update(returned=5)


def break_invoice_paid_at(order: PaymentAttempt) -> None:
    Invoice.objects.update(paid_at=None)


def break_invoice_state(order: PaymentAttempt) -> None:
    Invoice.objects.update(state="open")


def break_transaction_refunded(order: PaymentAttempt) -> None:
    Transaction.objects.update(refunded=1)


def break_payment_unwritten(order: PaymentAttempt) -> None:
    Transaction.objects.update(state="captured")


def break_closed_too_early(order: PaymentAttempt) -> None:
    Transaction.objects.update(state="pending")
    PaymentAttempt.objects.update(is_closed=True)


def break_closed_before_the_page(order: PaymentAttempt) -> None:
    Buyer.new().order(is_closed=True)


def break_tier(order: PaymentAttempt) -> None:
    Company.objects.update(tier=SubscriptionTier.objects.get(code="ENTERPRISE"))


def break_paid_until(order: PaymentAttempt) -> None:
    Company.objects.update(paid_until=None)


def break_status(order: PaymentAttempt) -> None:
    Company.objects.update(status="unpaid")


def break_number_missing(order: PaymentAttempt) -> None:
    InvoiceCounter.objects.update(last=2)


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (break_grant_unpaid, "grant_unpaid"),
        (break_grant_too_little, "grant_unpaid"),
        (break_grant_unexplained, "grant_unexplained"),
        (break_payment_without_grant, "payment_without_grant"),
        (break_void_invoice_paid, "void_invoice_paid"),
        (break_granted_twice, "granted_twice"),
        (break_attempt_amount, "attempt_amount"),
        (break_invoice_returned, "invoice_returned"),
        (break_invoice_paid_at, "invoice_paid_at"),
        (break_invoice_state, "invoice_state"),
        (break_transaction_refunded, "transaction_refunded"),
        (break_payment_unwritten, "payment_unwritten"),
        (break_closed_too_early, "closed_too_early"),
        (break_closed_before_the_page, "closed_too_early"),
        (break_tier, "access_differs"),
        (break_paid_until, "access_differs"),
        (break_status, "access_differs"),
        (break_number_missing, "number_missing"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_broken_books_are_found_and_named(
    order: PaymentAttempt, spoil: Callable[[PaymentAttempt], None], rule: str
) -> None:
    assert rules() == set()
    spoil(order)
    assert rule in rules()


def test_sum_that_the_database_would_refuse_is_found_all_the_same(
    order: PaymentAttempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = audit.Books()
    books.invoices[0].net += 1
    assert [finding.rule for finding in audit.invoices_add_up(books)] == ["invoice_sum"]


def test_access_that_no_job_took_back_is_found(buyer: Buyer, order: PaymentAttempt, hand: clock.Hand) -> None:
    hand.moment = buyer.live_grants()[0].ends_at + timedelta(days=3, minutes=1)
    assert rules() == set(), "jobs may be a little late"
    hand.advance(timedelta(minutes=10))
    assert rules() == {"access_differs"}


def test_command_says_what_is_wrong_and_ends_with_1(order: PaymentAttempt) -> None:
    out = io.StringIO()
    call_command("billing_audit", stdout=out)
    assert out.getvalue().startswith("0 findings in 1 invoices")
    Invoice.objects.update(returned=5)
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("billing_audit", "--json", stdout=out)
    report = json.loads(out.getvalue())
    assert ended.value.code == 1
    finding = {"rule": "invoice_returned", "subject": "INV-2026-000001", "detail": "says 5, 0 went back"}
    assert report["findings"] == [finding]
