"""What operators see and do in the admin about billing; company admins have none of it (billing: console)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from billing import clock
from billing.models import AccessGrant, BillingEntry, PaymentMethod, Price, Refund, Transaction, WebhookReceipt
from tenants.models import Company
from tests.billing.console.test_company_pages import text_of
from tests.billing.shop import Shopper
from tests.support.midtrans_twin import Twin

pytestmark = pytest.mark.django_db
MODELS: list[type[Model]] = sorted(
    (model for model in admin.site._registry if model._meta.app_label == "billing"), key=lambda model: model.__name__
)
NAMES = [model.__name__ for model in MODELS]


def page(model: type[Model], name: str, *args: Any) -> str:
    return reverse(f"admin:billing_{model._meta.model_name}_{name}", args=args)


@pytest.fixture
def busy(alpha: Shopper, beta: Shopper, twin: Twin) -> Transaction:
    """One row at least of each kind; the transaction of a card payment of Alpha that has settled."""
    order_id = alpha.buy("PRO", method="card")
    twin.settle_all()
    twin.deliver()
    beta.buy("ENTERPRISE", method="qris")
    payment = Transaction.objects.get(attempt__order_id=order_id)
    Refund.objects.create(
        transaction=payment, refund_key="rf-1", amount=1, reason="r", asked_by="o", state="done", created_at=clock.now()
    )
    WebhookReceipt.objects.create(
        source="midtrans", order_id=order_id, verdict="failed", body={}, address="192.0.2.1", body_sha256="0" * 64
    )
    return payment


def test_each_model_of_the_room_has_a_page() -> None:
    assert NAMES == [
        "AccessGrant", "BillingEntry", "Invoice", "PaymentAttempt", "PaymentMethod", "Plan", "Price", "Refund",
        "Subscription", "Transaction", "WebhookReceipt",
    ]  # fmt: skip


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_operator_opens_each_list_each_row_and_its_history(
    busy: Transaction, as_operator: Client, model: type[Model]
) -> None:
    listed = as_operator.get(page(model, "changelist"))
    assert listed.status_code == 200
    assert listed.context["cl"].result_count == model._default_manager.count() > 0
    for row in model._default_manager.all():
        assert as_operator.get(page(model, "change", row.pk)).status_code == 200
        assert as_operator.get(page(model, "history", row.pk)).status_code == 200
        assert as_operator.get(page(model, "delete", row.pk)).status_code == 403
    for name in ("change", "delete", "history"):
        assert as_operator.get(page(model, name, 987_654)).status_code == 404


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_operator_searches_filters_and_sorts_each_list(
    busy: Transaction, as_operator: Client, model: type[Model]
) -> None:
    listed = as_operator.get(page(model, "changelist"), {"q": "alpha"})
    assert listed.status_code == 200
    for spec in listed.context["cl"].filter_specs:
        for choice in spec.choices(listed.context["cl"]):
            assert as_operator.get(page(model, "changelist") + choice["query_string"]).status_code == 200
    for column in range(1, len(listed.context["cl"].list_display) + 1):
        assert as_operator.get(page(model, "changelist"), {"o": column}).status_code == 200
    for tool in listed.context["tools"]:
        path = tool.url if tool.url.startswith("/") else page(model, "changelist") + tool.url
        answer = as_operator.get(path)
        # A filter that the list refuses leads elsewhere.
        assert answer.status_code == 200 and "e=1" not in answer.request["QUERY_STRING"], tool.url


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_company_admin_has_none_of_these_pages(busy: Transaction, as_alpha: Client, model: type[Model]) -> None:
    for path in (page(model, "changelist"), page(model, "add")):
        for method in (as_alpha.get, as_alpha.post):
            assert method(path).status_code == 403
    row = model._default_manager.first()
    assert row is not None
    for name in ("change", "delete", "history"):
        statuses = {as_alpha.get(page(model, name, key)).status_code for key in (row.pk, 987_654)}
        assert len(statuses) == 1 and statuses <= {403, 404}, name
    for name, others in OWN_PAGES.items():
        if others is model:
            for key in (row.pk, 987_654):
                assert as_alpha.post(reverse(f"admin:{name}", args=[key])).status_code == 404
    assert as_alpha.get(reverse("admin:app_list", args=["billing"])).status_code == 404


OWN_PAGES: dict[str, type[Model]] = {
    "billing_transaction_refund": Transaction,
    "billing_transaction_cancel": Transaction,
    "billing_webhookreceipt_replay": WebhookReceipt,
}


def test_nothing_of_the_books_is_written_by_a_form(busy: Transaction, as_operator: Client) -> None:
    for model in MODELS:
        if model in (Price, AccessGrant) or model.__name__ == "Plan":
            continue
        row = model._default_manager.order_by("pk").values().first()
        assert row is not None
        assert as_operator.post(page(model, "change", row["id"]), {"state": "paid", "total": "1"}).status_code == 403
        assert as_operator.post(page(model, "add"), {}).status_code == 403
        assert model._default_manager.order_by("pk").values().first() == row


# --- Money goes back --------------------------------------------------------------------------------------------------


def test_operator_refunds_a_part_and_then_the_rest(busy: Transaction, as_operator: Client, alpha: Shopper) -> None:
    path = reverse("admin:billing_transaction_refund", args=[busy.pk])
    assert "Refund Rp499.000 or a part of it" in text_of(as_operator.get(path))
    answer = as_operator.post(path, {"amount": "100000", "reason": "two bad days"}, follow=True)
    assert "Rp100.000 are sent back." in text_of(answer)
    busy.refresh_from_db()
    assert (busy.refunded, alpha.access) == (100_000, ("PRO", "active"))
    # More than what is left.
    answer = as_operator.post(path, {"amount": "499000", "reason": "all"}, follow=True)
    assert "Between 1 rupiah and Rp399.000 can be sent back." in text_of(answer)
    as_operator.post(path, {"amount": "399000", "reason": "all of it"})
    busy.refresh_from_db()
    assert busy.refunded == 499_000
    assert alpha.access[1] == "unpaid"


def test_refund_needs_an_amount_and_a_reason(busy: Transaction, as_operator: Client) -> None:
    path = reverse("admin:billing_transaction_refund", args=[busy.pk])
    for sent in ({"amount": "0", "reason": "x"}, {"amount": "100", "reason": ""}, {"amount": "1.5", "reason": "x"}):
        answer = as_operator.post(path, sent)
        assert answer.status_code == 200 and answer.context["form"].errors
    assert Refund.objects.count() == 1


# --- Time in somebody's name ------------------------------------------------------------------------------------------


@pytest.fixture
def give(as_operator: Client, alpha: Shopper) -> Callable[..., Any]:
    def give(**changes: str) -> Any:
        start = timezone.localtime(clock.now())
        end = start + timedelta(days=14)
        plan = alpha.price("ENTERPRISE").plan_id
        fields = {
            "company": str(alpha.company.pk), "plan": str(plan),
            "starts_at_0": f"{start:%Y-%m-%d}", "starts_at_1": f"{start:%H:%M}",
            "ends_at_0": f"{end:%Y-%m-%d}", "ends_at_1": f"{end:%H:%M}", **changes,
        }  # fmt: skip
        return as_operator.post(page(AccessGrant, "add"), fields)

    return give


def test_operator_gives_time_and_takes_it_back(give: Callable[..., Any], as_operator: Client, alpha: Shopper) -> None:
    assert give().status_code == 302
    assert alpha.access == ("ENTERPRISE", "active")
    grant = AccessGrant.objects.get()
    assert (grant.given_by, grant.invoice) == ("olivia", None)
    chosen = {"action": "revoke", "_selected_action": str(grant.pk)}
    asked = as_operator.post(page(AccessGrant, "changelist"), chosen)
    assert "ends now" in text_of(asked) and AccessGrant.objects.get().revoked_at is None
    sent = {**chosen, "post": "yes", "because": "the trial is over"}
    assert as_operator.post(page(AccessGrant, "changelist"), sent).status_code == 302
    assert AccessGrant.objects.get().revoked_because == "the trial is over"
    assert alpha.access == ("FREE", "active")
    assert BillingEntry.objects.filter(kind="access_revoked", actor="olivia").count() == 1


def test_time_that_is_over_or_backwards_is_not_given(give: Callable[..., Any]) -> None:
    for day in ("2025-12-01", "2026-01-09"):
        assert give(ends_at_0=day).status_code == 200
    assert AccessGrant.objects.count() == 0


def test_give_time_begins_on_the_page_of_a_subscription(busy: Transaction, as_operator: Client, alpha: Shopper) -> None:
    shown = as_operator.get(page(type(alpha.subscription), "change", alpha.subscription.pk)).content.decode()
    path = f"{page(AccessGrant, 'add')}?company={alpha.company.pk}"
    assert path in shown
    form = as_operator.get(path).context["adminform"].form
    assert str(form["company"].value()) == str(alpha.company.pk)


# --- Receipts and reviews ---------------------------------------------------------------------------------------------


def test_operator_reprocesses_one_receipt_and_several(busy: Transaction, as_operator: Client) -> None:
    receipt = WebhookReceipt.objects.get(verdict="failed")
    path = reverse("admin:billing_webhookreceipt_replay", args=[receipt.pk])
    assert "Midtrans is asked for the state" in text_of(as_operator.get(path))
    assert BillingEntry.objects.filter(kind="replayed").count() == 0
    assert "Reprocessed:" in text_of(as_operator.post(path, follow=True))
    sent = {"action": "reprocess", "_selected_action": str(receipt.pk)}
    answer = as_operator.post(page(WebhookReceipt, "changelist"), sent, follow=True)
    assert "1 receipt is reprocessed." in text_of(answer)
    assert BillingEntry.objects.filter(kind="replayed", actor="olivia", receipt_id=receipt.pk).count() == 2


def test_operator_marks_what_was_looked_at(busy: Transaction, as_operator: Client) -> None:
    Transaction.objects.filter(pk=busy.pk).update(needs_review=True)
    sent = {"action": "reviewed", "_selected_action": str(busy.pk)}
    answer = as_operator.post(page(Transaction, "changelist"), sent, follow=True)
    assert "1 transaction is marked." in text_of(answer)
    busy.refresh_from_db()
    assert not busy.needs_review
    assert BillingEntry.objects.filter(kind="reviewed", actor="olivia").count() == 1


def test_overview_names_what_has_to_be_looked_at(busy: Transaction, as_operator: Client) -> None:
    path = reverse("admin:app_list", args=["billing"])
    text = text_of(as_operator.get(path))
    assert "1 receipts that failed" in text and "transactions to be looked at" not in text
    Transaction.objects.filter(pk=busy.pk).update(needs_review=True)
    assert "1 transactions to be looked at" in text_of(as_operator.get(path))


# --- Prices -----------------------------------------------------------------------------------------------------------


def test_new_price_is_a_new_row_and_what_was_agreed_stays(
    busy: Transaction, as_operator: Client, alpha: Shopper
) -> None:
    old = alpha.price("PRO")
    fields = {"plan": str(old.plan_id), "interval": "monthly", "amount": "599000", "is_active": "on"}
    assert as_operator.post(page(Price, "add"), fields).status_code == 200  # one is offered already
    assert as_operator.post(page(Price, "change", old.pk), {"amount": "1"}).status_code == 302
    old.refresh_from_db()
    assert (old.is_active, old.amount) == (False, 499_000)
    assert as_operator.post(page(Price, "add"), fields).status_code == 302
    assert alpha.price("PRO").amount == 599_000
    assert alpha.subscription.price == old
    kinds = BillingEntry.objects.filter(actor="olivia").order_by("pk").values_list("kind", flat=True)
    assert list(kinds) == ["price_changed", "price_added"]


def test_methods_of_a_company_are_listed_without_their_tokens(busy: Transaction, as_operator: Client) -> None:
    method = PaymentMethod.objects.get()
    shown = as_operator.get(page(PaymentMethod, "change", method.pk)).content.decode()
    assert method.label in shown and Company.objects.get(slug="alpha").name in shown
    assert "sealed" not in shown
