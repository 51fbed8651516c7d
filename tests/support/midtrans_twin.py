"""Midtrans in this process, by the clock of billing: the stand-in's own rules without a network.

Takes the place of ``MidtransClient``; tests that are about the wire use the stand-in as a process.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest

from billing import clock, ledger
from billing.midtrans import bodies
from billing.midtrans.bodies import Customer, Item, PageOrder
from billing.midtrans.client import MidtransClient, PaymentPage
from billing.midtrans.outcomes import Done, Doubt, Outcome, Unknown, refusal_of
from billing.midtrans.payload import AccountStatus, TransactionStatus, parse_account, parse_transaction
from billing.periods import JAKARTA
from billing.sandbox import state, transaction
from billing.sandbox.methods import ApiError
from billing.sandbox.state import Page, Sandbox

T = TypeVar("T")
_ADDRESS = "http://midtrans.test"


class _Quiet:
    """Remembers whom Midtrans would have told."""

    url = ""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.confirmations: list[Callable[[], None]] = []

    def announce(self, told: transaction.Transaction) -> None:
        self.orders.append(told.order_id)

    def announce_account(self, body: dict[str, Any]) -> None:
        """Nobody listens."""

    def later(self, _minutes: float, act: Callable[[], None]) -> None:
        self.confirmations.append(act)

    def stop(self) -> None:
        self.orders.clear()


class Twin:
    """``calls``: (name, order id) of everything that was asked, in order."""

    def __init__(self) -> None:
        self.sandbox = Sandbox(server_key="key", notification_url="", address=_ADDRESS, time_factor=1.0)
        self.told = _Quiet()
        self.sandbox.notifier = self.told  # type: ignore[assignment]  # only what is used of it
        self.calls: list[tuple[str, str]] = []
        self.pages: dict[str, dict[str, Any]] = {}
        self._faults: list[tuple[str, bool]] = []
        # While set, every call is refused with this code of Midtrans: "401" for a key that is wrong.
        self.refusal = ""
        # How many answers were lost so far.
        self.lost = 0

    # --- What customers, banks and the network do ---------------------------------------------------------------------

    def lose(self, call: str, *, done: bool, count: int = 1) -> None:
        """The next answers of this call are lost: ``done`` after it was carried out, else before."""
        self._faults += [(call, done)] * count

    def answer_again(self) -> None:
        """Nothing is wrong any more."""
        self._faults.clear()
        self.refusal = ""

    def page(self, order_id: str) -> Page:
        return next(page for page in self.sandbox.pages.values() if page.order_id == order_id)

    def choose(self, order_id: str, method: str) -> None:
        self.sandbox.choose(self.page(order_id), method)

    def act(self, order_id: str, action: str) -> None:
        """ "pay", "deny", "chargeback" … as the buttons of the stand-in's page."""
        self.sandbox.act(self.sandbox.find(order_id), action)

    def pay(self, order_id: str, method: str) -> None:
        self.choose(order_id, method)
        self.act(order_id, "pay")
        if method == "card":
            self.act(order_id, "settle")

    def settle_all(self) -> None:
        """As each afternoon: captures settle, and what nobody paid in time expires."""
        for row in list(self.sandbox.transactions.values()):
            if row.state == "capture":
                self.act(row.order_id, "settle")
        self.sandbox.sweep()

    def deliver(self, *, keep: Callable[[str], bool] = lambda _order_id: True) -> int:
        """The notifications that have piled up, each a reason to ask; those that ``keep`` refuses are lost."""
        waiting, self.told.orders = self.told.orders, []
        client = TwinClient(self)
        for order_id in dict.fromkeys(waiting):
            if keep(order_id):
                outcome = client.status(order_id)
                assert isinstance(outcome, Done)
                ledger.apply_status(order_id, outcome.value, source="webhook")
        return len(waiting)

    def behave(self, behaviour: str) -> None:
        """How charges of all saved cards end from now on: "accept", "51", "14", …"""
        for card in self.sandbox.cards.values():
            card.behaviour = behaviour

    def count(self, call: str) -> int:
        return sum(name == call for name, _order in self.calls)

    # --- The API ------------------------------------------------------------------------------------------------------

    def take(self, call: str) -> bool | None:
        """None: nothing is wrong with this call; else whether it is carried out although its answer is lost."""
        for number, (name, done) in enumerate(self._faults):
            if name == call:
                del self._faults[number]
                self.lost += 1
                return done
        return None


class TwinClient:
    """The interface of ``MidtransClient``."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Holds nothing."""

    def create_page(self, order: PageOrder) -> Outcome[PaymentPage]:
        body = order.body()

        def act() -> dict[str, Any]:
            page = self._twin.sandbox.open_page(body, ())
            self._twin.pages[order.order_id] = body
            return {"token": page.token, "redirect_url": self._twin.sandbox.page_url(page)}

        return self._call(
            "snap", order.order_id, act, lambda data: PaymentPage(data["token"], data["redirect_url"]), is_snap=True
        )

    def charge_card(
        self, *, order_id: str, amount: int, saved_token: str, idempotency_key: str,
        items: tuple[Item, ...] = (), customer: Customer | None = None,
    ) -> Outcome[TransactionStatus]:  # fmt: skip
        bodies.idempotency_header(idempotency_key)
        return self._charge(bodies.card_charge(order_id, amount, saved_token, items, customer), order_id)

    def charge_gopay(
        self, *, order_id: str, amount: int, account_id: str, wallet_token: str, idempotency_key: str,
        items: tuple[Item, ...] = (), customer: Customer | None = None,
    ) -> Outcome[TransactionStatus]:  # fmt: skip
        bodies.idempotency_header(idempotency_key)
        return self._charge(bodies.gopay_charge(order_id, amount, account_id, wallet_token, items, customer), order_id)

    def status(self, order_id: str) -> Outcome[TransactionStatus]:
        return self._call("status", order_id, lambda: self._body(order_id), parse_transaction)

    def cancel(self, order_id: str) -> Outcome[TransactionStatus]:
        return self._call("cancel", order_id, lambda: self._acted(order_id, "cancel"), parse_transaction)

    def expire(self, order_id: str) -> Outcome[TransactionStatus]:
        return self._call("expire", order_id, lambda: self._acted(order_id, "expire"), parse_transaction)

    def refund(self, order_id: str, *, refund_key: str, amount: int, reason: str) -> Outcome[TransactionStatus]:
        body = bodies.refund_body(refund_key, amount, reason)

        def act() -> dict[str, Any]:
            self._twin.sandbox.refund(self._twin.sandbox.find(order_id), body)
            return self._body(order_id)

        return self._call("refund", order_id, act, parse_transaction)

    refund_direct = refund

    def gopay_account(self, account_id: str) -> Outcome[AccountStatus]:
        def act() -> dict[str, Any]:
            account = self._twin.sandbox.account(account_id)
            wallet = {"name": "GOPAY_WALLET", "active": True, "token": account.wallet_token}
            return {
                "status_code": "200", "payment_type": "gopay", "account_id": account_id,
                "account_status": account.status, "metadata": {"payment_options": [wallet]},
            }  # fmt: skip

        return self._call("account", account_id, act, parse_account)

    def unlink_gopay(self, account_id: str) -> Outcome[AccountStatus]:
        self._twin.sandbox.change_account(self._twin.sandbox.account(account_id), "DISABLED")
        return self.gopay_account(account_id)

    def _charge(self, body: dict[str, Any], order_id: str) -> Outcome[TransactionStatus]:
        def act() -> dict[str, Any]:
            self._twin.sandbox.charge(body, ())
            return self._body(order_id)

        return self._call("charge", order_id, act, parse_transaction)

    def _body(self, reference: str) -> dict[str, Any]:
        return self._twin.sandbox.find(reference).body("key", message="told", expire_code="407")

    def _acted(self, order_id: str, action: str) -> dict[str, Any]:
        self._twin.sandbox.act(self._twin.sandbox.find(order_id), action)
        return self._body(order_id)

    def _call(
        self, name: str, order_id: str, act: Callable[[], Mapping[str, Any]], parse: Callable[[Mapping[str, Any]], T],
        *, is_snap: bool = False,
    ) -> Outcome[T]:  # fmt: skip
        self._twin.calls.append((name, order_id))
        if self._twin.refusal:
            return refusal_of(self._twin.refusal, "refused by the test")
        done = self._twin.take(name)
        if done is False:
            return Unknown(Doubt.TIMEOUT)
        try:
            answer = act()
        except ApiError as error:
            # Snap's errors have no code but HTTP's.
            return refusal_of("400" if is_snap else error.code, error.message)
        return Done(parse(answer)) if done is None else Unknown(Doubt.TIMEOUT)


def install(monkeypatch: pytest.MonkeyPatch) -> Twin:
    """From now on billing asks the twin."""
    twin = Twin()

    def now() -> datetime:
        return clock.now().astimezone(JAKARTA).replace(microsecond=0)

    for module in (state, transaction):
        monkeypatch.setattr(module, "now", now)
    monkeypatch.setattr(MidtransClient, "from_settings", classmethod(lambda _cls: TwinClient(twin)))
    return twin
