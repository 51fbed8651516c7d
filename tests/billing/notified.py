"""Notifications posted to the endpoints, and what became of them."""

import json
import uuid
from typing import Any

from django.http import HttpResponse
from django.test import Client

from billing.midtrans.signature import notification_signature, sign_event
from billing.models import BillingEntry, PaymentAttempt, WebhookReceipt

NOTIFICATIONS = "/billing/midtrans/notifications/"
EVENTS = "/billing/events/"
SERVER_KEY = "SB-Mid-server-of-these-tests"
EVENT_SECRET = "whsec-of-these-tests-0001"


def body_of(attempt: PaymentAttempt, status: str, *, key: str = SERVER_KEY, **changes: Any) -> dict[str, Any]:
    """As Midtrans would tell it, signed after the changes; a change to None takes the field away."""
    code = {"pending": "201", "deny": "202", "expire": "202"}.get(status, "200")
    body: dict[str, Any] = {
        "transaction_time": "2026-11-23 10:00:00",
        "transaction_status": status,
        "transaction_id": str(uuid.uuid5(uuid.NAMESPACE_URL, attempt.order_id)),
        "status_message": "midtrans payment notification",
        "status_code": code,
        "payment_type": "bank_transfer",
        "order_id": attempt.order_id,
        "merchant_id": "G000000001",
        "gross_amount": f"{attempt.amount}.00",
        "fraud_status": "accept",
        "currency": "IDR",
        **changes,
    }
    body = {name: value for name, value in body.items() if value is not None}
    if "signature_key" not in changes:
        order_id, code, amount = (str(body.get(name, "")) for name in ("order_id", "status_code", "gross_amount"))
        body["signature_key"] = notification_signature(order_id, code, amount, key)
    return body


def post(body: Any, path: str = NOTIFICATIONS, /, **headers: str) -> HttpResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Client().post(path, data=data, content_type="application/json", headers=headers)  # type: ignore[return-value]


def post_event(
    data: dict[str, Any], *, event_id: str = "evt_1", at: float, secret: str = EVENT_SECRET, **headers: str
) -> HttpResponse:
    body = json.dumps(data).encode()
    given = {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": sign_event(event_id, int(at), body, secret),
        **headers,
    }
    return post(body, EVENTS, **given)


def verdicts(order_id: str) -> list[tuple[str, str]]:
    """(verdict, reason) of all receipts of an order, in the order of arrival."""
    rows = WebhookReceipt.objects.filter(order_id=order_id).order_by("pk")
    return list(rows.values_list("verdict", "reason"))


def entries(order_id: str, prefix: str = "webhook_") -> list[str]:
    rows = BillingEntry.objects.filter(order_id=order_id, kind__startswith=prefix).order_by("pk")
    return list(rows.values_list("kind", flat=True))
