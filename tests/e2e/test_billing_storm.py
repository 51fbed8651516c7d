"""A storm of notifications, forged and repeated ones among them, with the database away in the middle.

BILLING_STORM_ORDERS sets the size (150 orders; 1,000 is the whole storm), ten notifications each.
"""

import asyncio
import base64
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from billing.midtrans.signature import notification_signature
from tests.support.children import start_child, stop_child
from tests.support.gateway import ROOT, Gateway, manage, until
from tests.support.midtrans import SERVER_KEY, StandIn
from tests.support.poster import Answered, Poster
from tests.support.postgres import Postgres
from tests.support.strain import Strain

ORDERS = int(os.environ.get("BILLING_STORM_ORDERS", "150"))
NOTIFICATIONS = 10
AT_ONCE = 50
DOWN = 10.0
PRICE = 499_000
PATH = "/billing/midtrans/notifications/"
# Of Midtrans' own two, ten and thirty minutes, a second for each.
PAUSES = (2.0, 10.0, 30.0)
# Actions at the stand-in after "pending", the statuses told, and (attempt, invoice, live grants, tier) in the end.
STORIES: list[tuple[list[str], list[str], tuple[str, str, int, str]]] = [
    (["pay"], ["pending", "settlement"], ("settled", "paid", 1, "PRO")),
    ([], ["pending"], ("pending", "open", 0, "FREE")),
    (["deny"], ["pending", "deny"], ("denied", "open", 0, "FREE")),
    (["expire"], ["pending", "expire"], ("expired", "open", 0, "FREE")),
    (["cancel"], ["pending", "cancel"], ("cancelled", "open", 0, "FREE")),
    (["pay", "reverse"], ["pending", "settlement", "deny"], ("denied", "open", 0, "FREE")),
    (["pay", "chargeback"], ["pending", "settlement", "chargeback"], ("charged_back", "returned", 0, "FREE")),
    (["pay", "refund"], ["pending", "settlement", "refund"], ("refunded", "returned", 0, "FREE")),
]
_SEED = """
import json, sys
from tests.billing.buyer import Buyer
orders = [Buyer.new(f"storm-{number}").order() for number in range(int(sys.stdin.read()))]
print(json.dumps([order.order_id for order in orders]))
"""
_STATE = """
import json
from billing.models import AccessGrant, BillingEntry, PaymentAttempt, WebhookReceipt
from collections import Counter
rows = PaymentAttempt.objects.select_related("invoice__subscription__company__tier")
live = Counter(AccessGrant.objects.filter(revoked_at=None).values_list("invoice_id", flat=True))
ever = Counter(AccessGrant.objects.values_list("invoice_id", flat=True))
print(json.dumps({
    # An invoice that nobody can pay any more is voided by and by.
    "orders": {row.order_id: [row.state, row.invoice.state.replace("void", "open"), live[row.invoice_id],
                              row.invoice.subscription.company.tier.code] for row in rows},
    "grants_ever": max(ever.values(), default=0),
    "verdicts": Counter(WebhookReceipt.objects.values_list("verdict", flat=True)),
    "refused_entries": BillingEntry.objects.filter(kind="webhook_refused").count(),
    "found_by_poll": BillingEntry.objects.filter(kind="found_by_poll").count(),
}))
"""


@dataclass
class Storm:
    answers: list[Answered] = field(default_factory=list)
    # Forged ones have their own.
    refused: list[Answered] = field(default_factory=list)
    given_up: int = 0
    down_at: float = 0.0
    up_at: float = 0.0

    def while_up(self) -> list[float]:
        """Seconds of the answers, sorted, that had nothing to do with the database being away: from a second before
        it went, to five after it came back, in which the gateway connects again."""
        return sorted(
            one.seconds
            for one in (*self.answers, *self.refused)
            if not (self.down_at - 1.0 < one.began < self.up_at + 5.0)
        )


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    """Tells nobody by itself."""
    stand_in = StandIn(tmp_path, "")
    stand_in.wait_ready()
    yield stand_in
    stand_in.stop()


def run_script(script: str, environment: dict[str, str], given: str = "") -> Any:
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "shell", "-v0", "--no-imports", "-c", script],
        env=environment, input=given, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def play(stand_in: StandIn, order_id: str, actions: list[str]) -> dict[str, Any]:
    """What the customer and the bank do; the transaction as the stand-in tells it."""
    charge = {
        "payment_type": "bank_transfer",
        "transaction_details": {"order_id": order_id, "gross_amount": PRICE},
        "bank_transfer": {"bank": "permata"},
    }
    request = urllib.request.Request(f"{stand_in.url}/v2/charge", data=json.dumps(charge).encode())
    password = f"{SERVER_KEY}:".encode()
    request.add_header("Authorization", f"Basic {base64.b64encode(password).decode()}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as answer:
        body: dict[str, Any] = json.load(answer)
    assert "transaction_id" in body, body
    for action in actions:
        stand_in.act(order_id, action)
    return body


def told(charged: dict[str, Any], status: str) -> dict[str, Any]:
    """A notification, as it was sent when the transaction had this status."""
    code = {"pending": "201", "deny": "202", "expire": "202"}.get(status, "200")
    body = {**charged, "transaction_status": status, "status_code": code}
    if status in ("refund", "chargeback"):
        refund = {"refund_chargeback_id": 1, "refund_amount": f"{PRICE}.00", "refund_key": f"sandbox-{status}-1"}
        body |= {"refund_amount": f"{PRICE}.00", "refunds": [refund]}
    return body | {"signature_key": notification_signature(body["order_id"], code, f"{PRICE}.00", SERVER_KEY)}


def messages(
    chosen: random.Random, charged: list[tuple[dict[str, Any], list[str]]]
) -> list[tuple[dict[str, Any], bool]]:
    """All of them in no order: each event of each order at least once, repeated ones, and forged ones (True)."""
    found: list[tuple[dict[str, Any], bool]] = []
    for body, statuses in charged:
        drawn = [*statuses, *chosen.choices(statuses, k=NOTIFICATIONS - len(statuses))]
        found += [(told(body, status), False) for status in drawn]
    share = len(found) // 20
    forged = [body | {"signature_key": f"{chosen.getrandbits(512):0128x}"} for body, _ in chosen.sample(found, share)]
    settled = [body | {"transaction_status": "settlement"} for body in forged]
    found += [(body, True) for body in settled] + chosen.sample(found, share)
    chosen.shuffle(found)
    return found


async def rage(port: int, posts: list[tuple[dict[str, Any], bool]], storm: Storm, half: Callable[[], None]) -> None:
    waiting = list(reversed(posts))

    async def send() -> None:
        poster = Poster(port)
        while waiting:
            body, is_forged = waiting.pop()
            if len(waiting) == len(posts) // 2:
                half()
            for pause in (*PAUSES, 0.0):
                answer = await poster.post(PATH, body)
                (storm.refused if is_forged else storm.answers).append(answer)
                if answer.code in (200, 403):
                    break
                # The server keeps no idle connection for so long.
                poster.close()
                await asyncio.sleep(pause)
            else:
                storm.given_up += 1
        poster.close()

    await asyncio.gather(*(send() for _ in range(AT_ONCE)))


def test_storm_with_forgeries_and_the_database_away_ends_in_the_right_books(
    make_gateway: Callable[..., Gateway], postgres: Postgres, stand_in: StandIn, tmp_path: Path
) -> None:
    gateway = make_gateway(
        DATABASE_URL=postgres.url, MIDTRANS_BASE_URL=stand_in.url, MIDTRANS_SERVER_KEY=SERVER_KEY,
        GATEWAY_REFUSED_RECEIPT_LIMIT="1000000",
    )  # fmt: skip
    manage("migrate", "-v0", environment=gateway.environment)
    orders = run_script(_SEED, gateway.environment, str(ORDERS))
    charged = [
        (play(stand_in, order_id, STORIES[place % len(STORIES)][0]), STORIES[place % len(STORIES)][1])
        for place, order_id in enumerate(orders)
    ]
    gateway.start()
    worker_log = tmp_path / "worker.log"
    worker = start_child([sys.executable, str(ROOT / "manage.py"), "worker"], worker_log, gateway.environment)
    storm = Storm()

    def outage() -> None:
        storm.down_at = time.monotonic()
        postgres.halt()
        time.sleep(DOWN)
        postgres.resume()
        storm.up_at = time.monotonic()

    breaker = threading.Thread(target=outage)
    try:
        began = time.monotonic()
        with Strain() as strain:
            asyncio.run(rage(gateway.port, messages(random.Random(7), charged), storm, breaker.start))
        seconds = time.monotonic() - began
        breaker.join()

        def is_calm() -> bool:
            return "waiting" not in run_script(_STATE, gateway.environment)["verdicts"]

        until(is_calm, max(240.0, ORDERS * 0.6), "every receipt has its verdict")
    finally:
        stop_child(worker, 30)
    found = run_script(_STATE, gateway.environment)
    up = storm.while_up()
    figures = {
        "orders": ORDERS,
        "notifications": len(up),
        "seconds": round(seconds, 1),
        "p50_ms": round(up[len(up) // 2] * 1000),
        "p99_ms": round(up[int(len(up) * 0.99)] * 1000),
        "worst_ms": round(up[-1] * 1000),
        "answers": {code: sum(one.code == code for one in storm.answers) for code in (0, 200, 403, 500, 503)},
        "given_up": storm.given_up,
        **{name: found[name] for name in ("verdicts", "found_by_poll")},
    }
    # Seen with -s.
    sys.stdout.write(f"\n{json.dumps(figures)}\n")
    wanted = {order_id: list(STORIES[place % len(STORIES)][2]) for place, order_id in enumerate(orders)}
    wrong = {order: (state, wanted[order]) for order, state in found["orders"].items() if state != wanted[order]}
    assert wrong == {}
    assert found["grants_ever"] == 1
    assert {one.code for one in storm.answers} == {200, 503}
    # A forged one is refused without the database, unless it is to be written down.
    assert {one.code for one in storm.refused} <= {403, 503}
    assert found["refused_entries"] == sum(one.code == 403 for one in storm.refused) == found["verdicts"]["refused"]
    assert storm.given_up == 0
    assert manage("billing_audit", environment=gateway.environment).startswith("0 findings")
    # Generous: the worker shares this machine, and so do others. The figures say what it was.
    assert figures["p99_ms"] < 2_000 * strain.factor, figures
