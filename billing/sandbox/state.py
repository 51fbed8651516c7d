"""Everything the stand-in for Midtrans knows, in memory. Room: billing (sandbox).

Used on one event loop. What Midtrans would refuse raises ApiError with its documented code.
"""

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from billing.midtrans.signature import ORDER_ID, account_signature
from billing.sandbox.faults import Faults
from billing.sandbox.methods import BANK_ANSWERS, PAGE_METHODS, TEST_CARDS, ApiError, life_of, method_fields
from billing.sandbox.notifier import Notifier
from billing.sandbox.transaction import MERCHANT_ID, Impossible, Transaction, now, written

_LOG_LIMIT = 1_000
# Answered calls are remembered by their idempotency key for this long, as at Midtrans.
_IDEMPOTENCY_LIFE = timedelta(minutes=5)


@dataclass(slots=True)
class Page:
    """A Snap page: its customer has not chosen a method until ``transaction_id`` is set."""

    token: str
    order_id: str
    amount: int
    lives: timedelta
    finish_url: str
    # Keeps card and wallet of this payer.
    payer_id: str
    urls: tuple[str, ...]
    created_at: datetime = field(default_factory=now)
    transaction_id: str = ""


@dataclass(slots=True)
class Card:
    token: str
    masked: str
    # accept, challenge, deny, or the code of a bank that refuses.
    behaviour: str = "accept"
    # For one charge only.
    is_single: bool = False


@dataclass(slots=True)
class Account:
    account_id: str
    status: str = "PENDING"
    wallet_token: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(slots=True)
class Call:
    at: str
    method: str
    path: str
    call: str
    order_id: str
    idempotency_key: str
    answer: int = 0
    fault: str = ""


@dataclass(slots=True)
class Remembered:
    """The answer to a call with an idempotency key; None while it runs."""

    at: datetime
    answer: tuple[int, dict[str, Any]] | None = None


class Sandbox:
    """``address`` is the stand-in's own, as browsers reach it."""

    def __init__(self, *, server_key: str, notification_url: str, address: str, time_factor: float) -> None:
        self.server_key = server_key
        self.address = address
        self.faults = Faults()
        self.notifier = Notifier(url=notification_url, key=server_key, faults=self.faults, time_factor=time_factor)
        self.reset()

    def reset(self) -> None:
        """As just started."""
        self.faults.clear()
        self.notifier.stop()
        self.pages: dict[str, Page] = {}
        self.transactions: dict[str, Transaction] = {}
        self.cards: dict[str, Card] = {}
        self.accounts: dict[str, Account] = {}
        self.calls: list[Call] = []
        self.remembered: dict[str, Remembered] = {}

    # --- Finding ------------------------------------------------------------------------------------------------------

    def find(self, reference: str) -> Transaction:
        """By transaction id or order id, the latest one. Raises ApiError 404."""
        if reference in self.transactions:
            return self.transactions[reference]
        for transaction in reversed(self.transactions.values()):
            if transaction.order_id == reference:
                return transaction
        raise ApiError("404", "Transaction doesn't exist.")

    def page(self, token: str) -> Page:
        page = self.pages.get(token)
        if page is None or (not page.transaction_id and now() > page.created_at + page.lives):
            raise ApiError("404", "This payment page is unknown or has expired: ask the shop for a new one")
        return page

    def account(self, account_id: str) -> Account:
        if account_id not in self.accounts:
            raise ApiError("404", "Account doesn't exist.")
        return self.accounts[account_id]

    def log_call(self, call: Call) -> None:
        self.calls.append(call)
        del self.calls[:-_LOG_LIMIT]

    def recall(self, key: str) -> Remembered | None:
        """What a call with this key came to, while it is remembered."""
        entry = self.remembered.get(key)
        return entry if entry is not None and now() - entry.at <= _IDEMPOTENCY_LIFE else None

    # --- Payments -----------------------------------------------------------------------------------------------------

    def open_page(self, data: Mapping[str, Any], urls: tuple[str, ...]) -> Page:
        order_id, amount = self._order(data)
        expiry = data.get("page_expiry") or data.get("expiry") or {}
        unit = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}.get(str(expiry.get("unit", "day")).rstrip("s"))
        if unit is None:
            raise ApiError("400", "expiry.unit is not valid")
        for token, old in list(self.pages.items()):
            if old.order_id == order_id:
                del self.pages[token]
        payer = str(data.get("user_id") or "") if _keeps(data) else ""
        page = Page(
            token=str(uuid.uuid4()),
            order_id=order_id,
            amount=amount,
            lives=timedelta(seconds=unit * int(expiry.get("duration", 1))),
            finish_url=str((data.get("callbacks") or {}).get("finish") or ""),
            payer_id=payer,
            urls=urls,
        )
        self.pages[page.token] = page
        return page

    def choose(self, page: Page, method: str) -> Transaction:
        """The customer picks a method: card, bank_transfer, gopay or qris."""
        if page.transaction_id:
            return self.transactions[page.transaction_id]
        transaction = self._new(page.order_id, page.amount, PAGE_METHODS[method], {"bank": "bca"}, page.urls)
        transaction.lives = page.lives
        page.transaction_id = transaction.transaction_id
        if page.payer_id and method == "card":
            card = self.save_card("4811111111111114")
            transaction.extra |= {
                "saved_token_id": card.token,
                "saved_token_id_expired_at": written(now() + timedelta(days=365 * 3)),
            }
        if page.payer_id and method == "gopay":
            account = self.link(enabled=True)
            extra = {"user_id": page.payer_id, "account_id": account.account_id}
            transaction.extra["metadata"] = {"extra_info": extra}
        self.notifier.announce(transaction)
        return transaction

    def charge(self, data: Mapping[str, Any], urls: tuple[str, ...]) -> Transaction:
        order_id, amount = self._order(data)
        kind = data.get("payment_type")
        details = data.get(str(kind)) or {}
        if kind == "credit_card":
            return self._charge_card(order_id, amount, details, urls)
        if kind == "gopay" and details.get("account_id"):
            account = self.accounts.get(str(details["account_id"]))
            if account is None or account.status != "ENABLED":
                raise ApiError("411", "Account is not linked")
            if details.get("payment_option_token") != account.wallet_token:
                raise ApiError("411", "Token id is missing, invalid, or timed out")
            transaction = self._new(order_id, amount, "gopay", {}, urls)
            transaction.extra["metadata"] = {"extra_info": {"account_id": account.account_id}}
            transaction.act("pay")
        elif kind in ("bank_transfer", "echannel", "gopay", "qris"):
            transaction = self._new(order_id, amount, str(kind), details, urls)
        else:
            raise ApiError("400", "payment_type is not valid")
        self.notifier.announce(transaction)
        return transaction

    def act(self, transaction: Transaction, action: str) -> None:
        """What a customer, a bank or the merchant does; tells it. Raises ApiError 412."""
        try:
            transaction.act(action)
        except Impossible as error:
            raise ApiError(error.code, error.message) from None
        self._tell(transaction)

    def refund(self, transaction: Transaction, data: Mapping[str, Any]) -> dict[str, Any]:
        amount = data.get("amount", transaction.amount - transaction.refunded)
        if isinstance(amount, bool) or not isinstance(amount, int):
            raise ApiError("400", "amount is not a whole number")
        before = len(transaction.refunds)
        try:
            refund = transaction.refund(
                amount, str(data.get("refund_key") or uuid.uuid4()), str(data.get("reason") or "")
            )
        except Impossible as error:
            raise ApiError(error.code, error.message) from None
        if len(transaction.refunds) > before:
            self._tell(transaction)
        return refund

    def sweep(self) -> None:
        """Ends what nobody has paid in time."""
        moment = now()
        for transaction in list(self.transactions.values()):
            if transaction.status == "pending" and moment > transaction.expires_at:
                self.act(transaction, "expire")

    # --- What is kept for renewals ------------------------------------------------------------------------------------

    def save_card(self, number: str, *, is_single: bool = False) -> Card:
        if not (number.isascii() and number.isdigit() and 12 <= len(number) <= 19):
            raise ApiError("400", "card_number is not valid")
        token = f"{number[:8]}{secrets.token_hex(10)}{number[-4:]}"
        card = Card(token, f"{number[:8]}-{number[-4:]}", TEST_CARDS.get(number, "accept"), is_single)
        self.cards[token] = card
        return card

    def link(self, *, enabled: bool) -> Account:
        account = Account(str(uuid.uuid4()), "ENABLED" if enabled else "PENDING")
        self.accounts[account.account_id] = account
        return account

    def change_account(self, account: Account, status: str) -> None:
        """The customer agrees to the link or ends it; tells it."""
        account.status = status
        code = {"ENABLED": "200", "DISABLED": "204"}.get(status, "202")
        self.notifier.announce_account(
            {
                "account_id": account.account_id,
                "merchant_id": MERCHANT_ID,
                "payment_type": "gopay",
                "signature_key": account_signature(account.account_id, status, code, self.server_key),
                "status_code": code,
                "account_status": status,
                "status_message": "Midtrans account notification",
            }
        )

    def listed(self) -> dict[str, Any]:
        """What happened, for tests."""
        transactions = [
            {
                "order_id": transaction.order_id,
                "transaction_id": transaction.transaction_id,
                "payment_type": transaction.payment_type,
                "amount": transaction.amount,
                "state": transaction.state,
                "history": transaction.history,
                "refunded": transaction.refunded,
                "possible": transaction.possible(),
            }
            for transaction in self.transactions.values()
        ]
        return {
            "transactions": transactions,
            "pages": [{"order_id": page.order_id, "url": self.page_url(page)} for page in self.pages.values()],
            "calls": [asdict(call) for call in self.calls],
            "notifications": self.notifier.listed(),
        }

    def page_url(self, page: Page) -> str:
        return f"{self.address}/snap/v4/redirection/{page.token}"

    def _tell(self, transaction: Transaction) -> None:
        self.notifier.announce(transaction)
        if transaction.status in ("refund", "partial_refund"):

            def confirm() -> None:
                # A second notification is the bank's confirmation.
                if transaction.confirm_refunds():
                    self.notifier.announce(transaction)

            self.notifier.later(1.0, confirm)

    def _order(self, data: Mapping[str, Any]) -> tuple[str, int]:
        details = data.get("transaction_details")
        if not isinstance(details, Mapping):
            raise ApiError("400", "transaction_details is required")
        order_id, amount = details.get("order_id"), details.get("gross_amount")
        if not isinstance(order_id, str) or not ORDER_ID.fullmatch(order_id):
            raise ApiError("400", "transaction_details.order_id is not valid")
        if isinstance(amount, bool) or not isinstance(amount, int) or amount < 1:
            raise ApiError("400", "transaction_details.gross_amount is not a whole number above 0")
        items = data.get("item_details")
        if items and sum(item["price"] * item["quantity"] for item in items) != amount:
            raise ApiError("400", "transaction_details.gross_amount is not equal to the sum of item_details")
        if any(t.order_id == order_id and t.status != "cancel" for t in self.transactions.values()):
            raise ApiError("406", "transaction_details.order_id has already been taken")
        return order_id, amount

    def _charge_card(
        self, order_id: str, amount: int, details: Mapping[str, Any], urls: tuple[str, ...]
    ) -> Transaction:
        card = self.cards.get(str(details.get("token_id")))
        if card is None:
            raise ApiError("411", "Token id is missing, invalid, or timed out")
        if card.is_single:
            del self.cards[card.token]
        transaction = self._new(order_id, amount, "credit_card", {}, urls)
        transaction.extra |= {"masked_card": card.masked}
        if details.get("save_token_id"):
            kept = self.save_card(card.masked.replace("-", "0000"))
            transaction.extra["saved_token_id"] = kept.token
        if card.behaviour == "accept":
            transaction.act("pay")
        elif card.behaviour in ("challenge", "deny"):
            transaction.act(card.behaviour)
        else:
            transaction.decline(card.behaviour, BANK_ANSWERS.get(card.behaviour, "Refused by the bank"))
        self.notifier.announce(transaction)
        return transaction

    def _new(
        self, order_id: str, amount: int, kind: str, details: Mapping[str, Any], urls: tuple[str, ...]
    ) -> Transaction:
        transaction = Transaction(order_id, amount, kind, life_of(kind), method_fields(kind, details), urls)
        self.transactions[transaction.transaction_id] = transaction
        return transaction


def _keeps(data: Mapping[str, Any]) -> bool:
    card, gopay = data.get("credit_card") or {}, data.get("gopay") or {}
    return bool(card.get("save_card") or gopay.get("tokenization"))
