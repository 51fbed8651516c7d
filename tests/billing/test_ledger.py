"""What is said of a payment becomes money, time and access: once, in any order, and back."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pytest_django import Settings

from billing import clock, ledger
from billing.ledger import Applied
from billing.midtrans.payload import TransactionStatus
from billing.models import AccessGrant, BillingEntry, Invoice, PaymentAttempt, Transaction
from billing.transitions import Access, Effect, PaymentState
from events.models import OutboxEvent
from tests.billing.buyer import Buyer, kinds

pytestmark = pytest.mark.django_db
START = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
PRICE = 499_000


@pytest.fixture(autouse=True)
def hand() -> Iterator[clock.Hand]:
    with clock.stopped_at(START) as hand:
        yield hand


@pytest.fixture
def buyer() -> Buyer:
    return Buyer.new()


def test_settled_payment_gives_plan_and_period_at_once(buyer: Buyer) -> None:
    order = buyer.order()
    assert buyer.told(order, "pending") == Applied(Effect.CHANGED, PaymentState.PENDING)
    assert buyer.access == ("FREE", "active")
    assert buyer.told(order, "settlement") == Applied(Effect.CHANGED, PaymentState.SETTLED, Access.GRANT)
    buyer.refresh()
    assert (buyer.access, buyer.state) == (("PRO", "active"), "active")
    assert buyer.subscription.state_since == START
    [grant] = buyer.live_grants()
    assert (grant.starts_at, grant.ends_at) == (START, datetime(2026, 2, 28, 3, 0, tzinfo=UTC))
    assert buyer.company.paid_until == buyer.subscription.paid_until == grant.ends_at
    assert (buyer.subscription.anchor_day, buyer.subscription.price_id) == (31, order.invoice.price_id)
    order.invoice.refresh_from_db()
    assert (order.invoice.state, order.invoice.paid_at, order.state) == ("paid", START, "settled")
    assert OutboxEvent.objects.filter(key=str(buyer.company.pk)).exists()


def test_same_answer_again_changes_nothing(buyer: Buyer) -> None:
    order = buyer.order()
    buyer.told(order, "settlement")
    version, entries = buyer.refresh().company.access_version, BillingEntry.objects.count()
    assert buyer.told(order, "settlement").effect is Effect.UNCHANGED
    assert buyer.refresh().company.access_version == version
    assert BillingEntry.objects.count() == entries
    assert AccessGrant.objects.count() == 1


def test_answers_in_every_order_end_in_the_same_books() -> None:
    for told in itertools.permutations(("pending", "settlement", "refund")):
        buyer = Buyer.new()
        order = buyer.order()
        for status in told:
            buyer.told(order, status)
        # Whatever was heard last, a refund stands.
        order.invoice.refresh_from_db()
        assert (order.state, order.invoice.state, order.invoice.returned) == ("refunded", "returned", PRICE), told
        assert buyer.live_grants() == [], told
        assert buyer.access[0] == "FREE", told


def test_reversed_settlement_takes_access_back_and_opens_the_invoice(buyer: Buyer, hand: clock.Hand) -> None:
    order = buyer.order()
    buyer.told(order, "settlement")
    hand.advance(timedelta(minutes=3))
    assert buyer.told(order, "deny").access is Access.REVERSE
    order.invoice.refresh_from_db()
    assert (order.invoice.state, order.invoice.paid_at, order.is_closed) == ("open", None, False)
    assert (buyer.state, buyer.access) == ("unpaid", ("FREE", "unpaid"))
    assert kinds(order) == ["payment_changed", "payment_changed"]
    # Paying again lets it in, for a whole period from now.
    again = buyer.attempt(order.invoice)
    buyer.told(again, "settlement")
    assert (buyer.state, buyer.access) == ("active", ("PRO", "active"))
    assert [grant.starts_at for grant in buyer.live_grants()] == [START + timedelta(minutes=3)]
    assert AccessGrant.objects.filter(invoice=order.invoice).count() == 2


@pytest.mark.parametrize("told", ["refund", "chargeback"])
def test_money_that_went_back_cuts_off(buyer: Buyer, told: str) -> None:
    order = buyer.order()
    buyer.told(order, "settlement")
    buyer.told(order, told, refund_amount=PRICE)
    assert (buyer.state, buyer.access[1]) == ("unpaid", "unpaid")
    assert buyer.live_grants() == []


def test_part_of_the_money_going_back_keeps_access_and_is_counted_once(buyer: Buyer) -> None:
    order = buyer.order()
    buyer.told(order, "settlement")
    buyer.refunded(order, 100_000, confirmed=False)
    buyer.refunded(order, 100_000)
    order.invoice.refresh_from_db()
    assert (order.invoice.state, order.invoice.returned) == ("partly_returned", 100_000)
    buyer.refunded(order, 150_000)
    # A late answer that knew less.
    buyer.refunded(order, 100_000)
    order.invoice.refresh_from_db()
    assert order.invoice.returned == 150_000
    assert buyer.access == ("PRO", "active")


def test_capture_cancelled_before_settlement_was_never_paid(buyer: Buyer) -> None:
    order = buyer.order()
    buyer.told(order, "capture", payment_type="credit_card")
    assert buyer.access == ("PRO", "active")
    buyer.told(order, "cancel", payment_type="credit_card")
    order.invoice.refresh_from_db()
    assert (order.invoice.state, buyer.state) == ("open", "unpaid")


def test_challenged_capture_gives_nothing_until_it_is_accepted(buyer: Buyer) -> None:
    order = buyer.order()
    buyer.told(order, "capture", fraud_status="challenge", status_code="201", payment_type="credit_card")
    assert buyer.access == ("FREE", "active")
    buyer.told(order, "capture", payment_type="credit_card")
    assert buyer.access == ("PRO", "active")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"order_id": "gw-0000000001-000000000000"}, "order"),
        ({"gross_amount": 1}, "amount"),
        ({"gross_amount": PRICE + 1}, "amount"),
        ({"currency": "USD"}, "currency"),
        ({"merchant_id": "G999999999"}, "merchant"),
    ],
)
def test_answer_about_something_else_has_no_effect_and_is_written_down_once(
    buyer: Buyer, settings: Settings, changes: dict[str, Any], reason: str
) -> None:
    settings.MIDTRANS_MERCHANT_ID = "G000000001"
    order = buyer.order()
    for _ in range(3):
        assert buyer.told(order, "settlement", **changes) == Applied(
            Effect.IGNORED, PaymentState.CREATED, reason=reason
        )
    assert kinds(order) == ["mismatch"]
    assert (buyer.access, Transaction.objects.count()) == (("FREE", "active"), 0)


def test_transaction_of_one_order_pays_for_no_other(buyer: Buyer) -> None:
    first, second = buyer.order(), Buyer.new().order()
    buyer.told(first, "pending")
    stolen = buyer.transaction_ids[first.order_id]
    assert buyer.told(second, "settlement", transaction_id=stolen).reason == "transaction"
    assert kinds(second) == ["mismatch"]


def test_order_that_nobody_knows_is_ignored(buyer: Buyer) -> None:
    status = buyer.status(buyer.order(), "settlement")
    assert ledger.apply_status("gw-of-somebody-else", status, source="webhook").reason == "unknown_order"


def test_charge_of_ours_that_is_denied_is_over_at_once(buyer: Buyer) -> None:
    order = buyer.order(by=PaymentAttempt.By.MERCHANT)
    details = {"channel_response_code": "51", "channel_response_message": "Insufficient funds"}
    buyer.told(order, "deny", payment_type="credit_card", **details)
    assert (order.state, order.is_closed, order.next_poll_at) == ("denied", True, None)
    assert order.last_problem == "51 Insufficient funds"


def test_second_transaction_on_the_same_page_pays(buyer: Buyer) -> None:
    order = buyer.order(page_expires_at=START + timedelta(days=1))
    buyer.told(order, "deny", payment_type="credit_card")
    # The page lives, so the customer may try again.
    assert (order.state, order.is_closed) == ("denied", False)
    buyer.told(order, "settlement", transaction_id="9d1c4dca-3c0f-4a5f-8c64-000000000001")
    assert (order.state, order.invoice.state, buyer.access[0]) == ("settled", "paid", "PRO")


def test_invoice_paid_twice_is_granted_once_and_somebody_looks(buyer: Buyer) -> None:
    first = buyer.order()
    second = buyer.attempt(first.invoice)
    buyer.told(first, "settlement")
    buyer.told(second, "settlement")
    assert len(buyer.live_grants()) == 1
    assert [row.needs_review for row in Transaction.objects.order_by("pk")] == [False, True]
    # What was paid too much goes back: the invoice stays paid.
    buyer.refunded(second, PRICE)
    invoice = Invoice.objects.get(pk=first.invoice_id)
    assert (invoice.state, invoice.returned, buyer.access) == ("paid", 0, ("PRO", "active"))
    buyer.refunded(first, PRICE)
    invoice.refresh_from_db()
    assert (invoice.state, invoice.returned, buyer.live_grants()) == ("returned", PRICE, [])


def test_void_invoice_that_is_paid_gives_nothing_and_somebody_looks(buyer: Buyer) -> None:
    order = buyer.order()
    Invoice.objects.filter(pk=order.invoice_id).update(state="void")
    buyer.told(order, "settlement")
    assert (buyer.live_grants(), buyer.access[0]) == ([], "FREE")
    assert Transaction.objects.get().needs_review
    assert kinds(order) == ["payment_changed", "review"]


def test_contradiction_changes_nothing_and_somebody_looks(buyer: Buyer) -> None:
    order = buyer.order()
    buyer.told(order, "expire")
    assert buyer.told(order, "settlement").reason == "unexpected"
    assert (order.state, buyer.access[0]) == ("expired", "FREE")
    assert kinds(order) == ["payment_changed", "unexpected"]


def test_renewal_joins_the_running_period_and_leaves_the_end_on_its_day(buyer: Buyer, hand: clock.Hand) -> None:
    buyer.told(buyer.order(), "settlement")
    end = buyer.live_grants()[0].ends_at
    hand.advance(timedelta(days=27))
    renewal = buyer.order(kind="renewal", start=end, end=datetime(2026, 3, 31, 3, 0, tzinfo=UTC))
    buyer.told(renewal, "settlement")
    buyer.refresh()
    assert buyer.subscription.paid_until == buyer.company.paid_until == datetime(2026, 3, 31, 3, 0, tzinfo=UTC)
    assert (buyer.subscription.period_start, buyer.state) == (START, "active")


def test_chargeback_of_the_next_period_leaves_the_running_one(buyer: Buyer, hand: clock.Hand) -> None:
    buyer.told(buyer.order(), "settlement")
    end = buyer.live_grants()[0].ends_at
    hand.advance(timedelta(days=27))
    renewal = buyer.order(kind="renewal", start=end, end=end + timedelta(days=31))
    buyer.told(renewal, "settlement")
    buyer.told(renewal, "chargeback")
    assert (buyer.state, buyer.access) == ("active", ("PRO", "active"))
    assert buyer.refresh().company.paid_until == end


def test_chargeback_of_a_past_period_leaves_the_running_one(buyer: Buyer, hand: clock.Hand) -> None:
    first = buyer.order()
    buyer.told(first, "settlement")
    end = buyer.live_grants()[0].ends_at
    renewal = buyer.order(kind="renewal", start=end, end=end + timedelta(days=31))
    buyer.told(renewal, "settlement")
    hand.advance(timedelta(days=40))
    buyer.told(first, "chargeback")
    assert (buyer.state, buyer.access) == ("active", ("PRO", "active"))


def test_reversed_upgrade_falls_back_to_the_plan_before(buyer: Buyer) -> None:
    buyer.told(buyer.order(), "settlement")
    end = buyer.live_grants()[0].ends_at
    upgrade = buyer.order("ENTERPRISE", kind="upgrade", end=end, total=1_000_000)
    buyer.told(upgrade, "settlement")
    assert (buyer.access[0], buyer.refresh().company.paid_until) == ("ENTERPRISE", end)
    assert buyer.subscription.price_id == upgrade.invoice.price_id
    buyer.told(upgrade, "deny")
    assert (buyer.state, buyer.access) == ("active", ("PRO", "active"))
    assert buyer.refresh().subscription.price_id != upgrade.invoice.price_id


def test_upgrade_paid_after_its_period_is_looked_at(buyer: Buyer, hand: clock.Hand) -> None:
    buyer.told(buyer.order(), "settlement")
    end = buyer.live_grants()[0].ends_at
    upgrade = buyer.order("ENTERPRISE", kind="upgrade", end=end, total=1_000_000)
    hand.advance(timedelta(days=60))
    buyer.told(upgrade, "settlement")
    assert kinds(upgrade) == ["payment_changed", "review"]
    assert buyer.access[0] != "ENTERPRISE"


def test_who_was_cut_off_gets_a_whole_period_from_the_payment_on(buyer: Buyer, hand: clock.Hand) -> None:
    first = buyer.order()
    buyer.told(first, "settlement")
    buyer.told(first, "chargeback")
    hand.advance(timedelta(days=10))
    renewal = buyer.order(kind="renewal", start=START)
    buyer.told(renewal, "settlement")
    assert [grant.starts_at for grant in buyer.live_grants()] == [START + timedelta(days=10)]
    assert buyer.refresh().subscription.anchor_day == 10


def test_renewal_paid_when_its_own_period_is_over_buys_a_whole_one(buyer: Buyer, hand: clock.Hand) -> None:
    buyer.told(buyer.order(), "settlement")
    end = buyer.live_grants()[0].ends_at
    renewal = buyer.order(kind="renewal", start=end, end=end + timedelta(days=31))
    # The grace of this company is longer than a period.
    type(buyer.company).objects.filter(pk=buyer.company.pk).update(grace=timedelta(days=90))
    hand.moment = end + timedelta(days=40)
    buyer.told(renewal, "settlement")
    assert buyer.live_grants()[-1].starts_at == hand.moment
    assert buyer.access == ("PRO", "active")


def test_chargeback_of_an_older_period_leaves_the_grace_of_the_last_one(buyer: Buyer, hand: clock.Hand) -> None:
    first = buyer.order()
    buyer.told(first, "settlement")
    end = buyer.live_grants()[0].ends_at
    second = buyer.order(kind="renewal", start=end, end=end + timedelta(days=31))
    buyer.told(second, "settlement")
    hand.moment = end + timedelta(days=32)
    buyer.told(first, "chargeback")
    assert (buyer.state, buyer.access) == ("active", ("PRO", "active"))
    # The last one itself takes the grace along.
    buyer.told(second, "chargeback")
    assert (buyer.state, buyer.access[1]) == ("unpaid", "unpaid")


def test_suspension_by_an_operator_lies_over_payments(buyer: Buyer) -> None:
    order = buyer.order()
    type(buyer.company).objects.filter(pk=buyer.company.pk).update(status="suspended")
    buyer.told(order, "settlement")
    assert buyer.access == ("PRO", "suspended")
    buyer.told(order, "chargeback")
    assert buyer.access[1] == "suspended"


def test_follower_that_fails_keeps_no_payment_from_being_applied(buyer: Buyer, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, str, Effect]] = []

    def fails(attempt: PaymentAttempt, _status: TransactionStatus, _applied: Applied) -> None:
        Invoice.objects.filter(pk=attempt.invoice_id).update(description="half-way")
        raise RuntimeError("no vault")

    def hears(attempt: PaymentAttempt, status: TransactionStatus, applied: Applied) -> None:
        heard.append((attempt.order_id, status.transaction_status, applied.effect))

    monkeypatch.setattr(ledger, "_followers", [fails, hears])
    order = buyer.order()
    buyer.told(order, "settlement")
    buyer.told(order, "settlement")
    assert buyer.access[0] == "PRO"
    assert heard == [(order.order_id, "settlement", Effect.CHANGED)]
    assert Invoice.objects.get(pk=order.invoice_id).description == "PRO monthly"
