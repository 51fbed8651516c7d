"""Cards and wallets are kept, sealed, removed and refused (billing: methods)."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pytest_django import Settings

from billing import background, clock, methods, receipts, vault
from billing.midtrans.signature import account_signature
from billing.models import BillingEntry, PaymentMethod
from billing.problems import BillingError
from tenants.access import NotVisible
from tests.billing import notified
from tests.billing.shop import Shopper, Worker
from tests.support.midtrans_twin import Twin, install

pytestmark = pytest.mark.django_db
START = datetime(2026, 1, 10, 3, 0, tzinfo=UTC)
END = datetime(2026, 2, 10, 3, 0, tzinfo=UTC)
# 00:00 in Asia/Jakarta of the day on which the period ends.
RENEWAL_DAY = datetime(2026, 2, 9, 17, 0, tzinfo=UTC)
PRO = 499_000
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def hand() -> Iterator[clock.Hand]:
    with clock.stopped_at(START) as hand:
        yield hand


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Twin:
    return install(monkeypatch)


@pytest.fixture
def worker(twin: Twin) -> Worker:
    return Worker(twin)


@pytest.fixture
def by_card(twin: Twin) -> Shopper:
    shopper = Shopper.new(twin)
    shopper.buy("PRO", method="card")
    return shopper


def test_removed_method_is_charged_no_more(by_card: Shopper, twin: Twin, worker: Worker, hand: clock.Hand) -> None:
    [method] = PaymentMethod.objects.filter(company=by_card.company)
    with pytest.raises(NotVisible):
        methods.remove(Shopper.new(twin).actor, method)
    methods.remove(by_card.actor, method)
    method.refresh_from_db()
    assert (bytes(method.sealed_token), by_card.subscription.method) == (b"", None)
    worker.until(hand, END + MINUTE)
    assert (twin.count("charge"), by_card.state) == (0, "past_due")


def test_unlinked_wallet_is_charged_no_more(twin: Twin, worker: Worker, hand: clock.Hand) -> None:
    shopper = Shopper.new(twin)
    shopper.buy("PRO", method="gopay")
    worker.work()
    method = shopper.subscription.method
    assert method is not None
    twin.sandbox.account(method.account_id).status = "DISABLED"
    twin.lose("account", done=False)
    with pytest.raises(BillingError):
        methods.look_again(method.account_id)
    assert methods.look_again(method.account_id) == 1
    assert methods.look_again("somebody-elses") == 0
    hand.moment = RENEWAL_DAY
    worker.work()
    assert twin.count("charge") == 0


def test_card_that_was_denied_is_not_kept(twin: Twin) -> None:
    shopper = Shopper.new(twin)
    invoice = shopper.choose("PRO")
    assert invoice is not None
    order_id = shopper.open_page(invoice)
    twin.choose(order_id, "card")
    twin.deliver()
    twin.act(order_id, "deny")
    twin.deliver()
    assert PaymentMethod.objects.count() == 0


def test_wallet_whose_token_could_not_be_fetched_is_not_charged(twin: Twin, worker: Worker, hand: clock.Hand) -> None:
    shopper = Shopper.new(twin)
    shopper.buy("PRO", method="gopay")
    twin.lose("account", done=False, count=100)
    hand.moment = RENEWAL_DAY
    worker.work()
    assert shopper.attempts(by="merchant") == []
    assert shopper.open_invoice().attempts.get().page_url


def test_unlinking_is_heard_by_its_notification(
    twin: Twin, worker: Worker, hand: clock.Hand, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    shopper = Shopper.new(twin)
    shopper.buy("PRO", method="gopay")
    worker.work()
    method = shopper.subscription.method
    assert method is not None
    twin.sandbox.account(method.account_id).status = "DISABLED"
    settings.MIDTRANS_SIGNING_KEYS = ["key"]
    # Looked at by the worker, not by a thread of this process.
    monkeypatch.setattr(background, "submit", lambda _receipt_id: None)
    body = {
        "account_id": method.account_id, "account_status": "DISABLED", "status_code": "204", "payment_type": "gopay",
        "signature_key": account_signature(method.account_id, "DISABLED", "204", "key"),
    }  # fmt: skip
    assert notified.post(body).status_code == 200
    hand.advance(2 * MINUTE)
    receipts.process_waiting()
    method.refresh_from_db()
    assert method.refused_at is not None


def test_token_of_a_kept_card_is_sealed_and_in_no_repr(by_card: Shopper, twin: Twin) -> None:
    [card] = twin.sandbox.cards.values()
    method = PaymentMethod.objects.get(company=by_card.company)
    assert card.token.encode() not in bytes(method.sealed_token)
    assert vault.unseal(method.sealed_token) == card.token
    texts = [repr(method), str(method), repr(method.__dict__), *BillingEntry.objects.values_list("note", flat=True)]
    assert not [text for text in texts if card.token in text]
