"""Choosing, buying, changing and cancelling a plan (billing: checkout, pages, quotes)."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.core.exceptions import PermissionDenied

from billing import checkout, clock
from billing.models import Invoice, Price
from billing.problems import BillingError
from billing.quotes import Takes
from tenants.access import Actor, NotVisible
from tenants.models import User
from tests.billing.shop import FINISH, OPERATOR, Shopper, Worker
from tests.support.midtrans_twin import Twin, install

pytestmark = pytest.mark.django_db
START = datetime(2026, 1, 10, 3, 0, tzinfo=UTC)
PRO, PRO_YEAR, ENTERPRISE = 499_000, 4_990_000, 2_499_000


@pytest.fixture(autouse=True)
def hand() -> Iterator[clock.Hand]:
    with clock.stopped_at(START) as hand:
        yield hand


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Twin:
    return install(monkeypatch)


@pytest.fixture
def shopper(twin: Twin) -> Shopper:
    return Shopper.new(twin)


# --- The first plan ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["card", "bank_transfer", "gopay", "qris"])
def test_company_buys_its_first_plan_by_each_method(shopper: Shopper, method: str) -> None:
    invoice = checkout.start(shopper.actor, shopper.company, shopper.price("PRO"))
    assert (invoice.kind, invoice.total, invoice.net + invoice.tax) == ("first", PRO, PRO)
    assert shopper.access == ("FREE", "active")
    shopper.pay(invoice, method)
    assert (shopper.state, shopper.access) == ("active", ("PRO", "active"))
    assert shopper.paid_until == datetime(2026, 2, 10, 3, 0, tzinfo=UTC)


def test_page_is_for_all_methods_and_its_lines_add_up(shopper: Shopper, twin: Twin) -> None:
    invoice = checkout.start(shopper.actor, shopper.company, shopper.price("PRO"))
    body = twin.pages[shopper.open_page(invoice)]
    assert {"credit_card", "bca_va", "gopay", "other_qris"} <= set(body["enabled_payments"])
    assert body["credit_card"] == {"secure": True, "save_card": True}
    lines = [(item["name"].split()[0], item["price"]) for item in body["item_details"]]
    assert lines == [("Pro", 449_550), ("PPN", 49_450)]
    assert body["transaction_details"]["gross_amount"] == PRO
    assert (body["callbacks"]["finish"], body["expiry"]["duration"]) == (FINISH, 24 * 60)
    assert body["customer_details"]["email"].endswith("@example.com")


def test_second_click_gives_the_same_invoice_and_page(shopper: Shopper, twin: Twin) -> None:
    first, second = (checkout.start(shopper.actor, shopper.company, shopper.price("PRO")) for _ in range(2))
    assert first == second
    url = checkout.open_page(shopper.actor, first, finish_url=FINISH)
    assert checkout.open_page(shopper.actor, first, finish_url=FINISH) == url
    assert (twin.count("snap"), len(shopper.attempts())) == (1, 1)


def test_page_that_has_expired_is_followed_by_another_order(shopper: Shopper, hand: clock.Hand) -> None:
    invoice = checkout.start(shopper.actor, shopper.company, shopper.price("PRO"))
    first = shopper.open_page(invoice)
    hand.advance(timedelta(hours=23))
    assert shopper.open_page(invoice) == first
    hand.advance(timedelta(hours=2))
    second = shopper.open_page(invoice)
    assert second != first
    assert [attempt.state for attempt in shopper.attempts()] == ["expired", "created"]


def test_page_of_a_bank_transfer_that_waits_stays_the_page(shopper: Shopper, twin: Twin, hand: clock.Hand) -> None:
    invoice = checkout.start(shopper.actor, shopper.company, shopper.price("PRO"))
    order_id = shopper.open_page(invoice)
    hand.advance(timedelta(hours=23, minutes=59))
    twin.choose(order_id, "bank_transfer")
    hand.advance(timedelta(hours=2))
    assert shopper.open_page(invoice) == order_id
    twin.act(order_id, "pay")
    twin.deliver()
    assert shopper.access == ("PRO", "active")


def test_denied_payment_is_followed_by_another_order(shopper: Shopper, twin: Twin) -> None:
    invoice = checkout.start(shopper.actor, shopper.company, shopper.price("PRO"))
    first = shopper.open_page(invoice)
    twin.choose(first, "card")
    twin.act(first, "deny")
    twin.deliver()
    second = shopper.open_page(invoice)
    assert second != first
    twin.pay(second, "qris")
    twin.deliver()
    assert shopper.access == ("PRO", "active")


@pytest.mark.parametrize("done", [True, False])
def test_page_whose_answer_was_lost_is_asked_for_again_with_the_same_order(
    shopper: Shopper, twin: Twin, *, done: bool
) -> None:
    invoice = checkout.start(shopper.actor, shopper.company, shopper.price("PRO"))
    twin.lose("snap", done=done)
    with pytest.raises(BillingError) as caught:
        shopper.open_page(invoice)
    assert caught.value.is_temporary
    assert checkout.open_page(shopper.actor, invoice, finish_url=FINISH)
    assert len({order for name, order in twin.calls if name == "snap"}) == 1
    assert len(shopper.attempts()) == 1


def test_page_whose_payment_nobody_heard_of_is_not_replaced(shopper: Shopper, twin: Twin, hand: clock.Hand) -> None:
    invoice = checkout.start(shopper.actor, shopper.company, shopper.price("PRO"))
    order_id = shopper.open_page(invoice)
    twin.pay(order_id, "qris")
    twin.told.orders.clear()
    hand.advance(timedelta(hours=25))
    with pytest.raises(BillingError, match="not open"):
        shopper.open_page(invoice)
    assert (shopper.access, len(shopper.attempts())) == (("PRO", "active"), 1)


def test_nothing_is_replaced_while_midtrans_does_not_answer(shopper: Shopper, twin: Twin, hand: clock.Hand) -> None:
    invoice = checkout.start(shopper.actor, shopper.company, shopper.price("PRO"))
    shopper.open_page(invoice)
    hand.advance(timedelta(hours=25))
    twin.lose("status", done=False)
    with pytest.raises(BillingError) as caught:
        shopper.open_page(invoice)
    assert (caught.value.is_temporary, len(shopper.attempts())) == (True, 1)


def test_another_choice_voids_the_first_invoice(shopper: Shopper) -> None:
    first = checkout.start(shopper.actor, shopper.company, shopper.price("PRO"))
    second = checkout.start(shopper.actor, shopper.company, shopper.price("ENTERPRISE"))
    first.refresh_from_db()
    assert (first.state, second.state) == ("void", "open")
    with pytest.raises(BillingError, match="not open"):
        shopper.open_page(first)


def test_another_choice_takes_back_the_transfer_that_waits_for_the_first(shopper: Shopper, twin: Twin) -> None:
    order_id = shopper.open_page(checkout.start(shopper.actor, shopper.company, shopper.price("PRO")))
    twin.choose(order_id, "bank_transfer")
    twin.deliver()
    checkout.start(shopper.actor, shopper.company, shopper.price("ENTERPRISE"))
    assert twin.sandbox.find(order_id).state == "cancel"


def test_another_choice_counts_the_payment_that_had_just_arrived(shopper: Shopper, twin: Twin) -> None:
    order_id = shopper.open_page(checkout.start(shopper.actor, shopper.company, shopper.price("PRO")))
    twin.choose(order_id, "bank_transfer")
    twin.deliver()
    twin.act(order_id, "pay")
    upgrade = checkout.start(shopper.actor, shopper.company, shopper.price("ENTERPRISE"))
    assert (upgrade.kind, upgrade.total) == ("upgrade", ENTERPRISE - PRO)
    assert shopper.access == ("PRO", "active")


# --- Changes ----------------------------------------------------------------------------------------------------------


def test_upgrade_costs_the_difference_for_the_days_left_and_counts_at_once(shopper: Shopper, hand: clock.Hand) -> None:
    shopper.buy("PRO")
    end = shopper.paid_until
    hand.advance(timedelta(days=16))
    offer = checkout.quote(shopper.actor, shopper.company, shopper.price("ENTERPRISE"))
    # 15 of 31 days of 2,000,000.
    assert (offer.total, offer.is_now, offer.net + offer.tax) == (967_742, True, 967_742)
    invoice = shopper.choose("ENTERPRISE")
    assert invoice is not None
    assert (invoice.kind, invoice.total, invoice.period_end) == ("upgrade", 967_742, end)
    shopper.pay(invoice)
    assert (shopper.access, shopper.paid_until) == (("ENTERPRISE", "active"), end)
    assert shopper.subscription.price == shopper.price("ENTERPRISE")


def test_upgrade_that_is_not_paid_leaves_the_plan(shopper: Shopper, twin: Twin, hand: clock.Hand) -> None:
    shopper.buy("PRO")
    shopper.choose("ENTERPRISE")
    Worker(twin).until(hand, hand.moment + timedelta(days=2))
    assert (shopper.access, shopper.invoices(state="open")) == (("PRO", "active"), [])
    assert [invoice.state for invoice in shopper.invoices(kind="upgrade")] == ["void"]


def test_upgrade_of_a_period_that_is_paid_ahead_pays_for_both(shopper: Shopper, twin: Twin, hand: clock.Hand) -> None:
    shopper.buy("PRO")
    hand.moment = shopper.paid_until - timedelta(days=5)
    Worker(twin).work()
    shopper.pay(shopper.open_invoice())
    assert shopper.paid_until == datetime(2026, 3, 10, 3, 0, tzinfo=UTC)
    offer = checkout.quote(shopper.actor, shopper.company, shopper.price("ENTERPRISE"))
    assert offer.total == 322_581 + 2_000_000
    invoice = shopper.choose("ENTERPRISE")
    assert invoice is not None
    shopper.pay(invoice)
    hand.advance(timedelta(days=20))
    Worker(twin).work()
    assert shopper.access == ("ENTERPRISE", "active")


def test_downgrade_waits_for_the_end_of_the_period(shopper: Shopper, twin: Twin, hand: clock.Hand) -> None:
    shopper.buy("ENTERPRISE")
    end = shopper.paid_until
    assert shopper.choose("PRO") is None
    assert (shopper.access, shopper.subscription.next_price) == (("ENTERPRISE", "active"), shopper.price("PRO"))
    worker = Worker(twin)
    worker.until(hand, end - timedelta(days=6))
    renewal = shopper.open_invoice()
    assert (renewal.kind, renewal.total) == ("renewal", PRO)
    shopper.pay(renewal)
    worker.until(hand, end - timedelta(minutes=1))
    assert shopper.access == ("ENTERPRISE", "active")
    worker.until(hand, end + timedelta(seconds=30))
    assert (shopper.access, shopper.subscription.next_price) == (("PRO", "active"), None)


def test_planned_change_is_withdrawn_by_choosing_the_plan_again(shopper: Shopper) -> None:
    shopper.buy("ENTERPRISE")
    shopper.choose("PRO")
    assert shopper.choose("ENTERPRISE") is None
    assert shopper.subscription.next_price is None
    with pytest.raises(BillingError, match="has this plan already"):
        shopper.choose("ENTERPRISE")


def test_downgrade_voids_the_renewal_that_was_already_written(shopper: Shopper, twin: Twin, hand: clock.Hand) -> None:
    shopper.buy("ENTERPRISE")
    hand.moment = shopper.paid_until - timedelta(days=5)
    worker = Worker(twin)
    worker.work()
    assert shopper.open_invoice().total == ENTERPRISE
    shopper.choose("PRO")
    worker.work()
    assert [(invoice.total, invoice.state) for invoice in shopper.invoices(kind="renewal")] == [
        (ENTERPRISE, "void"),
        (PRO, "open"),
    ]


def test_change_to_yearly_begins_a_new_year_and_takes_off_what_is_unused(shopper: Shopper, hand: clock.Hand) -> None:
    shopper.buy("PRO")
    hand.advance(timedelta(days=11))
    invoice = shopper.choose("PRO", "yearly")
    assert invoice is not None
    # 20 of 31 days are left.
    assert (invoice.kind, invoice.total) == ("change", PRO_YEAR - 321_935)
    shopper.pay(invoice)
    assert shopper.paid_until == datetime(2027, 1, 21, 3, 0, tzinfo=UTC)
    offer = checkout.quote(shopper.actor, shopper.company, shopper.price("ENTERPRISE", "yearly"))
    assert offer.total == 20_000_000


def test_change_to_monthly_waits_for_the_end_of_the_year(shopper: Shopper) -> None:
    shopper.buy("PRO", "yearly")
    offer = checkout.quote(shopper.actor, shopper.company, shopper.price("PRO"))
    assert (offer.takes, offer.total, offer.period_start) == (Takes.AT_PERIOD_END, 0, shopper.paid_until)
    assert shopper.choose("PRO") is None


def test_nothing_is_bought_for_the_last_hours_of_a_period(shopper: Shopper, hand: clock.Hand) -> None:
    shopper.buy("PRO")
    hand.moment = shopper.paid_until - timedelta(minutes=10)
    assert checkout.quote(shopper.actor, shopper.company, shopper.price("ENTERPRISE")).takes is Takes.AT_PERIOD_END


# --- The end ----------------------------------------------------------------------------------------------------------


def test_cancelled_subscription_ends_at_the_end_of_the_period(shopper: Shopper, twin: Twin, hand: clock.Hand) -> None:
    shopper.buy("PRO", method="card")
    assert checkout.cancel(shopper.actor, shopper.company).state == "cancelling"
    worker, end = Worker(twin), shopper.paid_until
    worker.until(hand, end - timedelta(minutes=1))
    assert shopper.access == ("PRO", "active")
    worker.until(hand, end + timedelta(seconds=30))
    assert (shopper.state, shopper.access) == ("ended", ("FREE", "active"))
    assert twin.count("charge") == 0


def test_cancellation_is_withdrawn(shopper: Shopper) -> None:
    shopper.buy("PRO")
    checkout.cancel(shopper.actor, shopper.company)
    assert checkout.withdraw_cancel(shopper.actor, shopper.company).state == "active"
    with pytest.raises(BillingError, match="no cancellation"):
        checkout.withdraw_cancel(shopper.actor, shopper.company)


def test_cancelled_subscription_takes_no_change(shopper: Shopper) -> None:
    shopper.buy("PRO")
    checkout.cancel(shopper.actor, shopper.company)
    with pytest.raises(BillingError, match="withdraw the cancellation first"):
        shopper.choose("ENTERPRISE")


def test_company_without_a_plan_has_nothing_to_cancel(shopper: Shopper) -> None:
    with pytest.raises(BillingError, match="no subscription"):
        checkout.cancel(shopper.actor, shopper.company)


def test_cancelling_what_is_overdue_ends_it_at_once(shopper: Shopper, twin: Twin, hand: clock.Hand) -> None:
    shopper.buy("PRO")
    Worker(twin).until(hand, shopper.paid_until + timedelta(days=1))
    assert shopper.state == "past_due"
    assert checkout.cancel(shopper.actor, shopper.company).state == "ended"
    assert (shopper.access, shopper.invoices(state="open")) == (("FREE", "active"), [])


def test_company_that_was_cut_off_begins_anew_with_its_payment(shopper: Shopper, twin: Twin, hand: clock.Hand) -> None:
    shopper.buy("PRO")
    Worker(twin).until(hand, shopper.paid_until + timedelta(days=10))
    assert (shopper.state, shopper.access) == ("unpaid", ("PRO", "unpaid"))
    # The invoice of the renewal is still the one to pay.
    assert shopper.choose("PRO") == shopper.open_invoice()
    shopper.pay(shopper.open_invoice())
    assert (shopper.state, shopper.access) == ("active", ("PRO", "active"))
    assert (shopper.paid_until - hand.moment).days >= 28


def test_company_that_was_cut_off_may_come_back_with_a_smaller_plan(
    shopper: Shopper, twin: Twin, hand: clock.Hand
) -> None:
    shopper.buy("ENTERPRISE")
    Worker(twin).until(hand, shopper.paid_until + timedelta(days=10))
    invoice = shopper.choose("PRO")
    assert invoice is not None
    assert (invoice.total, [row.state for row in shopper.invoices(kind="renewal")]) == (PRO, ["void"])
    shopper.pay(invoice)
    assert shopper.access == ("PRO", "active")


# --- Whose it is ------------------------------------------------------------------------------------------------------


def test_other_companies_do_not_exist_for_an_admin(shopper: Shopper, twin: Twin) -> None:
    other, price = Shopper.new(twin), shopper.price("PRO")
    invoice = checkout.start(other.actor, other.company, price)
    for act in (checkout.quote, checkout.start, checkout.change_plan):
        with pytest.raises(NotVisible):
            act(shopper.actor, other.company, price)
    for end in (checkout.cancel, checkout.withdraw_cancel):
        with pytest.raises(NotVisible):
            end(shopper.actor, other.company)
    with pytest.raises(NotVisible):
        checkout.open_page(shopper.actor, invoice, finish_url=FINISH)


def test_trader_buys_nothing_and_an_operator_may(shopper: Shopper) -> None:
    trader = Actor.of(User.objects.create_user("tina", company=shopper.company, role=User.Role.TRADER))
    with pytest.raises(PermissionDenied):
        checkout.start(trader, shopper.company, shopper.price("PRO"))
    assert checkout.start(OPERATOR, shopper.company, shopper.price("PRO")).state == Invoice.State.OPEN


def test_price_that_is_not_offered_is_not_sold_and_old_ones_go_on(
    shopper: Shopper, twin: Twin, hand: clock.Hand
) -> None:
    shopper.buy("PRO", method="card")
    old = shopper.price("PRO")
    Price.objects.filter(pk=old.pk).update(is_active=False)
    Price.objects.create(plan=old.plan, interval="monthly", amount=599_000)
    with pytest.raises(BillingError, match="not offered"):
        checkout.start(OPERATOR, Shopper.new(twin).company, old)
    Worker(twin).until(hand, shopper.paid_until + timedelta(hours=1))
    assert [invoice.total for invoice in shopper.invoices()] == [PRO, PRO]
