"""What a company admin sees and does about plan and payments (billing: console)."""

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from billing import checkout, clock, entitlements, vault
from billing.console.shell import PART_HEADER
from billing.models import AccessGrant, BillingEntry, Invoice, PaymentMethod, Plan, Subscription
from billing.problems import BillingError
from tenants import access
from tenants.access import Actor
from tenants.models import Company, User
from tests.billing.console.conftest import client_of
from tests.billing.shop import Shopper, Worker
from tests.support.midtrans_twin import Twin

pytestmark = pytest.mark.django_db
_TAG = re.compile(r"<[^>]+>|\s+")


def text_of(answer: Any) -> str:
    assert answer.status_code == 200, answer.status_code
    return re.sub(r" +", " ", _TAG.sub(" ", answer.content.decode()))


def page(name: str, *args: Any) -> str:
    return reverse(f"billing:{name}", args=args)


def choice(shopper: Shopper, tier: str, interval: str = "monthly") -> str:
    return page("choose", shopper.company.pk, shopper.price(tier, interval).pk)


def plan_text(client: Client, shopper: Shopper) -> str:
    return text_of(client.get(page("company", shopper.company.pk)))


# --- Buying -----------------------------------------------------------------------------------------------------------


def test_company_without_a_plan_is_offered_all_with_their_prices(as_alpha: Client, alpha: Shopper) -> None:
    answer = as_alpha.get(page("plan"), follow=True)
    assert answer.redirect_chain == [(page("company", alpha.company.pk), 302)]
    text = text_of(answer)
    assert "You use the plan FREE." in text
    for price in ("Rp499.000 a month", "Rp4.990.000 a year", "Rp2.499.000 a month", "Rp24.990.000 a year"):
        assert price in text
    assert "you save Rp998.000 a year" in text
    assert "1 of 1 users" in text and "0 of 5 MT5 accounts" in text


def test_choice_shows_net_tax_and_total_and_pays_by_one_click(as_alpha: Client, alpha: Shopper, twin: Twin) -> None:
    text = text_of(as_alpha.get(choice(alpha, "PRO")))
    assert "Net Rp449.550" in text and "(PPN) 11 % Rp49.450" in text and "To be paid now Rp499.000" in text
    assert alpha.invoices() == []
    answer = as_alpha.post(choice(alpha, "PRO"))
    invoice = alpha.open_invoice()
    [attempt] = alpha.attempts()
    assert (answer.status_code, answer["Location"]) == (302, attempt.page_url)
    # Midtrans sends the customer back to the invoice.
    finish = twin.pages[attempt.order_id]["callbacks"]["finish"]
    assert finish == f"http://testserver{page('invoice', invoice.number)}"


def test_forms_may_lead_to_the_payment_page_and_nowhere_else(as_alpha: Client, alpha: Shopper) -> None:
    policy = as_alpha.get(choice(alpha, "PRO"))["Content-Security-Policy"]
    assert "form-action 'self' http://midtrans.test;" in f"{policy};"
    assert "unsafe-inline" not in policy
    assert "midtrans.test" not in as_alpha.get(reverse("admin:index"))["Content-Security-Policy"]


def test_invoice_waits_for_its_payment_and_then_says_that_the_plan_is_in_force(
    as_alpha: Client, alpha: Shopper, twin: Twin
) -> None:
    invoice = alpha.choose("PRO")
    assert invoice is not None
    path = page("invoice", invoice.number)
    assert "Pay it by" in text_of(as_alpha.get(path))
    order_id = alpha.open_page(invoice)
    assert "The payment page is ready. Nothing has been paid yet." in text_of(as_alpha.get(path))
    # As somebody who comes back from the payment page.
    waiting = as_alpha.get(f"{path}?transaction_status=pending", headers={PART_HEADER: "1"})
    assert "We wait for the confirmation of your payment" in text_of(waiting)
    assert b"<html" not in waiting.content
    twin.pay(order_id, "qris")
    twin.deliver()
    paid = as_alpha.get(path, headers={PART_HEADER: "1"})
    assert "Paid: Pro is in force" in text_of(paid)
    versions = [re.findall(r'data-version="([^"]+)"', answer.content.decode()) for answer in (waiting, paid)]
    assert versions[0] != versions[1]
    assert "Pro, paid until 10 February 2026 at 10:00 WIB" in plan_text(as_alpha, alpha)


def test_waiting_payer_has_midtrans_asked_at_once_but_not_with_every_click(
    as_alpha: Client, alpha: Shopper, twin: Twin
) -> None:
    invoice = alpha.choose("PRO")
    assert invoice is not None
    order_id = alpha.open_page(invoice)
    # Its notification never arrives.
    twin.pay(order_id, "qris")
    answer = as_alpha.post(page("ask", invoice.number), follow=True)
    assert "Paid: Pro is in force" in text_of(answer)
    polls = alpha.attempts()[0].polls
    as_alpha.post(page("ask", invoice.number))
    assert alpha.attempts()[0].polls == polls


def test_midtrans_that_does_not_answer_leads_to_the_invoice_with_what_to_do(
    as_alpha: Client, alpha: Shopper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_more: object) -> str:
        raise BillingError("The payment page could not be opened: try again in a minute.", is_temporary=True)

    monkeypatch.setattr(checkout, "open_page", fail)
    answer = as_alpha.post(choice(alpha, "PRO"), follow=True)
    assert answer.redirect_chain == [(page("invoice", alpha.open_invoice().number), 302)]
    assert "try again in a minute" in text_of(answer)


def test_payment_page_at_an_unexpected_address_is_reached_by_a_link(
    as_alpha: Client, alpha: Shopper, settings: Settings
) -> None:
    settings.MIDTRANS_BASE_URL = "http://elsewhere.example"
    as_alpha.post(choice(alpha, "PRO"))
    [attempt] = alpha.attempts()
    path = page("invoice", alpha.open_invoice().number)
    # A form would be blocked by the page's own policy.
    assert as_alpha.post(page("pay", alpha.open_invoice().number))["Location"] == path
    assert f'href="{attempt.page_url}"' in as_alpha.get(path).content.decode()


# --- Changing ---------------------------------------------------------------------------------------------------------


def test_upgrade_shows_the_price_for_the_rest_of_the_period_before_it_is_paid(
    as_alpha: Client, alpha: Shopper, hand: clock.Hand
) -> None:
    alpha.buy("PRO")
    hand.advance(timedelta(days=10))
    text = text_of(as_alpha.get(choice(alpha, "ENTERPRISE")))
    # 21 of 31 days of the difference.
    assert "To be paid now Rp1.354.839" in text
    assert "You pay the difference for the rest of the period" in text


def test_paid_time_that_is_shorter_than_a_day_is_no_trouble(as_alpha: Client, alpha: Shopper) -> None:
    alpha.buy("PRO")
    AccessGrant.objects.update(ends_at=clock.now() + timedelta(hours=1))
    for tier, interval in (("ENTERPRISE", "monthly"), ("PRO", "yearly")):
        assert as_alpha.get(choice(alpha, tier, interval)).status_code == 200


def test_downgrade_says_what_becomes_less_and_waits_for_the_end_of_the_period(as_alpha: Client, alpha: Shopper) -> None:
    alpha.buy("ENTERPRISE")
    text = text_of(as_alpha.get(choice(alpha, "PRO")))
    assert "users: 5 instead of 10" in text and "nothing changes before" in text
    assert "Pay " not in text
    answer = as_alpha.post(choice(alpha, "PRO"), follow=True)
    assert "it begins with the next period" in text_of(answer)
    assert alpha.access == ("ENTERPRISE", "active")
    assert "it is Pro, monthly" in plan_text(as_alpha, alpha)
    # And taken back by choosing what is there.
    as_alpha.post(choice(alpha, "ENTERPRISE"))
    assert alpha.subscription.next_price is None


def test_cancellation_says_its_consequence_and_can_be_taken_back(as_alpha: Client, alpha: Shopper) -> None:
    alpha.buy("PRO")
    path = page("cancel", alpha.company.pk)
    text = text_of(as_alpha.get(path))
    assert "Everything goes on as it is until" in text and "users: 1 instead of 5" in text
    assert alpha.state == "active"
    text = text_of(as_alpha.post(path, follow=True))
    assert alpha.state == "cancelling" and "nothing is charged any more" in text
    text_of(as_alpha.post(page("withdraw", alpha.company.pk), follow=True))
    assert alpha.state == "active"


def test_what_cannot_be_cancelled_or_taken_back_is_said(as_alpha: Client, alpha: Shopper) -> None:
    for name, said in (("cancel", "There is nothing to cancel."), ("withdraw", "There is no cancellation")):
        for method in (as_alpha.get, as_alpha.post):
            assert said in text_of(method(page(name, alpha.company.pk), follow=True))


# --- What happens next ------------------------------------------------------------------------------------------------


def test_plan_that_nobody_renews_is_told_in_words_at_each_step(
    as_alpha: Client, alpha: Shopper, hand: clock.Hand, twin: Twin
) -> None:
    alpha.buy("PRO")
    worker, end = Worker(twin), alpha.paid_until
    assert "you get the next invoice (Rp499.000 a month) by e-mail" in plan_text(as_alpha, alpha)
    worker.until(hand, end - timedelta(days=6))
    assert f"Invoice {alpha.open_invoice().number} is to be paid" in plan_text(as_alpha, alpha)
    worker.until(hand, end + timedelta(hours=7))
    assert "The paid time of Pro is over since" in plan_text(as_alpha, alpha)
    worker.until(hand, end + timedelta(days=4))
    assert alpha.access[1] == "unpaid"
    assert "the company is cut off" in plan_text(as_alpha, alpha)
    assert "Nobody can connect. Pay the open invoice" in plan_text(as_alpha, alpha)


def test_card_is_named_as_what_renewals_are_charged_to(as_alpha: Client, alpha: Shopper) -> None:
    alpha.buy("PRO", method="card")
    text = plan_text(as_alpha, alpha)
    assert "it is renewed by itself: Card" in text and "is charged Rp499.000 a month" in text


def test_given_time_says_who_gave_it(as_alpha: Client, alpha: Shopper) -> None:
    plan = Plan.objects.get(tier__code="ENTERPRISE")
    end = clock.now() + timedelta(days=30)
    entitlements.grant(alpha.company.pk, plan, clock.now(), end, given_by="olivia", actor="olivia")
    assert "given by olivia" in plan_text(as_alpha, alpha)


def test_suspended_company_reads_the_reason(as_alpha: Client, alpha: Shopper) -> None:
    access.set_company_status(Actor.system(), alpha.company, Company.Status.SUSPENDED, "fraud suspected")
    assert "Reason: fraud suspected." in plan_text(as_alpha, alpha)


# --- Payment methods --------------------------------------------------------------------------------------------------


def two_methods(alpha: Shopper) -> tuple[PaymentMethod, PaymentMethod]:
    """A card, and the GoPay account that was kept last and is the default."""
    alpha.buy("PRO", method="card")
    card = PaymentMethod.objects.get(company=alpha.company)
    wallet = PaymentMethod.objects.create(
        company=alpha.company, kind="gopay", label="4321", sealed_token=b"x", account_id="a-1"
    )
    Subscription.objects.filter(company=alpha.company).update(method=wallet)
    return card, wallet


def test_methods_are_chosen_and_removed_after_a_question(as_alpha: Client, alpha: Shopper) -> None:
    card, wallet = two_methods(alpha)
    listed = text_of(as_alpha.get(page("methods", alpha.company.pk)))
    assert "GoPay 4321 used for renewals" in listed and card.label in listed
    assert "without asking you each time" in text_of(as_alpha.get(page("default_method", card.pk)))
    as_alpha.post(page("default_method", card.pk))
    assert alpha.subscription.method == card
    assert "is forgotten" in text_of(as_alpha.get(page("remove_method", card.pk)))
    kept = PaymentMethod.objects.filter(company=alpha.company, removed_at__isnull=True)
    assert kept.count() == 2
    as_alpha.post(page("remove_method", card.pk))
    assert kept.get() == wallet == alpha.subscription.method
    # What is removed is not there any more.
    assert as_alpha.get(page("remove_method", card.pk)).status_code == 404


def test_no_page_shows_what_charges_somebody(as_alpha: Client, alpha: Shopper, as_operator: Client) -> None:
    card, _wallet = two_methods(alpha)
    token = vault.unseal(bytes(card.sealed_token))
    invoice = alpha.invoices()[0]
    paths = [
        page("company", alpha.company.pk),
        page("methods", alpha.company.pk),
        page("invoices", alpha.company.pk),
        page("invoice", invoice.number),
        reverse("admin:billing_paymentmethod_change", args=[card.pk]),
        reverse("admin:billing_paymentmethod_changelist"),
        reverse("admin:billing_transaction_change", args=[alpha.attempts()[0].transactions.get().pk]),
        reverse("admin:billing_paymentattempt_change", args=[alpha.attempts()[0].pk]),
    ]
    for path in paths:
        shown = as_operator.get(path).content.decode()
        assert token not in shown, path
        assert "sealed" not in shown and "idempotency" not in shown, path


# --- Whose ------------------------------------------------------------------------------------------------------------


def pages_of(shopper: Shopper) -> list[tuple[str, tuple[Any, ...], tuple[Any, ...]]]:
    """Name, arguments, and the same with ids that never were."""
    company, nobody = shopper.company.pk, uuid.uuid4()
    number, price = shopper.invoices()[0].number, shopper.price("ENTERPRISE").pk
    method = PaymentMethod.objects.get(company=shopper.company).pk
    rows: list[tuple[str, tuple[Any, ...], tuple[Any, ...]]] = [
        (name, (company,), (nobody,)) for name in ("company", "cancel", "withdraw", "invoices", "methods")
    ]
    rows.append(("choose", (company, price), (nobody, price)))
    rows += [(name, (number,), ("INV-2019-000001",)) for name in ("invoice", "pay", "ask")]
    rows.append(("pdf", (number, "en"), ("INV-2019-000001", "en")))
    rows += [(name, (method,), (method + 1000,)) for name in ("remove_method", "default_method")]
    return rows


_CHANGES = re.compile(r'name="(csrfmiddlewaretoken|next)" value="[^"]*"')


def test_other_company_answers_as_one_that_never_was(as_alpha: Client, alpha: Shopper, beta: Shopper) -> None:
    beta.buy("PRO", method="card")
    before = list(Subscription.objects.values()), list(Invoice.objects.values()), BillingEntry.objects.count()
    for name, theirs, nobodys in pages_of(beta):
        for method in (as_alpha.get, as_alpha.post):
            answers = [method(page(name, *args)) for args in (theirs, nobodys)]
            assert {answer.status_code for answer in answers} in ({404}, {405}), name
            texts = [_CHANGES.sub("", answer.content.decode()) for answer in answers]
            assert texts[0] == texts[1], name
            assert "zebra" not in texts[0]
    after = list(Subscription.objects.values()), list(Invoice.objects.values()), BillingEntry.objects.count()
    assert after == before


@pytest.mark.parametrize("key", ["x", "0", "-1", "9" * 40, "%00", "%F0%9F%92%A9"])
def test_ids_that_are_none_are_not_found(as_alpha: Client, alpha: Shopper, key: str) -> None:
    alpha.buy("PRO")
    company = alpha.company.pk
    base = "/admin/billing"
    for path in (
        f"{base}/account/{key}/",
        f"{base}/account/{company}/choose/{key}/",
        f"{base}/invoices/{key}/",
        f"{base}/invoices/{alpha.invoices()[0].number}/pdf/{key}/",
        f"{base}/methods/{key}/remove/",
    ):
        assert as_alpha.get(path).status_code == 404, path


def test_trader_and_stranger_are_led_to_the_sign_in(alpha: Shopper) -> None:
    alpha.buy("PRO", method="card")
    trader = User.objects.create_user("alpha.trader", company=alpha.company, role=User.Role.TRADER)
    for client in (Client(), client_of(trader)):
        for name, args, _nobodys in pages_of(alpha):
            for method in (client.get, client.post):
                answer = method(page(name, *args))
                assert (answer.status_code, answer["Location"].partition("?")[0]) == (302, "/admin/login/"), name
    assert alpha.state == "active"


def test_operator_sees_and_does_it_for_each_company(as_operator: Client, alpha: Shopper, beta: Shopper) -> None:
    alpha.buy("PRO")
    assert as_operator.get(page("plan"))["Location"] == reverse("admin:billing_subscription_changelist")
    assert "Pro, paid until" in text_of(as_operator.get(page("company", alpha.company.pk)))
    as_operator.post(page("cancel", alpha.company.pk))
    assert (alpha.state, BillingEntry.objects.filter(kind="subscription_changed", actor="olivia").count()) == (
        "cancelling",
        1,
    )
    assert "You use the plan FREE" in text_of(as_operator.get(page("company", beta.company.pk)))


def test_history_tells_what_happened_and_not_who_of_ours_did_it(
    as_alpha: Client, as_operator: Client, alpha: Shopper, beta: Shopper
) -> None:
    alpha.buy("PRO")
    beta.buy("ENTERPRISE")
    as_operator.post(page("cancel", alpha.company.pk))
    text = text_of(as_alpha.get(page("invoices", alpha.company.pk)))
    assert "Invoice over Rp499.000 written" in text and "Payment of Rp499.000 received" in text
    assert "cancelled, runs to its end" in text
    assert "olivia" not in text and "2.499.000" not in text


def test_invoice_that_became_void_has_no_button_to_pay(as_alpha: Client, alpha: Shopper, twin: Twin) -> None:
    first = alpha.choose("PRO")
    assert first is not None
    alpha.choose("ENTERPRISE")
    answer = as_alpha.get(page("invoice", first.number))
    assert page("pay", first.number) not in answer.content.decode()
    assert "void" in text_of(answer)
    refused = as_alpha.post(page("pay", first.number), follow=True)
    assert "is not open any more" in text_of(refused)
