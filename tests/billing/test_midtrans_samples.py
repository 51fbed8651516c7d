"""Every documented body, posted as it stands: its verdict, and whether it pays."""

from typing import Any

import pytest
from pytest_django import Settings

from billing.models import AccessGrant, Invoice, PaymentAttempt, WebhookReceipt
from billing.money import parse_amount
from tests.billing.buyer import Buyer
from tests.billing.notified import entries, post, verdicts
from tests.billing.samples import GENUINE, MANIFEST, OTHERS, SERVER_KEY, read
from tests.support.status_server import StatusServer

pytestmark = pytest.mark.django_db
# What is waited for has no effect on time; what was paid and went back has none left.
HOLDS = {True: True, False: False, "partly": True}


@pytest.fixture(autouse=True)
def sample_account(midtrans: StatusServer, settings: Settings) -> None:
    settings.MIDTRANS_SERVER_KEY, settings.MIDTRANS_SIGNING_KEYS = SERVER_KEY, [SERVER_KEY]
    settings.MIDTRANS_MERCHANT_ID = MANIFEST["merchant_id"]


def order_of(body: dict[str, Any]) -> PaymentAttempt:
    return Buyer.new().order(order_id=body["order_id"], total=parse_amount(body["gross_amount"]))


def invoice_state(attempt: PaymentAttempt) -> str:
    return Invoice.objects.get(pk=attempt.invoice_id).state


@pytest.mark.parametrize("sample", GENUINE, ids=lambda sample: sample["file"])
def test_documented_notification_is_applied_and_pays_as_it_says(midtrans: StatusServer, sample: dict[str, Any]) -> None:
    body = read(sample["file"])
    order = order_of(body)
    midtrans.say(body)
    assert post(body).status_code == 200
    assert verdicts(order.order_id) == [("applied", "")]
    assert AccessGrant.objects.filter(revoked_at=None).exists() is HOLDS[sample["counts_as_paid"]]
    paid = {True: "paid", "partly": "partly_returned"}.get(sample["counts_as_paid"])
    if paid is None:
        paid = "returned" if body["transaction_status"] == "refund" else "open"
    assert invoice_state(order) == paid


@pytest.mark.parametrize("sample", GENUINE, ids=lambda sample: sample["file"])
def test_documented_notification_pays_for_nothing_that_midtrans_does_not_know(
    midtrans: StatusServer, sample: dict[str, Any]
) -> None:
    body = read(sample["file"])
    order = order_of(body)
    assert post(body).status_code == 200
    assert verdicts(order.order_id) == [("waiting", "not confirmed")]
    assert (invoice_state(order), AccessGrant.objects.count()) == ("open", 0)


@pytest.mark.parametrize(
    "name", ["bad_signature_last_hex_changed", "bad_amount_changed_after_signing", "bad_signature_missing"]
)
def test_forged_notification_is_refused_without_a_look(midtrans: StatusServer, name: str) -> None:
    body = read(f"negative/{name}.json")
    order = Buyer.new().order(order_id=body["order_id"], total=199_000)
    midtrans.say(read(f"negative/{name}.json"))
    assert post(body).status_code == 403
    [(verdict, _reason)] = verdicts(order.order_id)
    assert (verdict, entries(order.order_id), midtrans.asked) == ("refused", ["webhook_refused"], [])
    assert invoice_state(order) == "open"


def test_status_changed_under_a_valid_signature_pays_nothing(midtrans: StatusServer) -> None:
    body = read("negative/tampered_status_signature_still_valid_201.json")
    order = order_of(body)
    midtrans.say({**body, "transaction_status": "pending"})
    assert post(body).status_code == 200
    assert verdicts(order.order_id) == [("waiting", "not confirmed")]
    assert (invoice_state(order), AccessGrant.objects.count()) == ("open", 0)
    assert PaymentAttempt.objects.get().state == "pending"


def test_refund_replayed_as_settlement_opens_nothing_again(midtrans: StatusServer) -> None:
    settlement, refund = read("credit_card_settlement.json"), read("credit_card_refund_full.json")
    order = order_of(settlement)
    for body in (settlement, refund):
        midtrans.say(body)
        post(body)
    assert invoice_state(order) == "returned"
    replayed = read("negative/refund_replayed_as_settlement_signature_still_valid.json")
    assert post(replayed).status_code == 200
    assert verdicts(order.order_id)[-1][0] in ("duplicate", "ignored")
    assert entries(order.order_id) in (["webhook_duplicate"], ["webhook_ignored"])
    assert (invoice_state(order), AccessGrant.objects.filter(revoked_at=None).count()) == ("returned", 0)


@pytest.mark.parametrize("sample", OTHERS, ids=lambda sample: sample["file"])
def test_other_documented_bodies_pay_for_nothing(midtrans: StatusServer, sample: dict[str, Any]) -> None:
    assert post(read(sample["file"])).status_code == 200
    # News of a linked account is a reason to look after that account; the others are unsigned.
    wanted = "applied" if sample["kind"] == "pay_account" else "ignored"
    assert WebhookReceipt.objects.get().verdict == wanted
    assert (midtrans.asked, AccessGrant.objects.count()) == ([], 0)
