"""The worker is killed at every step of a renewal's charge: never two charges, and nothing is forgotten.

A real worker, the stand-in as a process, a real Kafka. The worker kills itself with SIGKILL at the place that
``GATEWAY_BILLING_FAULT`` names; the next one finds what is there.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from billing import faults
from billing.periods import JAKARTA
from proto.gateway.v1 import events_pb2
from tests.support.children import start_child, stop_child
from tests.support.gateway import ROOT, clean_environment, manage, run_manage, until
from tests.support.kafka import KafkaBroker
from tests.support.midtrans import SERVER_KEY, Receiver, StandIn
from tests.support.topics import read_topics

_TOPIC = "billing-kills-subscription-status"
# Seconds for a worker to start, do its jobs and be killed or done, on a machine that is busy.
_PATIENCE = 60.0
_MINUTES = timedelta(minutes=3)
# A company with a first period that was paid by a card, which was kept.
_BUY = """
import json, sys, urllib.request
from billing import checkout
from billing.models import AccessGrant, PaymentMethod, Price
from billing.polling import poll_attempt
from django.conf import settings
from tenants.access import Actor
from tenants.models import Company, SubscriptionTier
company = Company.objects.create(name="{name}", slug="{name}", tier=SubscriptionTier.objects.get(code="FREE"))
actor, price = Actor.system("test"), Price.objects.get(plan__tier__code="PRO", interval="monthly")
invoice = checkout.start(actor, company, price)
checkout.open_page(actor, invoice, finish_url="http://localhost/back/")
attempt = invoice.attempts.get()
def control(path, **data):
    request = urllib.request.Request(settings.MIDTRANS_BASE_URL + "/sandbox/" + path, json.dumps(data).encode(),
                                     {{"Content-Type": "application/json"}})
    urllib.request.urlopen(request, timeout=10).close()
control(f"orders/{{attempt.order_id}}/choose", method="card")
for action in ("pay", "settle"):
    control(f"orders/{{attempt.order_id}}/act", action=action)
poll_attempt(attempt)
from billing import vault
if "{behaviour}" != "accept":
    method = PaymentMethod.objects.get(company=company)
    control("cards", token=vault.unseal(method.sealed_token), behaviour="{behaviour}")
print(json.dumps(dict(company=str(company.pk), end=AccessGrant.objects.get(company=company).ends_at.timestamp())))
"""
_LOOK = """
import json
from billing.models import AccessGrant, BillingEntry, Invoice, PaymentAttempt, Subscription
s = Subscription.objects.get(company_id="{company}")
invoices = Invoice.objects.filter(subscription=s, kind="renewal")
attempts = PaymentAttempt.objects.filter(invoice__in=invoices)
print(json.dumps(dict(
    state=s.state, paid_until=s.paid_until.timestamp(), retry=bool(s.next_retry_at),
    invoices=[(i.pk, i.state) for i in invoices],
    attempts=[(a.state, a.is_closed, bool(a.failure_noted_at)) for a in attempts],
    grants=AccessGrant.objects.filter(invoice__in=invoices, revoked_at=None).count(),
    failures=BillingEntry.objects.filter(company_id="{company}", kind="charge_failed").count(),
)))
"""


@dataclass
class Bought:
    company: str
    # The end of the first period.
    end: datetime


class Books:
    """A database, the stand-in and Kafka; workers on them come and go."""

    def __init__(self, directory: Path, kafka: KafkaBroker, stand_in: StandIn) -> None:
        self._directory = directory
        self.stand_in = stand_in
        self._environment = clean_environment(
            directory / "state",
            GATEWAY_LOG_FORMAT="json",
            GATEWAY_KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap,
            GATEWAY_SUBSCRIPTION_TOPIC=_TOPIC,
            MIDTRANS_BASE_URL=stand_in.url,
            MIDTRANS_SERVER_KEY=SERVER_KEY,
            DJANGO_SETTINGS_MODULE="gateway_project.settings",
        )
        (directory / "state").mkdir()
        self._count = 0
        manage("migrate", "-v0", environment=self._environment)

    def shell(self, program: str, **values: str) -> dict[str, Any]:
        text = manage("shell", "-v0", "--no-imports", "-c", program.format(**values), environment=self._environment)
        answer: dict[str, Any] = json.loads(text.splitlines()[-1])
        return answer

    def buy(self, name: str, behaviour: str = "accept") -> Bought:
        answer = self.shell(_BUY, name=name, behaviour=behaviour)
        return Bought(answer["company"], datetime.fromtimestamp(answer["end"], UTC))

    def look(self, bought: Bought) -> dict[str, Any]:
        return self.shell(_LOOK, company=bought.company)

    def work(self, at: datetime, fault: str = "") -> subprocess.Popen[bytes]:
        """A worker whose clock shows ``at`` when it starts."""
        self._count += 1
        offset = (at - datetime.now(UTC)).total_seconds()
        environment = {**self._environment, **_shifted(offset), "GATEWAY_BILLING_FAULT": fault}
        command = [sys.executable, str(ROOT / "manage.py"), "worker"]
        return start_child(command, self._directory / f"worker-{self._count}.log", environment)

    def logs(self) -> str:
        return (self._directory / f"worker-{self._count}.log").read_text()[-4000:]

    def audit(self, at: datetime) -> tuple[int, str]:
        offset = (at - datetime.now(UTC)).total_seconds()
        done = run_manage("billing_audit", environment={**self._environment, **_shifted(offset)})
        return done.returncode, done.stdout

    def charged(self, look: dict[str, Any]) -> list[str]:
        """The states at Midtrans of all transactions for the renewal."""
        orders = tuple(f"gw-{invoice:010}-" for invoice, _state in look["invoices"])
        found = self.stand_in.control("log")["transactions"]
        return [row["state"] for row in found if row["order_id"].startswith(orders)]


def _shifted(offset: float) -> dict[str, str]:
    return {"GATEWAY_CLOCK_OFFSET": f"{max(offset, 0):.0f}s"}


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory, kafka: KafkaBroker) -> Iterator[Books]:
    directory = tmp_path_factory.mktemp("kills")
    receiver = Receiver()
    stand_in = StandIn(directory, receiver.url)
    stand_in.wait_ready()
    yield Books(directory, kafka, stand_in)
    stand_in.stop()
    receiver.stop()


def on_renewal_day(bought: Bought) -> datetime:
    """Shortly before the end, on the same day in Asia/Jakarta."""
    midnight = bought.end.astimezone(JAKARTA).replace(hour=0, minute=0, second=1)
    return max(bought.end - timedelta(minutes=20), midnight)


def killed(books: Books, at: datetime, fault: str) -> None:
    """Runs a worker to its death at ``fault``."""
    worker = books.work(at, fault)
    try:
        assert worker.wait(_PATIENCE) == -signal.SIGKILL, books.logs()
    except subprocess.TimeoutExpired:
        stop_child(worker)
        raise AssertionError(f"the worker came past {fault}:\n{books.logs()}") from None


@pytest.mark.parametrize("fault", faults.POINTS)
def test_worker_killed_at_any_step_charges_once_and_forgets_nothing(books: Books, fault: str) -> None:
    bought = books.buy(f"kill-{fault.replace('_', '-')}")
    at = on_renewal_day(bought)
    killed(books, at, fault)
    worker = books.work(at + _MINUTES)
    try:
        until(lambda: books.look(bought)["grants"] == 1, _PATIENCE, "the renewal is paid")
        until(lambda: bool(told(books, bought)), _PATIENCE, "Kafka is told")
    finally:
        assert stop_child(worker) == 0, books.logs()
    look = books.look(bought)
    assert (look["state"], [state for _pk, state in look["invoices"]]) == ("active", ["paid"])
    assert datetime.fromtimestamp(look["paid_until"], UTC) > bought.end + timedelta(days=27)
    assert books.charged(look) == ["capture"]
    assert len(look["attempts"]) == 1
    status, text = books.audit(at + _MINUTES)
    assert status == 0, text


def test_worker_killed_over_a_refused_charge_notes_it_once_and_tries_again_by_the_calendar(books: Books) -> None:
    bought = books.buy("kill-refused", behaviour="51")
    at = on_renewal_day(bought)
    killed(books, at, faults.BEFORE_NOTE)
    worker = books.work(at + _MINUTES)
    try:
        until(lambda: books.look(bought)["retry"], _PATIENCE, "the failure is noted")
    finally:
        assert stop_child(worker) == 0, books.logs()
    look = books.look(bought)
    assert (look["failures"], look["attempts"], books.charged(look)) == (1, [["denied", True, True]], ["deny"])


def told(books: Books, bought: Bought) -> list[events_pb2.SubscriptionStatus]:
    """What Kafka holds of a company's renewal."""
    bootstrap = books._environment["GATEWAY_KAFKA_BOOTSTRAP_SERVERS"]
    found = [events_pb2.SubscriptionStatus.FromString(row.value) for row in read_topics(bootstrap, [_TOPIC])]
    after = bought.end.timestamp() * 1000
    return [status for status in found if status.company_id == bought.company and status.paid_until > after]
