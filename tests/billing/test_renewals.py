"""Charges of saved cards and wallets: on their day, once, again by the calendar (billing: renewals, charges)."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core import mail

from billing import audit, checkout, clock, dunning, methods, polling, renewals, vault
from billing.models import PaymentMethod
from billing.problems import BillingError
from tests.billing.shop import FINISH, Shopper, Worker
from tests.support.midtrans_twin import Twin, install

pytestmark = pytest.mark.django_db
START = datetime(2026, 1, 10, 3, 0, tzinfo=UTC)
END = datetime(2026, 2, 10, 3, 0, tzinfo=UTC)
# 00:00 in Asia/Jakarta of the day on which the period ends.
RENEWAL_DAY = datetime(2026, 2, 9, 17, 0, tzinfo=UTC)
NEXT_END = datetime(2026, 3, 10, 3, 0, tzinfo=UTC)
PRO = 499_000
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


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


def subjects() -> list[str]:
    """Of the mails so far, the English half."""
    return [message.subject.partition(" / ")[2] for message in mail.outbox]


def last_mail() -> Any:
    return mail.outbox[-1]


@pytest.mark.parametrize("method", ["card", "gopay"])
def test_saved_method_is_charged_on_the_day_on_which_the_period_ends(
    twin: Twin, worker: Worker, hand: clock.Hand, method: str
) -> None:
    shopper = Shopper.new(twin)
    shopper.buy("PRO", method=method)
    worker.work()
    hand.moment = RENEWAL_DAY - MINUTE
    worker.work()
    assert twin.count("charge") == 0
    hand.moment = RENEWAL_DAY
    worker.work()
    assert twin.count("charge") == 1
    [renewal] = shopper.invoices(kind="renewal")
    assert (renewal.state, renewal.total, renewal.period_start, renewal.period_end) == ("paid", PRO, END, NEXT_END)
    assert (shopper.state, shopper.paid_until) == ("active", NEXT_END)


def test_charge_is_made_once_however_often_the_jobs_run(
    by_card: Shopper, twin: Twin, worker: Worker, hand: clock.Hand
) -> None:
    hand.moment = RENEWAL_DAY
    for _round in range(3):
        worker.work()
    assert (twin.count("charge"), by_card.paid_until) == (1, NEXT_END)


def test_short_month_does_not_move_the_day(twin: Twin, worker: Worker, hand: clock.Hand) -> None:
    hand.moment = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
    shopper = Shopper.new(twin)
    shopper.buy("PRO", method="card")
    ends = [shopper.paid_until]
    for _month in range(2):
        worker.until(hand, ends[-1] + MINUTE, step=DAY)
        ends.append(shopper.paid_until)
    assert [end.date().isoformat() for end in ends] == ["2026-02-28", "2026-03-31", "2026-04-30"]


@pytest.mark.parametrize("done", [True, False])
def test_lost_answer_of_a_charge_is_asked_for_and_never_charged_twice(
    by_card: Shopper, twin: Twin, worker: Worker, hand: clock.Hand, *, done: bool
) -> None:
    hand.moment = RENEWAL_DAY
    twin.lose("charge", done=done)
    renewals.renew_due()
    # Its notification is lost as well.
    twin.told.orders.clear()
    [attempt] = by_card.attempts(by="merchant")
    assert (attempt.state, attempt.is_closed) == ("created", False)
    # For a minute nobody asks.
    worker.work()
    assert twin.count("charge") == 1
    hand.advance(2 * MINUTE)
    dunning.retry_due()
    assert by_card.paid_until == NEXT_END
    charged = {order for name, order in twin.calls if name == "charge"}
    assert charged == {attempt.order_id}
    assert len(twin.sandbox.transactions) == 2
    assert twin.count("charge") == (1 if done else 2)


def test_midtrans_that_is_away_for_an_hour_costs_no_renewal_and_charges_once(
    by_card: Shopper, twin: Twin, worker: Worker, hand: clock.Hand
) -> None:
    hand.moment = RENEWAL_DAY
    twin.lose("charge", done=False, count=100)
    twin.lose("status", done=False, count=100)
    worker.until(hand, RENEWAL_DAY + timedelta(hours=1), step=5 * MINUTE)
    assert by_card.paid_until == END
    twin.answer_again()
    worker.until(hand, RENEWAL_DAY + timedelta(hours=2), step=5 * MINUTE)
    assert by_card.paid_until == NEXT_END
    assert len(twin.sandbox.transactions) == 2
    assert audit.run().findings == []


def test_charge_that_never_reached_midtrans_is_not_begun_late_but_anew(
    by_card: Shopper, twin: Twin, worker: Worker, hand: clock.Hand
) -> None:
    hand.moment = RENEWAL_DAY
    twin.lose("charge", done=False)
    renewals.renew_due()
    # So late it might cross with the look that gives the order up.
    hand.advance(9 * MINUTE)
    dunning.retry_due()
    assert twin.count("charge") == 1
    worker.until(hand, RENEWAL_DAY + timedelta(hours=1), step=5 * MINUTE)
    orders = [order for name, order in twin.calls if name == "charge"]
    assert (len(orders), len(set(orders)), by_card.paid_until) == (2, 2, NEXT_END)


def test_charge_for_an_invoice_that_is_void_meanwhile_is_not_made(
    by_card: Shopper, twin: Twin, hand: clock.Hand
) -> None:
    hand.moment = RENEWAL_DAY
    twin.lose("charge", done=False)
    renewals.renew_due()
    invoice = by_card.open_invoice()
    invoice.state = "void"
    invoice.save()
    hand.advance(2 * MINUTE)
    dunning.retry_due()
    [attempt] = by_card.attempts(by="merchant")
    assert (attempt.state, attempt.is_closed, twin.count("charge")) == ("cancelled", True, 1)


@pytest.mark.parametrize("code", ["401", "429"])
def test_key_that_is_wrong_for_an_hour_does_not_charge_again_what_was_charged(
    by_card: Shopper, twin: Twin, worker: Worker, hand: clock.Hand, code: str
) -> None:
    hand.moment = RENEWAL_DAY
    twin.lose("charge", done=True)
    renewals.renew_due()
    twin.told.orders.clear()
    twin.refusal = code
    for _turn in range(12):
        hand.advance(5 * MINUTE)
        renewals.renew_due()
        dunning.retry_due()
        polling.poll_due()
    twin.answer_again()
    worker.until(hand, hand.moment + timedelta(hours=2), step=5 * MINUTE)
    assert (by_card.paid_until, len(twin.sandbox.transactions)) == (NEXT_END, 2)
    assert audit.run().findings == []


def test_soft_decline_is_tried_again_by_the_calendar(
    by_card: Shopper, twin: Twin, worker: Worker, hand: clock.Hand
) -> None:
    twin.behave("51")
    hand.moment = RENEWAL_DAY
    worker.work()
    subscription = by_card.subscription
    assert (subscription.first_failure_at, subscription.next_retry_at) == (RENEWAL_DAY, RENEWAL_DAY + DAY)
    assert subjects() == ["The payment of Pro for shopper did not succeed".replace("shopper", by_card.company.name)]
    hand.moment = RENEWAL_DAY + DAY - MINUTE
    worker.work()
    assert twin.count("charge") == 1
    twin.behave("accept")
    hand.moment = RENEWAL_DAY + DAY
    worker.work()
    assert (twin.count("charge"), by_card.paid_until) == (2, NEXT_END)
    assert len({order for name, order in twin.calls if name == "charge"}) == 2
    assert by_card.subscription.next_retry_at is None


def test_retries_end_a_day_before_the_cut_off(by_card: Shopper, twin: Twin, worker: Worker, hand: clock.Hand) -> None:
    twin.behave("51")
    worker.until(hand, END + 4 * DAY)
    days = [(attempt.created_at - RENEWAL_DAY).days for attempt in by_card.attempts(by="merchant")]
    assert days == [0, 1]
    assert (by_card.state, by_card.access) == ("unpaid", ("PRO", "unpaid"))
    assert [kind for kind in subjects() if "disconnected" in kind]


def test_hard_decline_stops_and_asks_for_another_method(
    by_card: Shopper, twin: Twin, worker: Worker, hand: clock.Hand
) -> None:
    twin.behave("14")
    hand.moment = RENEWAL_DAY
    worker.work()
    assert by_card.subscription.next_retry_at is None
    [method] = PaymentMethod.objects.filter(company=by_card.company)
    assert method.refused_at == RENEWAL_DAY
    assert "needs another payment method" in last_mail().subject
    worker.until(hand, END + 2 * DAY)
    assert twin.count("charge") == 1
    # Paid by its page, with another card that is kept, and charged from then on.
    by_card.pay(by_card.open_invoice(), "card")
    twin.behave("accept")
    worker.until(hand, NEXT_END + MINUTE)
    assert (twin.count("charge"), by_card.state) == (2, "active")


def test_card_that_midtrans_does_not_know_any_more_is_a_hard_decline(
    by_card: Shopper, twin: Twin, worker: Worker, hand: clock.Hand
) -> None:
    twin.sandbox.cards.clear()
    hand.moment = RENEWAL_DAY
    worker.work()
    [attempt] = by_card.attempts(by="merchant")
    assert (attempt.state, attempt.last_problem, attempt.is_closed) == ("failed", "411 method_gone", True)
    assert "needs another payment method" in last_mail().subject


def test_new_method_is_charged_for_the_renewal_that_is_open(
    by_card: Shopper, twin: Twin, worker: Worker, hand: clock.Hand
) -> None:
    twin.behave("14")
    hand.moment = RENEWAL_DAY
    worker.work()
    card = twin.sandbox.save_card("5211111111111117")
    fresh = PaymentMethod.objects.create(
        company=by_card.company, kind="card", label="5211", sealed_token=vault.seal(card.token)
    )
    methods.make_default(by_card.actor, fresh)
    worker.work()
    assert (twin.count("charge"), by_card.paid_until) == (2, NEXT_END)


def test_charge_waits_while_the_customer_has_the_page_open(
    by_card: Shopper, twin: Twin, worker: Worker, hand: clock.Hand
) -> None:
    twin.behave("51")
    hand.moment = RENEWAL_DAY
    worker.work()
    twin.behave("accept")
    hand.moment = RENEWAL_DAY + DAY - 10 * MINUTE
    order_id = by_card.open_page(by_card.open_invoice())
    hand.advance(20 * MINUTE)
    worker.work()
    assert twin.count("charge") == 1
    twin.pay(order_id, "qris")
    twin.deliver()
    worker.until(hand, END + MINUTE)
    assert (twin.count("charge"), by_card.paid_until) == (1, NEXT_END)


def test_page_is_not_opened_while_a_charge_is_under_way(by_card: Shopper, twin: Twin, hand: clock.Hand) -> None:
    hand.moment = RENEWAL_DAY
    twin.lose("charge", done=True)
    renewals.renew_due()
    with pytest.raises(BillingError, match="under way") as caught:
        checkout.open_page(by_card.actor, by_card.open_invoice(), finish_url=FINISH)
    assert caught.value.is_temporary
    with pytest.raises(BillingError, match="under way"):
        by_card.choose("PRO", "yearly")
    # The wish to leave is heard all the same, and the charge is not lost.
    checkout.cancel(by_card.actor, by_card.company)
    hand.advance(2 * MINUTE)
    dunning.retry_due()
    assert (by_card.state, by_card.paid_until) == ("cancelling", NEXT_END)
