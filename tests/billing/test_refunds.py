"""Money goes back by an operator, once, whatever becomes of the answer (billing: refunds)."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.core.exceptions import PermissionDenied

from billing import audit, clock, dunning, refunds
from billing.models import BillingEntry, Refund, Transaction
from billing.problems import BillingError
from tests.billing.shop import OPERATOR, Shopper
from tests.support.midtrans_twin import Twin, install

pytestmark = pytest.mark.django_db
START = datetime(2026, 1, 10, 3, 0, tzinfo=UTC)
PRO = 499_000
MINUTES = timedelta(minutes=2)


@pytest.fixture(autouse=True)
def hand() -> Iterator[clock.Hand]:
    with clock.stopped_at(START) as hand:
        yield hand


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Twin:
    return install(monkeypatch)


@pytest.fixture
def shopper(twin: Twin) -> Shopper:
    shopper = Shopper.new(twin)
    shopper.buy("PRO", method="qris")
    return shopper


def payment_of(shopper: Shopper) -> Transaction:
    return Transaction.objects.get(attempt__invoice__subscription__company=shopper.company)


@pytest.mark.parametrize("method", ["card", "gopay", "qris"])
def test_full_refund_takes_the_access_back(twin: Twin, method: str) -> None:
    shopper = Shopper.new(twin)
    shopper.buy("PRO", method=method)
    row = refunds.refund(OPERATOR, payment_of(shopper), reason="bought twice")
    assert (row.state, row.amount, row.asked_by) == ("done", PRO, "olivia")
    assert payment_of(shopper).state == "refunded"
    [invoice] = shopper.invoices()
    assert (invoice.state, invoice.returned, shopper.state) == ("returned", PRO, "unpaid")
    assert shopper.access[1] == "unpaid"
    assert audit.run().findings == []


def test_partial_refunds_leave_the_access_until_all_is_returned(shopper: Shopper) -> None:
    refunds.refund(OPERATOR, payment_of(shopper), amount=99_000, reason="a day without service")
    assert (payment_of(shopper).refunded, shopper.access) == (99_000, ("PRO", "active"))
    with pytest.raises(BillingError, match=r"Rp400\.000"):
        refunds.refund(OPERATOR, payment_of(shopper), amount=400_001, reason="too much")
    refunds.refund(OPERATOR, payment_of(shopper), reason="the rest")
    assert shopper.access[1] == "unpaid"
    assert [entry.amount for entry in BillingEntry.objects.filter(kind="refund_done").order_by("pk")] == [
        99_000,
        400_000,
    ]


@pytest.mark.parametrize("done", [True, False])
def test_lost_answer_of_a_refund_is_asked_for_again_with_its_key(
    shopper: Shopper, twin: Twin, hand: clock.Hand, *, done: bool
) -> None:
    twin.lose("refund", done=done)
    row = refunds.refund(OPERATOR, payment_of(shopper), amount=99_000, reason="a day without service")
    assert row.state == "asked"
    # What is asked for counts as gone, so that nobody sends it twice.
    with pytest.raises(BillingError):
        refunds.refund(OPERATOR, payment_of(shopper), amount=400_001, reason="too much")
    dunning.retry_due()
    assert twin.count("refund") == 1
    hand.advance(MINUTES)
    dunning.retry_due()
    row.refresh_from_db()
    assert (row.state, payment_of(shopper).refunded, twin.count("refund")) == ("done", 99_000, 2)
    [transaction] = twin.sandbox.transactions.values()
    assert len(transaction.refunds) == 1


def test_refund_that_midtrans_never_answers_is_given_up_after_a_week(
    shopper: Shopper, twin: Twin, hand: clock.Hand
) -> None:
    twin.lose("refund", done=False, count=100)
    row = refunds.refund(OPERATOR, payment_of(shopper), reason="bought twice")
    hand.advance(timedelta(days=7, minutes=1))
    dunning.retry_due()
    row.refresh_from_db()
    assert (row.state, "dashboard" in row.problem) == ("refused", True)


def test_refund_that_midtrans_refuses_says_why(shopper: Shopper, twin: Twin) -> None:
    [transaction] = twin.sandbox.transactions.values()
    transaction.act("chargeback")
    row = refunds.refund(OPERATOR, payment_of(shopper), reason="bought twice")
    assert (row.state, row.problem.split()[0]) == ("refused", "412")
    assert Refund.objects.count() == 1


def test_bank_transfer_is_not_sent_back_by_midtrans(twin: Twin) -> None:
    shopper = Shopper.new(twin)
    shopper.buy("PRO", method="bank_transfer")
    with pytest.raises(BillingError, match="by your bank"):
        refunds.refund(OPERATOR, payment_of(shopper), reason="bought twice")
    assert (Refund.objects.count(), twin.count("refund")) == (0, 0)


def test_only_operators_send_money_back(shopper: Shopper) -> None:
    with pytest.raises(PermissionDenied):
        refunds.refund(shopper.actor, payment_of(shopper), reason="mine")
    with pytest.raises(PermissionDenied):
        refunds.cancel_capture(shopper.actor, payment_of(shopper))


def test_capture_is_cancelled_and_not_refunded_before_it_settles(twin: Twin) -> None:
    shopper = Shopper.new(twin)
    invoice = shopper.choose("PRO")
    assert invoice is not None
    order_id = shopper.open_page(invoice)
    twin.choose(order_id, "card")
    twin.act(order_id, "pay")
    twin.deliver()
    assert shopper.access == ("PRO", "active")
    with pytest.raises(BillingError, match="cancel it instead"):
        refunds.refund(OPERATOR, payment_of(shopper), reason="bought twice")
    assert refunds.cancel_capture(OPERATOR, payment_of(shopper)).state == "cancelled"
    assert shopper.access[1] == "unpaid"
    with pytest.raises(BillingError, match="refund this one"):
        refunds.cancel_capture(OPERATOR, payment_of(shopper))


def test_capture_that_has_settled_meanwhile_is_to_be_refunded(twin: Twin) -> None:
    shopper = Shopper.new(twin)
    invoice = shopper.choose("PRO")
    assert invoice is not None
    order_id = shopper.open_page(invoice)
    twin.choose(order_id, "card")
    twin.act(order_id, "pay")
    twin.deliver()
    twin.act(order_id, "settle")
    with pytest.raises(BillingError, match="refund it"):
        refunds.cancel_capture(OPERATOR, payment_of(shopper))
    assert payment_of(shopper).state == "settled"
