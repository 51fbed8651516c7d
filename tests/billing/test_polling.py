"""What notifications did not bring is found by asking: when, how often, and what an absent answer means."""

import itertools
from collections.abc import Iterator
from datetime import timedelta

import pytest

from billing import clock, polling
from billing.models import AccessGrant, BillingEntry, Invoice, PaymentAttempt
from billing.polling import poll_attempt, poll_due
from tests.billing.buyer import Buyer, kinds
from tests.billing.notified import body_of, post
from tests.support.status_server import StatusServer

pytestmark = pytest.mark.django_db
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def hand() -> Iterator[clock.Hand]:
    with clock.stopped_at(clock.now()) as hand:
        yield hand


@pytest.fixture
def buyer(midtrans: StatusServer, hand: clock.Hand) -> Buyer:
    return Buyer.new()


def looks(midtrans: StatusServer, hand: clock.Hand, *, during: timedelta, step: timedelta) -> list[timedelta]:
    """When Midtrans was asked, counted from now, with the job run every ``step``."""
    found, start = [], hand.moment
    while hand.moment < start + during:
        hand.advance(step)
        before = len(midtrans.asked)
        poll_due()
        found += [hand.moment - start] * (len(midtrans.asked) - before)
    return found


def test_settlement_that_no_notification_brought_is_found_and_marked(
    buyer: Buyer, midtrans: StatusServer, hand: clock.Hand
) -> None:
    order = buyer.order()
    midtrans.say(body_of(order, "settlement"))
    assert poll_due() == 0, "its time has not come"
    hand.advance(5 * MINUTE)
    assert poll_due() == 1
    assert buyer.access == ("PRO", "active")
    assert kinds(order) == ["payment_changed", "found_by_poll"]


def test_settlement_that_a_notification_told_is_not_marked_as_found(
    buyer: Buyer, midtrans: StatusServer, hand: clock.Hand
) -> None:
    order = buyer.order()
    midtrans.failure = 503
    post(body_of(order, "settlement"))
    midtrans.failure = 0
    midtrans.say(body_of(order, "settlement"))
    hand.advance(5 * MINUTE)
    assert poll_due() == 1
    assert kinds(order) == ["payment_changed"]


def test_not_found_is_not_started_and_not_failed(buyer: Buyer, midtrans: StatusServer, hand: clock.Hand) -> None:
    order = buyer.order(page_expires_at=hand.moment + DAY)
    hand.advance(5 * MINUTE)
    assert poll_due() == 0
    order.refresh_from_db()
    assert (order.state, order.is_closed, order.polls) == ("created", False, 1)


def test_page_that_was_never_used_is_asked_for_until_it_has_expired(
    buyer: Buyer, midtrans: StatusServer, hand: clock.Hand
) -> None:
    order = buyer.order(page_expires_at=hand.moment + 2 * HOUR)
    looks(midtrans, hand, during=6 * HOUR, step=5 * MINUTE)
    order.refresh_from_db()
    assert (order.state, order.is_closed) == ("created", True)
    count = len(midtrans.asked)
    assert looks(midtrans, hand, during=5 * DAY, step=HOUR) == []
    assert len(midtrans.asked) == count > 20


def test_charge_that_never_arrived_is_given_up_after_a_quarter_of_an_hour(
    buyer: Buyer, midtrans: StatusServer, hand: clock.Hand
) -> None:
    order = buyer.order(by=PaymentAttempt.By.MERCHANT)
    looks(midtrans, hand, during=30 * MINUTE, step=MINUTE)
    order.refresh_from_db()
    assert (order.is_closed, order.polls) == (True, 3)


@pytest.mark.parametrize(
    ("failure", "problem"),
    [
        (500, "Midtrans: broken"),
        (503, "Midtrans: broken"),
        (429, "Midtrans: rate_limited"),
        (401, "Midtrans: unauthorized"),
    ],
)
def test_no_answer_is_unknown_and_never_a_failure(
    buyer: Buyer, midtrans: StatusServer, hand: clock.Hand, failure: int, problem: str
) -> None:
    order = buyer.order(by=PaymentAttempt.By.MERCHANT)
    midtrans.failure = failure
    looks(midtrans, hand, during=3 * DAY, step=HOUR)
    order.refresh_from_db()
    assert (order.state, order.is_closed) == ("created", False)
    assert order.last_problem == problem
    midtrans.failure = 0
    midtrans.say(body_of(order, "settlement"))
    looks(midtrans, hand, during=DAY, step=HOUR)
    assert buyer.access[0] == "PRO"


def test_pending_payment_is_asked_for_more_rarely_with_age(
    buyer: Buyer, midtrans: StatusServer, hand: clock.Hand
) -> None:
    order = buyer.order()
    midtrans.say(body_of(order, "pending"))
    moments = looks(midtrans, hand, during=10 * DAY, step=5 * MINUTE)
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert moments[0] == 5 * MINUTE
    assert set(gaps) == {5 * MINUTE, 30 * MINUTE, 3 * HOUR, DAY}
    assert gaps == sorted(gaps)
    order.refresh_from_db()
    assert not order.is_closed


@pytest.mark.parametrize("kind", ["bank_transfer", "echannel"])
def test_transfer_that_the_bank_takes_back_within_minutes_is_found(
    buyer: Buyer, midtrans: StatusServer, hand: clock.Hand, kind: str
) -> None:
    order = buyer.order()
    midtrans.say(body_of(order, "settlement", payment_type=kind))
    hand.advance(5 * MINUTE)
    poll_due()
    assert buyer.access == ("PRO", "active")
    hand.advance(4 * MINUTE)
    midtrans.say(body_of(order, "deny", payment_type=kind))
    hand.advance(MINUTE)
    assert poll_due() == 1
    assert buyer.access[1] == "unpaid"
    assert kinds(order).count("found_by_poll") == 2


def test_paid_order_is_looked_after_while_its_time_runs_and_then_no_more(
    buyer: Buyer, midtrans: StatusServer, hand: clock.Hand
) -> None:
    order = buyer.order()
    midtrans.say(body_of(order, "settlement"))
    hand.advance(5 * MINUTE)
    poll_due()
    first = looks(midtrans, hand, during=HOUR, step=MINUTE)
    assert first == [5 * MINUTE, 10 * MINUTE]
    days = [round(moment / DAY) for moment in looks(midtrans, hand, during=90 * DAY, step=2 * HOUR)]
    assert days == [1, 7]
    order.refresh_from_db()
    assert order.is_closed


def test_chargeback_weeks_later_is_found_though_nobody_told(
    buyer: Buyer, midtrans: StatusServer, hand: clock.Hand
) -> None:
    order = buyer.order(interval="yearly")
    midtrans.say(body_of(order, "settlement"))
    hand.advance(5 * MINUTE)
    poll_due()
    hand.advance(100 * DAY)
    midtrans.say(body_of(order, "chargeback", refund_amount=f"{order.amount}.00"))
    looks(midtrans, hand, during=31 * DAY, step=DAY)
    assert buyer.state == "unpaid"


def test_capture_is_followed_until_it_is_settled(buyer: Buyer, midtrans: StatusServer, hand: clock.Hand) -> None:
    order = buyer.order()
    midtrans.say(body_of(order, "capture", payment_type="credit_card"))
    hand.advance(5 * MINUTE)
    poll_due()
    looks(midtrans, hand, during=200 * DAY, step=DAY)
    order.refresh_from_db()
    assert (order.state, order.is_closed) == ("captured", False)


def test_two_workers_ask_once(
    buyer: Buyer, midtrans: StatusServer, hand: clock.Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = buyer.order()
    midtrans.say(body_of(order, "pending"))
    hand.advance(5 * MINUTE)
    real = poll_attempt

    def second_worker_comes(attempt: PaymentAttempt, **fields: object) -> object:
        monkeypatch.setattr(polling, "poll_attempt", real)
        poll_due()
        return real(attempt, **fields)  # type: ignore[arg-type]

    monkeypatch.setattr(polling, "poll_attempt", second_worker_comes)
    poll_due()
    assert midtrans.asked == [order.order_id]


def test_without_any_notification_every_state_is_there_within_two_rounds(
    midtrans: StatusServer, hand: clock.Hand
) -> None:
    wanted = {
        "settlement": ("settled", "paid"),
        "expire": ("expired", "open"),
        "deny": ("denied", "open"),
        "cancel": ("cancelled", "open"),
        "failure": ("failed", "open"),
        "pending": ("pending", "open"),
        "refund": ("refunded", "returned"),
        "chargeback": ("charged_back", "returned"),
    }
    orders = {told: Buyer.new().order() for told in wanted}
    for told, order in orders.items():
        changes = {"refund_amount": f"{order.amount}.00"} if told in ("refund", "chargeback") else {}
        midtrans.say(body_of(order, told, **changes))
    for _ in range(2):
        hand.advance(5 * MINUTE)
        poll_due()
    for told, order in orders.items():
        order.refresh_from_db()
        assert (order.state, Invoice.objects.get(pk=order.invoice_id).state) == wanted[told], told
    assert AccessGrant.objects.filter(revoked_at=None).count() == 1
    assert BillingEntry.objects.filter(kind="found_by_poll").count() == len(wanted)


def test_answer_that_does_not_belong_to_the_order_changes_nothing_and_is_asked_for_again(
    buyer: Buyer, midtrans: StatusServer, hand: clock.Hand
) -> None:
    order = buyer.order()
    midtrans.say(body_of(order, "settlement", gross_amount="1.00"))
    hand.advance(5 * MINUTE)
    assert poll_due() == 0
    order.refresh_from_db()
    assert (order.state, order.is_closed, buyer.access[0]) == ("created", False, "FREE")
    assert kinds(order) == ["mismatch"]
    assert order.next_poll_at is not None
    assert order.next_poll_at > hand.moment
