"""Renewals, retries, reminders, grace and the end, by the clock (billing: renewals, charges, failures, dunning)."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core import mail
from pytest_django import Settings

from billing import audit, background, checkout, clock, dunning, methods, polling, receipts, renewals, vault
from billing.midtrans.signature import account_signature
from billing.models import BillingEntry, PaymentAttempt, PaymentMethod
from billing.problems import BillingError
from events.models import OutboxEvent
from tenants.access import NotVisible
from tests.billing import notified
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


@pytest.fixture
def by_transfer(twin: Twin) -> Shopper:
    shopper = Shopper.new(twin)
    shopper.buy("PRO", method="bank_transfer")
    return shopper


def subjects() -> list[str]:
    """Of the mails so far, the English half."""
    return [message.subject.partition(" / ")[2] for message in mail.outbox]


def last_mail() -> Any:
    return mail.outbox[-1]


# --- Cards and wallets ------------------------------------------------------------------------------------------------


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


# --- Invoices with a page ---------------------------------------------------------------------------------------------


def test_company_without_a_method_gets_invoice_and_page_a_week_ahead(
    by_transfer: Shopper, twin: Twin, worker: Worker, hand: clock.Hand
) -> None:
    hand.moment = END - 7 * DAY - MINUTE
    worker.work()
    assert by_transfer.invoices(kind="renewal") == []
    hand.moment = END - 7 * DAY
    worker.work()
    invoice = by_transfer.open_invoice()
    assert (invoice.kind, invoice.total, invoice.due_at) == ("renewal", PRO, END)
    [attempt] = by_transfer.attempts(invoice=invoice)
    assert attempt.page_url
    assert attempt.page_expires_at == END
    by_transfer.pay(invoice)
    assert by_transfer.paid_until == NEXT_END


def test_renewal_waits_for_the_upgrade_that_is_being_paid_and_is_of_the_new_plan(
    by_transfer: Shopper, worker: Worker, hand: clock.Hand
) -> None:
    hand.moment = END - 7 * DAY - timedelta(hours=2)
    upgrade = by_transfer.choose("ENTERPRISE")
    assert upgrade is not None
    hand.moment = END - 7 * DAY + timedelta(hours=2)
    worker.work()
    assert by_transfer.open_invoice() == upgrade
    by_transfer.pay(upgrade)
    worker.until(hand, END - 6 * DAY)
    assert (by_transfer.open_invoice().kind, by_transfer.open_invoice().total) == ("renewal", 2_499_000)


def test_reminders_come_seven_days_three_days_and_a_day_ahead(
    by_transfer: Shopper, worker: Worker, hand: clock.Hand
) -> None:
    worker.until(hand, END - MINUTE)
    assert subjects() == [f"Subscription of {by_transfer.company.name}: Pro ends on 10 February 2026"] * 3
    text = last_mail().body
    assert f"/admin/billing/invoices/{by_transfer.open_invoice().number}/" in text
    assert "Rp499.000" in text
    assert "10 Februari 2026" in text
    assert "10 February 2026" in text
    assert last_mail().to == [f"{by_transfer.company.name}@example.com"]


def test_nobody_is_reminded_who_has_paid_or_leaves(
    by_transfer: Shopper, twin: Twin, worker: Worker, hand: clock.Hand
) -> None:
    leaving = Shopper.new(twin)
    leaving.buy("PRO")
    checkout.cancel(leaving.actor, leaving.company)
    worker.until(hand, END - 6 * DAY)
    by_transfer.pay(by_transfer.open_invoice())
    worker.until(hand, END + MINUTE)
    assert subjects() == [
        f"Subscription of {by_transfer.company.name}: Pro ends on 10 February 2026",
        f"The subscription Pro of {leaving.company.name} has ended",
    ]


def test_company_with_a_card_is_told_once_what_will_be_charged(
    by_card: Shopper, worker: Worker, hand: clock.Hand
) -> None:
    worker.until(hand, RENEWAL_DAY - MINUTE)
    assert subjects() == [f"Renewal of Pro for {by_card.company.name} on 10 February 2026"]
    assert "48111111-1114" in last_mail().body


def test_mail_server_that_refuses_stops_no_job(
    by_transfer: Shopper, worker: Worker, hand: clock.Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_fields: object) -> int:
        raise OSError("no mail today")

    monkeypatch.setattr("django.core.mail.EmailMessage.send", refuse)
    worker.until(hand, END + 4 * DAY)
    assert by_transfer.state == "unpaid"


# --- The end of the money ---------------------------------------------------------------------------------------------


def test_unpaid_period_goes_over_grace_and_cut_off_to_free(
    by_transfer: Shopper, worker: Worker, hand: clock.Hand
) -> None:
    worker.until(hand, END - MINUTE)
    assert (by_transfer.state, by_transfer.access) == ("active", ("PRO", "active"))
    hand.moment = END
    worker.work()
    assert (by_transfer.state, by_transfer.access) == ("past_due", ("PRO", "active"))
    hand.moment = END + 3 * DAY - MINUTE
    worker.work()
    assert by_transfer.access == ("PRO", "active")
    OutboxEvent.objects.all().delete()
    hand.moment = END + 3 * DAY
    worker.work()
    assert (by_transfer.state, by_transfer.access) == ("unpaid", ("PRO", "unpaid"))
    assert OutboxEvent.objects.filter(key=str(by_transfer.company.pk)).exists()
    worker.until(hand, END + 33 * DAY - MINUTE)
    assert by_transfer.state == "unpaid"
    worker.until(hand, END + 33 * DAY + MINUTE)
    assert (by_transfer.state, by_transfer.access) == ("ended", ("FREE", "active"))
    assert by_transfer.invoices(state="open") == []
    assert [subject.split()[0] for subject in subjects()] == ["Subscription"] * 3 + ["Pro", "The", "The"]
    assert audit.run().findings == []


def test_payment_in_the_grace_time_joins_the_period(by_transfer: Shopper, worker: Worker, hand: clock.Hand) -> None:
    worker.until(hand, END + 2 * DAY)
    by_transfer.pay(by_transfer.open_invoice())
    assert (by_transfer.state, by_transfer.access, by_transfer.paid_until) == ("active", ("PRO", "active"), NEXT_END)


def test_jobs_that_slept_through_everything_catch_up(by_transfer: Shopper, worker: Worker, hand: clock.Hand) -> None:
    hand.moment = END + 40 * DAY
    worker.work()
    worker.work()
    assert (by_transfer.state, by_transfer.access) == ("unpaid", ("PRO", "unpaid"))


def test_transfer_that_waits_for_a_void_invoice_is_taken_back(
    by_transfer: Shopper, twin: Twin, worker: Worker, hand: clock.Hand
) -> None:
    hand.moment = END - 2 * DAY
    worker.work()
    order_id = by_transfer.open_page(by_transfer.open_invoice())
    twin.choose(order_id, "bank_transfer")
    twin.deliver()
    invoice = by_transfer.open_invoice()
    invoice.state = "void"
    invoice.save()
    hand.advance(2 * MINUTE)
    worker.work()
    assert twin.sandbox.find(order_id).state == "cancel"
    assert PaymentAttempt.objects.get(order_id=order_id).state == "cancelled"


def test_job_is_bounded_and_one_that_fails_stops_no_other(
    twin: Twin, hand: clock.Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    shoppers = [Shopper.new(twin) for _ in range(3)]
    for shopper in shoppers:
        shopper.buy("PRO")
    hand.moment = END
    assert dunning.end_due(limit=2) == 2
    real = dunning._end

    def fail_once(company_id: Any) -> bool:
        monkeypatch.setattr(dunning, "_end", real)
        raise ValueError(company_id)

    monkeypatch.setattr(dunning, "_end", fail_once)
    assert dunning.end_due() == 0
    assert dunning.end_due() == 1
    assert {shopper.state for shopper in shoppers} == {"past_due"}
