"""Sends notifications as Midtrans does: signed, repeated by the answer, or wrong on demand. Room: billing (sandbox)."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urljoin

import requests
import structlog

from billing.sandbox.faults import Fault, Faults
from billing.sandbox.transaction import Transaction, now, written

log = structlog.get_logger(__name__)

# Minutes before each repetition; each is shifted at random.
INTERVALS = (2.0, 10.0, 30.0, 90.0, 210.0)
_TIMEOUT = 15.0
_REDIRECT_LIMIT = 5
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "Veritrans"}
_LOG_LIMIT = 1_000


def repetitions(answer: int) -> int:
    """How often Midtrans repeats a notification that was answered so; 0 is no answer at all."""
    if 200 <= answer < 300 or answer in (301, 302, 303):
        return 0
    return {500: 1, 503: 4, 400: 2, 404: 2}.get(answer, 5)


@dataclass(slots=True)
class Delivery:
    number: int
    order_id: str
    transaction_status: str
    url: str
    body: dict[str, Any]
    created_at: str
    # sending, delivered, given_up, lost or held.
    outcome: str = "sending"
    # HTTP codes in the order of the tries; 0 is no answer.
    answers: list[int] = field(default_factory=list)
    fault: str = ""


class Notifier:
    """``time_factor``: how many times faster than at Midtrans the minutes between repetitions pass."""

    def __init__(self, *, url: str, key: str, faults: Faults, time_factor: float) -> None:
        self.url = url
        self.deliveries: list[Delivery] = []
        self._key = key
        self._faults = faults
        self._time_factor = time_factor
        self._count = 0
        self._held: dict[str, list[Delivery]] = {}
        # By order and address: set once the latest notification there has had its first answer.
        self._last: dict[tuple[str, str], asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(16, thread_name_prefix="notify")

    def announce(self, transaction: Transaction) -> None:
        """Tells the present state of a transaction to its addresses."""
        for url in transaction.urls or ((self.url,) if self.url else ()):
            fault = self._faults.take("notification", transaction.order_id)
            body = self._body(transaction, fault)
            delivery = self._record(transaction.order_id, transaction.status, url, body)
            delivery.fault = fault.effect if fault else ""
            self._start(delivery, fault)

    def announce_account(self, body: dict[str, Any]) -> None:
        if self.url:
            self._start(self._record(body["account_id"], body["account_status"], self.url, body), None)

    def resend(self, number: int) -> bool:
        """The same body once more, as a late duplicate; False when there is no such delivery."""
        known = next((delivery for delivery in self.deliveries if delivery.number == number), None)
        if known is None:
            return False
        again = self._record(known.order_id, known.transaction_status, known.url, dict(known.body))
        again.fault = "resent"
        self._start(again, None)
        return True

    def later(self, minutes: float, act: Callable[[], None]) -> None:
        """Runs ``act`` after so many of Midtrans' minutes."""

        async def wait() -> None:
            await asyncio.sleep(minutes * 60 / self._time_factor)
            act()

        self._spawn(wait())

    def stop(self) -> None:
        """Forgets everything that is under way."""
        for task in self._tasks:
            task.cancel()
        self._held.clear()
        self._last.clear()
        self.deliveries.clear()

    def listed(self) -> list[dict[str, Any]]:
        return [asdict(delivery) for delivery in self.deliveries]

    def _body(self, transaction: Transaction, fault: Fault | None) -> dict[str, Any]:
        effect = fault.effect if fault else ""
        amount = fault.amount if fault and effect == "wrong_amount" else None
        body = transaction.body(self._key, message="midtrans payment notification", amount=amount)
        if fault and effect == "tamper":
            body["transaction_status"] = fault.transaction_status
        elif effect == "forge":
            body["signature_key"] = f"{random.getrandbits(512):0128x}"
        return body

    def _record(self, order_id: str, status: str, url: str, body: dict[str, Any]) -> Delivery:
        self._count += 1
        delivery = Delivery(self._count, order_id, status, url, body, written(now()))
        self.deliveries.append(delivery)
        del self.deliveries[:-_LOG_LIMIT]
        return delivery

    def _start(self, delivery: Delivery, fault: Fault | None) -> None:
        effect = fault.effect if fault else ""
        if effect == "lose":
            delivery.outcome = "lost"
        elif effect == "hold":
            delivery.outcome = "held"
            self._held.setdefault(delivery.order_id, []).append(delivery)
        elif fault and effect == "delay":
            self._spawn(self._try(delivery, delay=fault.seconds))
        else:
            key = (delivery.order_id, delivery.url)
            before, tried = self._last.get(key), asyncio.Event()
            self._last[key] = tried
            self._spawn(self._send(delivery, before, tried))
            for _ in range(fault.copies if fault and effect == "duplicate" else 0):
                again = self._record(delivery.order_id, delivery.transaction_status, delivery.url, delivery.body)
                again.fault = "duplicate"
                self._spawn(self._try(again))

    async def _send(self, delivery: Delivery, before: asyncio.Event | None, tried: asyncio.Event) -> None:
        """After the first try of the one before; repetitions and faults are what brings disorder."""

        def first_answer() -> None:
            tried.set()
            for held in self._held.pop(delivery.order_id, ()):
                held.outcome = "sending"
                self._spawn(self._try(held))

        try:
            if before is not None:
                await before.wait()
            await self._try(delivery, first_answer=first_answer)
        finally:
            tried.set()

    async def _try(
        self, delivery: Delivery, *, delay: float = 0.0, first_answer: Callable[[], None] | None = None
    ) -> None:
        """Until it is delivered or given up."""
        await asyncio.sleep(delay)
        loop = asyncio.get_running_loop()
        for attempt in range(len(INTERVALS) + 1):
            answer = await loop.run_in_executor(self._threads, _post, delivery.url, delivery.body)
            delivery.answers.append(answer)
            if attempt == 0 and first_answer is not None:
                first_answer()
            if 200 <= answer < 300:
                delivery.outcome = "delivered"
                return
            if attempt >= repetitions(answer):
                break
            shift = random.uniform(0.9, 1.1)
            await asyncio.sleep(INTERVALS[attempt] * 60 * shift / self._time_factor)
        delivery.outcome = "given_up"
        log.warning("notification_given_up", order_id=delivery.order_id, answers=delivery.answers)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _post(url: str, body: dict[str, Any]) -> int:
    """The HTTP code, 0 without an answer. 307 and 308 are followed with the same body, nothing else is."""
    with requests.Session() as session:
        # No proxy of the machine, no password file.
        session.trust_env = False
        try:
            for _ in range(_REDIRECT_LIMIT + 1):
                response = session.post(url, json=body, headers=_HEADERS, timeout=_TIMEOUT, allow_redirects=False)
                if response.status_code not in (307, 308):
                    break
                url = urljoin(url, response.headers.get("Location", ""))
        except requests.RequestException:
            return 0
        return response.status_code
