"""Whoever posts to the endpoints: who is refused, what is kept, what it leads to, and what is answered."""

import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError
from django.test import Client
from pytest_django import Settings

from billing import background, clock, intake, receipts
from billing.midtrans.signature import account_signature, notification_signature
from billing.models import AccessGrant, BillingEntry, PaymentAttempt, WebhookReceipt
from tests.billing.buyer import Buyer
from tests.billing.notified import (
    EVENTS,
    NOTIFICATIONS,
    SERVER_KEY,
    body_of,
    entries,
    post,
    post_event,
    verdicts,
)
from tests.support.status_server import StatusServer

pytestmark = pytest.mark.django_db
OLD_KEY = "SB-Mid-server-before-the-rotation"


@pytest.fixture
def hand() -> Iterator[clock.Hand]:
    with clock.stopped_at(clock.now()) as hand:
        yield hand


@pytest.fixture
def order(midtrans: StatusServer, hand: clock.Hand) -> PaymentAttempt:
    return Buyer.new().order()


def grants() -> int:
    return AccessGrant.objects.filter(revoked_at=None).count()


# --- What is answered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [NOTIFICATIONS, EVENTS])
@pytest.mark.parametrize("method", ["get", "put", "delete", "patch", "options"])
def test_only_posts_are_taken(path: str, method: str) -> None:
    answer = getattr(Client(), method)(path)
    assert (answer.status_code, answer["Allow"]) == (405, "POST")


@pytest.mark.parametrize("path", [NOTIFICATIONS, EVENTS, NOTIFICATIONS.rstrip("/"), EVENTS.rstrip("/")])
def test_nothing_redirects_whoever_posts(order: PaymentAttempt, settings: Settings, path: str) -> None:
    settings.SECURE_SSL_REDIRECT = settings.APPEND_SLASH = True
    assert post(body_of(order, "settlement", key="wrong"), path).status_code == 403


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"{}", "text/plain", 415),
        (b"order_id=1", "application/x-www-form-urlencoded", 415),
        (b"not json", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b'{"order_id":', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 30_000, "application/json", 400),
        (b'{"a": "' + b"x" * 65_528 + b'"}', "application/json", 413),
        (b'{"hello": "world"}', "application/json", 400),
    ],
    ids=["text", "form", "no json", "list", "half", "no utf-8", "deep", "large", "something else"],
)
def test_what_is_no_notification_is_refused_and_not_kept(
    midtrans: StatusServer, body: bytes, content_type: str, code: int
) -> None:
    answer = Client().post(NOTIFICATIONS, data=body, content_type=content_type)
    assert answer.status_code == code
    assert (WebhookReceipt.objects.count(), BillingEntry.objects.count()) == (0, 0)


def test_body_of_exactly_the_limit_is_read(order: PaymentAttempt, midtrans: StatusServer) -> None:
    body = body_of(order, "pending", custom_field1="")
    body["custom_field1"] = "x" * (65_536 - len(json.dumps(body)))
    midtrans.say(body)
    assert post(body).status_code == 200
    body["custom_field1"] += "x"
    assert post(body).status_code == 413


@pytest.mark.parametrize(
    ("length", "code"), [("65537", 413), ("9" * 18, 413), ("9" * 19, 400), ("-1", 400), ("x", 400)]
)
def test_length_that_is_announced_is_believed_before_anything_is_read(
    midtrans: StatusServer, length: str, code: int
) -> None:
    answer = Client().post(NOTIFICATIONS, data=b"{}", content_type="application/json", CONTENT_LENGTH=length)
    assert answer.status_code == code


def test_answer_says_what_became_of_it(order: PaymentAttempt, midtrans: StatusServer) -> None:
    body = body_of(order, "settlement")
    midtrans.say(body)
    assert json.loads(post(body).content) == {"status": "waiting"}
    assert json.loads(post(body).content) == {"status": "duplicate"}


def test_database_that_is_down_is_answered_503_and_sent_again(
    order: PaymentAttempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_args: object, **_fields: object) -> None:
        raise DatabaseError("no connection")

    monkeypatch.setattr(WebhookReceipt.objects, "create", down)
    answer = post(body_of(order, "settlement"))
    assert (answer.status_code, int(answer["Retry-After"]) > 0) == (503, True)
    assert answer["Content-Type"] == "application/problem+json"


def test_anything_unforeseen_is_503_and_shows_nothing(
    order: PaymentAttempt, monkeypatch: pytest.MonkeyPatch, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.DEBUG = True
    body = body_of(order, "settlement", saved_token_id="481111fulltokenofthecard1114")

    def explode(*_args: object, **_fields: object) -> None:
        raise RuntimeError(f"with {body['signature_key']} and {SERVER_KEY}")

    monkeypatch.setattr(intake, "accept", explode)
    with caplog.at_level(logging.DEBUG):
        answer = post(body)
    said = answer.content.decode() + caplog.text
    assert answer.status_code == 503
    for secret in (body["signature_key"], SERVER_KEY, body["saved_token_id"]):
        assert secret not in said


def test_answer_does_not_wait_for_midtrans(
    order: PaymentAttempt, midtrans: StatusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[int] = []
    monkeypatch.setattr(background, "submit", submitted.append)
    body = body_of(order, "settlement")
    midtrans.say(body)
    assert post(body).status_code == 200
    assert (len(submitted), midtrans.asked, verdicts(order.order_id)) == (1, [], [("waiting", "")])


# --- Who may say it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"signature_key": "0" * 128},
        {"signature_key": ""},
        {"signature_key": None},
        {"signature_key": 5},
        {"signature_key": "é" * 128},
        {"gross_amount": 499_000},
        {"status_code": 200},
        {"order_id": ["a"]},
    ],
    ids=str,
)
def test_stranger_is_refused_with_a_receipt_and_a_line_in_the_books(
    order: PaymentAttempt, midtrans: StatusServer, change: dict[str, Any]
) -> None:
    body = body_of(order, "settlement") | change
    midtrans.say(body_of(order, "settlement"))
    assert post(body).status_code == 403
    receipt = WebhookReceipt.objects.get()
    assert (receipt.verdict, BillingEntry.objects.get().kind) == ("refused", "webhook_refused")
    assert (midtrans.asked, grants()) == ([], 0)
    assert "signature_key" not in receipt.body


def test_every_accepted_key_signs_and_no_other(
    order: PaymentAttempt, midtrans: StatusServer, settings: Settings
) -> None:
    settings.MIDTRANS_SIGNING_KEYS = [SERVER_KEY, OLD_KEY]
    pending = body_of(order, "pending", key=OLD_KEY)
    midtrans.say(pending)
    assert post(pending).status_code == 200
    settings.MIDTRANS_SIGNING_KEYS = [SERVER_KEY]
    assert post(body_of(order, "settlement", key=OLD_KEY)).status_code == 403


def test_signature_of_one_order_does_not_serve_another_that_joins_up_the_same(
    order: PaymentAttempt, midtrans: StatusServer
) -> None:
    # order + "200" + "20149900.00" signs as (order + "200") + "201" + "49900.00".
    genuine = body_of(order, "settlement", gross_amount="20149900.00")
    forged = genuine | {"order_id": f"{order.order_id}200", "status_code": "201", "gross_amount": "49900.00"}
    parts = (forged["order_id"], forged["status_code"], forged["gross_amount"], SERVER_KEY)
    assert notification_signature(*parts) == genuine["signature_key"]
    assert post(forged).status_code == 200
    assert verdicts(f"{order.order_id}200") == [("ignored", "unknown_order")]
    assert entries(f"{order.order_id}200") == ["webhook_ignored"]
    # The genuine form names another amount than the order's.
    midtrans.say(body_of(order, "pending"))
    assert post(genuine).status_code == 200
    assert verdicts(order.order_id) == [("ignored", "amount does not match")]
    assert grants() == 0


def test_refused_messages_of_one_address_do_not_fill_the_database(order: PaymentAttempt, settings: Settings) -> None:
    settings.GATEWAY_REFUSED_RECEIPT_LIMIT = 3
    codes = {post(body_of(order, "settlement", key="wrong", custom_field1=str(n))).status_code for n in range(10)}
    assert codes == {403}
    assert WebhookReceipt.objects.count() == BillingEntry.objects.count() == 3


def test_repeated_messages_of_one_address_do_not_fill_the_database(
    order: PaymentAttempt, midtrans: StatusServer, settings: Settings
) -> None:
    settings.GATEWAY_REFUSED_RECEIPT_LIMIT = 3
    body = body_of(order, "settlement")
    midtrans.say(body)
    assert {post(body).status_code for _ in range(10)} == {200}
    assert [verdict for verdict, _ in verdicts(order.order_id)] == ["applied", "duplicate", "duplicate", "duplicate"]
    assert len(midtrans.asked) == 1


def test_large_body_of_a_stranger_is_not_kept(order: PaymentAttempt) -> None:
    post(body_of(order, "settlement", key="wrong", custom_field1="x" * 60_000))
    assert len(json.dumps(WebhookReceipt.objects.get().body)) < 1_000


# --- What it leads to -------------------------------------------------------------------------------------------------


def test_order_that_is_not_ours_is_kept_and_ignored(order: PaymentAttempt, midtrans: StatusServer) -> None:
    assert post(body_of(order, "settlement", order_id="shop-of-somebody-else-1")).status_code == 200
    assert verdicts("shop-of-somebody-else-1") == [("ignored", "unknown_order")]
    assert midtrans.asked == []


def test_state_comes_from_midtrans_and_never_from_the_body(order: PaymentAttempt, midtrans: StatusServer) -> None:
    midtrans.say(body_of(order, "pending"))
    assert post(body_of(order, "settlement")).status_code == 200
    order.refresh_from_db()
    assert (order.state, grants()) == ("pending", 0)
    assert verdicts(order.order_id) == [("waiting", "not confirmed")]


def test_what_is_never_confirmed_is_ignored_in_the_end_and_the_genuine_one_still_counts(
    order: PaymentAttempt, midtrans: StatusServer, hand: clock.Hand
) -> None:
    midtrans.say(body_of(order, "pending"))
    post(body_of(order, "settlement"))
    for _ in range(5):
        hand.advance(timedelta(minutes=1))
        receipts.process_waiting()
    assert verdicts(order.order_id) == [("ignored", "not confirmed")]
    assert entries(order.order_id) == ["webhook_ignored"]
    midtrans.say(body_of(order, "settlement"))
    post(body_of(order, "settlement"))
    assert verdicts(order.order_id)[-1] == ("applied", "")
    assert grants() == 1


def test_midtrans_that_is_down_keeps_the_message_waiting(
    order: PaymentAttempt, midtrans: StatusServer, hand: clock.Hand
) -> None:
    midtrans.failure = 503
    body = body_of(order, "settlement")
    assert post(body).status_code == 200
    for _ in range(3):
        hand.advance(timedelta(minutes=10))
        assert receipts.process_waiting() == 0
    assert (verdicts(order.order_id), grants()) == ([("waiting", "Midtrans: broken")], 0)
    midtrans.failure = 0
    midtrans.say(body)
    assert receipts.process_waiting() == 0, "its time has not come"
    hand.advance(timedelta(minutes=10))
    assert receipts.process_waiting() == 1
    assert (verdicts(order.order_id), grants()) == ([("applied", "")], 1)


def test_message_is_given_up_after_a_day_and_can_be_found(
    order: PaymentAttempt, midtrans: StatusServer, hand: clock.Hand
) -> None:
    midtrans.failure = 503
    post(body_of(order, "settlement"))
    hand.advance(timedelta(days=2))
    receipts.process_waiting()
    assert verdicts(order.order_id) == [("failed", "Midtrans: broken")]
    assert entries(order.order_id) == ["webhook_failed"]


def test_late_pending_after_settlement_is_ignored(order: PaymentAttempt, midtrans: StatusServer) -> None:
    midtrans.say(body_of(order, "settlement"))
    post(body_of(order, "settlement"))
    post(body_of(order, "pending"))
    assert verdicts(order.order_id) == [("applied", ""), ("ignored", "late")]
    assert grants() == 1


def test_one_look_answers_all_that_wait_for_the_same_order(
    order: PaymentAttempt, midtrans: StatusServer, monkeypatch: pytest.MonkeyPatch, hand: clock.Hand
) -> None:
    monkeypatch.setattr(background, "submit", lambda _pk: None)
    midtrans.say(body_of(order, "settlement"))
    for status in ("pending", "settlement", "settlement"):
        post(body_of(order, status))
    hand.advance(timedelta(seconds=10))
    receipts.process_waiting()
    assert verdicts(order.order_id) == [("ignored", "late"), ("applied", ""), ("duplicate", "")]
    assert len(midtrans.asked) == 1


def test_receipt_that_somebody_is_at_is_left_alone(
    order: PaymentAttempt, midtrans: StatusServer, monkeypatch: pytest.MonkeyPatch, hand: clock.Hand
) -> None:
    monkeypatch.setattr(background, "submit", lambda _pk: None)
    midtrans.say(body_of(order, "settlement"))
    post(body_of(order, "settlement"))
    # As the one who is at it has left it.
    until = hand.moment + timedelta(seconds=5)
    WebhookReceipt.objects.update(tries=1, next_try_at=until)
    pk = WebhookReceipt.objects.get().pk
    assert (receipts.process(pk), midtrans.asked) == ("waiting", [])
    hand.moment = until
    assert (receipts.process(pk), midtrans.asked) == ("applied", [order.order_id])


def test_earlier_transaction_of_the_same_order_is_asked_for_by_its_own_id(
    order: PaymentAttempt, midtrans: StatusServer
) -> None:
    first, second = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
    denied = body_of(order, "deny", transaction_id=first)
    midtrans.say(denied)
    midtrans.say(body_of(order, "settlement", transaction_id=second))
    post(denied)
    assert verdicts(order.order_id) == [("applied", "")]
    assert midtrans.asked == [order.order_id, first]
    assert sorted(row.state for row in order.transactions.all()) == ["denied", "settled"]


def test_genuine_message_that_cannot_be_read_is_a_reason_to_look(order: PaymentAttempt, midtrans: StatusServer) -> None:
    midtrans.say(body_of(order, "settlement"))
    assert post(body_of(order, "settlement", currency="USD")).status_code == 200
    assert verdicts(order.order_id) == [("ignored", "unreadable")]
    assert grants() == 1


def test_what_no_column_can_hold_is_kept_all_the_same(order: PaymentAttempt, midtrans: StatusServer) -> None:
    body = json.dumps(body_of(order, "settlement")).encode()
    midtrans.say(body_of(order, "settlement"))
    odd = body[:-1] + b', "note": "\\u0000 \\ud800", "\\u0000": NaN, "more": [Infinity]}'
    assert post(odd).status_code == 200
    kept = WebhookReceipt.objects.get()
    assert (kept.verdict, kept.body["note"], kept.body["?"], kept.body["more"]) == ("applied", "? ?", "nan", ["inf"])


def test_tokens_and_signatures_are_not_kept(order: PaymentAttempt, midtrans: StatusServer) -> None:
    body = body_of(order, "capture", payment_type="credit_card", saved_token_id="481111fulltokenofthecard1114")
    midtrans.say(body)
    post(body)
    kept = json.dumps([row.body for row in WebhookReceipt.objects.all()])
    kept += json.dumps([row.details for row in order.transactions.all()])
    assert body["signature_key"] not in kept
    assert body["saved_token_id"] not in kept


@pytest.mark.parametrize("signed", [True, False])
def test_account_news_reaches_who_looks_after_accounts(
    midtrans: StatusServer, monkeypatch: pytest.MonkeyPatch, signed: bool
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(receipts, "_account_handlers", [heard.append])
    key = SERVER_KEY if signed else "wrong"
    body = {"account_id": "acc-1", "account_status": "DISABLED", "status_code": "204"}
    body["signature_key"] = account_signature("acc-1", "DISABLED", "204", key)
    assert post(body).status_code == (200 if signed else 403)
    assert (heard, WebhookReceipt.objects.get().verdict) == ((["acc-1"], "applied") if signed else ([], "refused"))


# --- Events of our own payment service --------------------------------------------------------------------------------


def test_signed_event_about_a_payment_leads_to_a_look(
    order: PaymentAttempt, midtrans: StatusServer, hand: clock.Hand
) -> None:
    midtrans.say(body_of(order, "settlement"))
    event = {"type": "payment.updated", "data": {"order_id": order.order_id, "status": "refund"}}
    assert post_event(event, at=hand.moment.timestamp()).status_code == 200
    assert (verdicts(order.order_id), grants()) == ([("applied", "")], 1)


def test_signed_event_about_a_company_brings_its_access_in_line(
    order: PaymentAttempt, midtrans: StatusServer, hand: clock.Hand
) -> None:
    buyer = Buyer.new()
    buyer.give("PRO", 10)
    type(buyer.company).objects.filter(pk=buyer.company.pk).update(status="unpaid")
    event = {"type": "subscription.updated", "data": {"company_id": str(buyer.company.pk)}}
    assert post_event(event, at=hand.moment.timestamp()).status_code == 200
    assert buyer.access == ("PRO", "active")


@pytest.mark.parametrize(
    "event",
    [
        {"type": "subscription.updated", "data": {"company_id": "not an id"}},
        {"type": "subscription.updated", "data": {"company_id": "5b1f7c58-3c43-4a0e-9c0f-6f1f0a9d2b22"}},
        {"type": "subscription.updated", "data": []},
        {"type": "payment.updated", "data": {"order_id": "gw-unknown"}},
        {"type": "payment.updated", "data": {"order_id": {"a": 1}}},
        {"type": "something.else"},
        {},
    ],
    ids=str,
)
def test_event_about_nothing_of_ours_is_ignored(
    midtrans: StatusServer, hand: clock.Hand, event: dict[str, Any]
) -> None:
    assert post_event(event, at=hand.moment.timestamp()).status_code == 200
    assert WebhookReceipt.objects.get().verdict == "ignored"


def test_event_comes_once_by_its_id(order: PaymentAttempt, midtrans: StatusServer, hand: clock.Hand) -> None:
    midtrans.say(body_of(order, "settlement"))
    event = {"type": "payment.updated", "data": {"order_id": order.order_id}}
    answers = [json.loads(post_event(event, at=hand.moment.timestamp()).content)["status"] for _ in range(3)]
    assert answers == ["waiting", "duplicate", "duplicate"]
    assert len(midtrans.asked) == 1
    assert json.loads(post_event(event, event_id="evt_2", at=hand.moment.timestamp()).content) == {"status": "waiting"}


@pytest.mark.parametrize(("seconds", "code"), [(-300, 200), (-301, 403), (300, 200), (301, 403)])
def test_event_is_good_for_five_minutes(
    order: PaymentAttempt, midtrans: StatusServer, hand: clock.Hand, seconds: int, code: int
) -> None:
    hand.moment = hand.moment.replace(microsecond=0)
    midtrans.say(body_of(order, "pending"))
    event = {"type": "payment.updated", "data": {"order_id": order.order_id}}
    assert post_event(event, at=hand.moment.timestamp() + seconds).status_code == code


@pytest.mark.parametrize(
    "headers",
    [
        {"webhook-signature": "v1a512,AAAA"},
        {"webhook-signature": ""},
        {"webhook-id": "evt_of_another"},
        {"webhook-timestamp": "1"},
        {"webhook-signature": "v1,AAAA"},
    ],
    ids=str,
)
def test_event_that_nobody_with_the_secret_signed_is_refused(
    order: PaymentAttempt, midtrans: StatusServer, hand: clock.Hand, headers: dict[str, str]
) -> None:
    midtrans.say(body_of(order, "settlement"))
    event = {"type": "payment.updated", "data": {"order_id": order.order_id}}
    given: dict[str, Any] = {"at": hand.moment.timestamp(), **headers}
    assert post_event(event, **given).status_code == 403
    assert (WebhookReceipt.objects.get().verdict, BillingEntry.objects.get().kind) == ("refused", "webhook_refused")
    assert midtrans.asked == []


def test_every_secret_in_rotation_signs(
    order: PaymentAttempt, midtrans: StatusServer, hand: clock.Hand, settings: Settings
) -> None:
    settings.GATEWAY_WEBHOOK_SECRETS = ["whsec-the-new-one-0002", "whsec-of-these-tests-0001"]
    midtrans.say(body_of(order, "pending"))
    event = {"type": "payment.updated", "data": {"order_id": order.order_id}}
    moment = hand.moment.timestamp()
    assert post_event(event, event_id="evt_1", at=moment).status_code == 200
    assert post_event(event, event_id="evt_2", at=moment, secret="whsec-the-new-one-0002").status_code == 200
    assert post_event(event, event_id="evt_3", at=moment, secret="whsec-gone").status_code == 403


def test_without_secrets_no_event_is_taken(hand: clock.Hand, settings: Settings, midtrans: StatusServer) -> None:
    settings.GATEWAY_WEBHOOK_SECRETS = []
    assert post_event({"type": "x"}, at=hand.moment.timestamp()).status_code == 403
    assert WebhookReceipt.objects.count() == 0
