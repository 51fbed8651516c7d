"""Workers and clicks that truly run side by side, for a database with more than one writer."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections

from billing import audit, checkout, clock, dunning, renewals
from billing.models import BillingEntry, Invoice, PaymentAttempt
from tests.billing.shop import FINISH, Shopper
from tests.support.midtrans_twin import Twin, install
from tests.support.skips import needs_row_locks

pytestmark = [pytest.mark.django_db(transaction=True, serialized_rollback=True), needs_row_locks]
START = datetime(2026, 1, 10, 3, 0, tzinfo=UTC)
RENEWAL_DAY = datetime(2026, 2, 9, 17, 0, tzinfo=UTC)
END = datetime(2026, 2, 10, 3, 0, tzinfo=UTC)
WORKERS = 4


@pytest.fixture(autouse=True)
def hand() -> Iterator[clock.Hand]:
    with clock.stopped_at(START) as hand:
        yield hand


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Twin:
    return install(monkeypatch)


def at_once(act: Callable[[], object], count: int = WORKERS) -> list[BaseException]:
    """Runs it in so many threads, begun together; what went wrong in them."""
    barrier, problems = threading.Barrier(count), []

    def run() -> None:
        try:
            barrier.wait(10)
            act()
        except BaseException as error:
            problems.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return problems


def test_workers_charge_each_renewal_once(twin: Twin, hand: clock.Hand) -> None:
    shoppers = [Shopper.new(twin) for _ in range(5)]
    for shopper in shoppers:
        shopper.buy("PRO", method="card")
    hand.moment = RENEWAL_DAY
    assert at_once(renewals.renew_due) == []
    assert twin.count("charge") == len(shoppers)
    assert Invoice.objects.filter(kind="renewal", state="paid").count() == len(shoppers)
    assert PaymentAttempt.objects.filter(by="merchant").count() == len(shoppers)
    assert audit.run().findings == []


def test_workers_go_on_with_a_lost_charge_once(twin: Twin, hand: clock.Hand) -> None:
    shopper = Shopper.new(twin)
    shopper.buy("PRO", method="card")
    hand.moment = RENEWAL_DAY
    twin.lose("charge", done=False)
    renewals.renew_due()
    hand.advance(timedelta(minutes=2))
    assert at_once(dunning.retry_due) == []
    # One more, with the same order id.
    assert (twin.count("charge"), len({order for name, order in twin.calls if name == "charge"})) == (2, 1)
    assert shopper.state == "active"


def test_workers_note_a_failure_and_end_a_period_once(twin: Twin, hand: clock.Hand) -> None:
    shopper = Shopper.new(twin)
    shopper.buy("PRO", method="card")
    twin.behave("51")
    hand.moment = RENEWAL_DAY
    at_once(lambda: (renewals.renew_due(), dunning.retry_due()))
    hand.moment = END
    assert at_once(dunning.end_due) == []
    kinds = list(BillingEntry.objects.filter(company_id=shopper.company.pk).values_list("kind", "after"))
    assert [kind for kind, _after in kinds].count("charge_failed") == 1
    assert kinds.count(("subscription_changed", "past_due")) == 1


def test_clicks_at_once_give_one_invoice_and_one_page(twin: Twin) -> None:
    shopper = Shopper.new(twin)
    price = shopper.price("PRO")
    assert at_once(lambda: checkout.start(shopper.actor, shopper.company, price)) == []
    invoice = shopper.open_invoice()
    urls: set[str] = set()
    assert at_once(lambda: urls.add(checkout.open_page(shopper.actor, invoice, finish_url=FINISH))) == []
    assert (len(urls), twin.count("snap"), len(shopper.attempts())) == (1, 1, 1)
    numbers = sorted(Invoice.objects.values_list("number", flat=True))
    assert numbers == ["INV-2026-000001"]
