"""Invoices with a page, reminders, grace and the end, by the clock (billing: renewals, dunning, notices)."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core import mail

from billing import audit, checkout, clock, dunning
from billing.models import PaymentAttempt
from events.models import OutboxEvent
from tests.billing.shop import Shopper, Worker
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
