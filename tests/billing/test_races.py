"""Two at once: the same payment, the same receipt, the same number. Real threads; row locks show on PostgreSQL."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TypeVar

import pytest
from django.db import connections, transaction

from billing import background, clock, polling, receipts
from billing.ledger import apply_status
from billing.midtrans.payload import TransactionStatus
from billing.models import AccessGrant, BillingEntry, Invoice, WebhookReceipt
from billing.numbers import next_invoice_number
from tests.billing.buyer import Buyer
from tests.billing.notified import body_of, post
from tests.support.skips import needs_row_locks
from tests.support.status_server import StatusServer

pytestmark = [pytest.mark.django_db(transaction=True, serialized_rollback=True), needs_row_locks]
_Result = TypeVar("_Result")
AT_ONCE = 8


def at_once(act: Callable[[int], _Result], count: int = AT_ONCE) -> list[_Result]:
    """All begin together, each on a connection of its own."""
    gate = threading.Barrier(count)

    def run(number: int) -> _Result:
        gate.wait(10)
        try:
            return act(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


def test_same_settlement_told_eight_times_at_once_is_granted_once() -> None:
    buyer = Buyer.new()
    order = buyer.order()
    status = buyer.status(order, "settlement")
    effects = at_once(lambda _n: apply_status(order.order_id, status, source="webhook").effect.value)
    assert sorted(effects) == ["changed"] + ["unchanged"] * (AT_ONCE - 1)
    assert AccessGrant.objects.count() == 1
    assert BillingEntry.objects.filter(kind="payment_changed").count() == 1


def test_two_payments_of_one_invoice_at_once_are_granted_once_and_looked_at() -> None:
    buyer = Buyer.new()
    orders = [buyer.order()]
    orders += [buyer.attempt(orders[0].invoice) for _ in range(AT_ONCE - 1)]
    statuses = [buyer.status(order, "settlement") for order in orders]
    at_once(lambda n: apply_status(orders[n].order_id, statuses[n], source="webhook"))
    assert AccessGrant.objects.filter(revoked_at=None).count() == 1
    assert Invoice.objects.get().state == "paid"
    assert BillingEntry.objects.filter(kind="review").count() == AT_ONCE - 1


def _tell(order_id: str, told: list[TransactionStatus], number: int) -> None:
    apply_status(order_id, told[number % len(told)], source="webhook")


def test_settlement_and_its_reversal_at_once_end_reversed() -> None:
    for _ in range(5):
        buyer = Buyer.new()
        order = buyer.order()
        told = [buyer.status(order, "pending"), buyer.status(order, "settlement"), buyer.status(order, "deny")]
        at_once(partial(_tell, order.order_id, told))
        order.refresh_from_db()
        # A denial of something that nobody saw paid is final too.
        assert order.state == "denied"
        assert buyer.live_grants() == []


def test_receipts_of_one_event_at_once_are_applied_once(
    midtrans: StatusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "submit", lambda _pk: None)
    order = Buyer.new().order()
    body = body_of(order, "settlement")
    midtrans.say(body)
    for _ in range(AT_ONCE):
        post(body)
    pks = list(WebhookReceipt.objects.values_list("pk", flat=True))
    at_once(lambda n: receipts.process(pks[n]))
    verdicts = sorted(WebhookReceipt.objects.values_list("verdict", flat=True))
    assert verdicts == ["applied"] + ["duplicate"] * (AT_ONCE - 1)
    assert AccessGrant.objects.count() == 1


def test_workers_at_once_leave_no_receipt_and_ask_for_none_twice(
    midtrans: StatusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "submit", lambda _pk: None)
    orders = [Buyer.new().order() for _ in range(6)]
    with clock.stopped_at(clock.now()) as hand:
        for order in orders:
            midtrans.say(body_of(order, "settlement"))
            post(body_of(order, "settlement"))
        hand.advance(timedelta(seconds=10))
        done = at_once(lambda _n: receipts.process_waiting(), 4)
    assert sum(done) >= len(orders)
    assert set(WebhookReceipt.objects.values_list("verdict", flat=True)) == {"applied"}
    assert sorted(midtrans.asked) == sorted(order.order_id for order in orders)


def test_pollers_at_once_ask_for_each_order_once(midtrans: StatusServer) -> None:
    orders = [Buyer.new().order() for _ in range(6)]
    for order in orders:
        midtrans.say(body_of(order, "settlement"))
    with clock.stopped_at(clock.now()) as hand:
        hand.advance(timedelta(minutes=5))
        assert sum(at_once(lambda _n: polling.poll_due(), 4)) == len(orders)
    assert sorted(midtrans.asked) == sorted(order.order_id for order in orders)
    assert BillingEntry.objects.filter(kind="found_by_poll").count() == len(orders)


def test_invoice_numbers_taken_at_once_leave_none_out() -> None:
    def take(number: int) -> str:
        with transaction.atomic():
            taken = next_invoice_number()
            if number % 4 == 3:
                transaction.set_rollback(True)
            return taken if number % 4 != 3 else ""

    numbers = sorted(filter(None, at_once(take) + at_once(take)))
    assert [int(number[-6:]) for number in numbers] == list(range(1, 13))
