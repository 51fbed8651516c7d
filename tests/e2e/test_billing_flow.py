"""Payments told to a running gateway: every documented body, forged ones, and not a secret in any log."""

import json
import re
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from billing.midtrans.signature import notification_signature, sign_event
from tests.billing.samples import FOLDER, GENUINE, MANIFEST, SERVER_KEY, read
from tests.support.children import start_child, stop_child
from tests.support.gateway import ROOT, Gateway, clean_environment, until
from tests.support.status_server import StatusServer

PATH = "/billing/midtrans/notifications/"
EVENT_SECRET = "whsec-that-nobody-may-read-0001"
WEBHOOK_ORDER = "gw-inv-20261123-9001"
_SEED = """
import json, sys
from billing.money import parse_amount
from tests.billing.buyer import Buyer
for order_id, amount in json.load(sys.stdin).items():
    Buyer.new().order(order_id=order_id, total=parse_amount(amount))
print("[]")
"""
_STATE = """
import json
from billing.models import AccessGrant, BillingEntry, PaymentAttempt, PaymentMethod, Transaction, WebhookReceipt
from django.core import serializers
rows = PaymentAttempt.objects.select_related("invoice")
live = set(AccessGrant.objects.filter(revoked_at=None).values_list("invoice_id", flat=True))
kept = (WebhookReceipt, BillingEntry, Transaction, PaymentAttempt, PaymentMethod)
print(json.dumps({
    "orders": {row.order_id: [row.state, row.invoice.state, row.invoice_id in live] for row in rows},
    "verdicts": [list(row) for row in WebhookReceipt.objects.order_by("pk").values_list("order_id", "verdict")],
    "entries": list(BillingEntry.objects.order_by("pk").values_list("kind", flat=True)),
    "everything": serializers.serialize("json", [row for model in kept for row in model.objects.all()]),
}))
"""


@pytest.fixture
def midtrans() -> Iterator[StatusServer]:
    server = StatusServer()
    yield server
    server.stop()


def run_script(gateway: Gateway, script: str, given: str = "") -> Any:
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "shell", "-v0", "--no-imports", "-c", script],
        env=gateway.environment, input=given, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def post(gateway: Gateway, path: str, body: bytes, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{gateway.port}{path}", data=body)
    for name, value in {"Content-Type": "application/json", **headers}.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def waits(gateway: Gateway) -> bool:
    with closing(sqlite3.connect(gateway.state_dir / "gateway.sqlite3", timeout=10)) as database:
        rows = database.execute("SELECT count(*) FROM billing_webhookreceipt WHERE verdict = 'waiting'")
        return bool(rows.fetchone()[0])


def settings_of(midtrans: StatusServer) -> dict[str, str]:
    return {
        "MIDTRANS_BASE_URL": midtrans.url,
        "MIDTRANS_SERVER_KEY": SERVER_KEY,
        "MIDTRANS_MERCHANT_ID": MANIFEST["merchant_id"],
        "GATEWAY_WEBHOOK_SECRETS": EVENT_SECRET,
        "GATEWAY_LOG_LEVEL": "DEBUG",
    }


def test_every_documented_body_reaches_the_books_and_no_secret_reaches_a_log(
    make_gateway: Callable[..., Gateway], midtrans: StatusServer, tmp_path: Path
) -> None:
    gateway = make_gateway(**settings_of(midtrans))
    bodies = [read(sample["file"]) for sample in GENUINE]
    orders = {body["order_id"]: body["gross_amount"] for body in bodies}
    orders |= {read(f"negative/{name}.json")["order_id"]: "199000.00" for name in ("bad_signature_missing",)}
    orders |= {WEBHOOK_ORDER: "199000.00"}
    run_script(gateway, _SEED, json.dumps(orders))
    gateway.start()
    worker = start_child(
        [sys.executable, str(ROOT / "manage.py"), "worker"], tmp_path / "worker.log", gateway.environment
    )
    try:
        final: dict[str, dict[str, Any]] = {}
        for body in bodies:
            midtrans.say(body)
            assert post(gateway, PATH, json.dumps(body).encode())[0] == 200
            final[body["order_id"]] = body
            # One after the other: which state each one brings is what is looked at.
            until(lambda: not waits(gateway), 15, "the verdict")
        for path in sorted((FOLDER / "negative").glob("bad_*.json")):
            assert post(gateway, PATH, path.read_bytes())[0] == 403
        event = json.dumps({"type": "payment.updated", "data": {"order_id": WEBHOOK_ORDER}}).encode()
        midtrans.say({**bodies[0], "order_id": WEBHOOK_ORDER, "transaction_id": "11111111-1111-4111-8111-111111111111"})
        moment = int(time.time())
        signature = sign_event("evt_1", moment, event, EVENT_SECRET)
        headers = {"webhook_id": "evt_1", "webhook_timestamp": str(moment), "webhook_signature": signature}
        assert post(gateway, "/billing/events/", event, **headers)[0] == 200
        assert post(gateway, "/billing/events", event, webhook_id="evt_1")[0] == 403
        until(lambda: not waits(gateway), 15, "the verdict")
        # A machine that is busy may not have let it say anything yet.
        until(lambda: len((tmp_path / "worker.log").read_text()) > 100, 30, "a worker at work")
    finally:
        stop_child(worker, 30)
        gateway.stop()
    found = run_script(gateway, _STATE)
    assert [verdict for order, verdict in found["verdicts"] if order in final] == ["applied"] * len(bodies)
    assert found["entries"].count("webhook_refused") == 4
    holding = {order for order, (_state, _invoice, is_live) in found["orders"].items() if is_live}
    assert holding == {
        order for order, body in final.items()
        if body["transaction_status"] in ("capture", "settlement") and body.get("fraud_status") == "accept"
    }  # fmt: skip
    secrets = {SERVER_KEY, EVENT_SECRET, signature, signature.split(",")[1]}
    secrets |= {body["signature_key"] for body in bodies}
    secrets |= {body[name] for body in bodies for name in ("saved_token_id",) if name in body}
    assert len(secrets) > 20
    written = {
        "gateway": gateway.log.read_text(),
        "worker": (tmp_path / "worker.log").read_text(),
        "database": found["everything"],
    }
    for place, text in written.items():
        assert len(text) > 100, place
        assert [secret for secret in secrets if secret in text] == [], place
    assert gateway.errors() == []


_EXPLODING = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "gateway_project.settings"
sys.argv = ["manage.py", "gateway", "--port", "{port}"]
def explode(*arguments, **fields):
    raise RuntimeError(f"with {{arguments}} and {{fields}}")
import django
django.setup()
from billing import intake
intake.accept = explode
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""


def test_view_that_explodes_answers_come_again_and_tells_nobody_what_it_had_in_hand(
    make_gateway: Callable[..., Gateway], midtrans: StatusServer
) -> None:
    gateway = make_gateway(GATEWAY_DEBUG="1", **settings_of(midtrans))
    run_script(gateway, _SEED, json.dumps({WEBHOOK_ORDER: "199000.00"}))
    script = gateway.state_dir / "exploding.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n" + _EXPLODING.format(port=gateway.port))
    gateway.process = start_child([sys.executable, str(script)], gateway.log, gateway.environment)
    gateway.wait_ready()
    body = {**read(GENUINE[0]["file"]), "order_id": WEBHOOK_ORDER, "saved_token_id": "481111secretofthecard1114"}
    fields = (WEBHOOK_ORDER, body["status_code"], body["gross_amount"], SERVER_KEY)
    body["signature_key"] = notification_signature(*fields)
    status, answer = post(gateway, PATH, json.dumps(body).encode())
    gateway.stop()
    assert status == 503
    text = answer + gateway.log.read_text()
    assert "webhook_unavailable" in text
    for secret in (SERVER_KEY, EVENT_SECRET, body["signature_key"], body["saved_token_id"]):
        assert secret not in text


def test_pages_of_errors_and_settings_show_no_key(tmp_path: Path) -> None:
    program = (
        "from django.views.debug import SafeExceptionReporterFilter as F; import json;"
        "shown = {name: str(value) for name, value in F().get_safe_settings().items()};"
        "print(json.dumps({name: value for name, value in shown.items() if 'MIDTRANS' in name or 'WEBHOOK' in name}))"
    )
    environment = clean_environment(
        tmp_path, MIDTRANS_SERVER_KEY="key-one", MIDTRANS_SIGNING_KEYS="key-two", GATEWAY_WEBHOOK_SECRETS="key-three"
    )
    command = [sys.executable, str(ROOT / "manage.py"), "shell", "-v0", "--no-imports", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert re.findall(r"key-\w+", done.stdout) == []
    assert set(json.loads(done.stdout.splitlines()[-1])) >= {"MIDTRANS_SERVER_KEY", "GATEWAY_WEBHOOK_SECRETS"}
