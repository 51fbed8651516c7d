"""One payment at the stand-in: what may become of it, and how it is told. Room: billing (sandbox). No IO."""

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from billing.midtrans.signature import notification_signature
from billing.periods import JAKARTA

MERCHANT_ID = "G000000001"
_CODES = {"pending": "201", "deny": "202", "failure": "202", "expire": "202"}
# Action: the states it is possible in, and the state after. "challenge" is a capture that waits for a decision; None:
# depends on the method.
ACTIONS: dict[str, tuple[frozenset[str], str | None]] = {
    "pay": (frozenset({"pending"}), None),
    "deny": (frozenset({"pending", "challenge"}), "deny"),
    "failure": (frozenset({"pending"}), "failure"),
    "challenge": (frozenset({"pending"}), "challenge"),
    "approve": (frozenset({"challenge"}), "capture"),
    "settle": (frozenset({"capture"}), "settlement"),
    "expire": (frozenset({"pending"}), "expire"),
    "cancel": (frozenset({"pending", "capture", "challenge"}), "cancel"),
    "refund": (frozenset({"settlement", "partial_refund"}), "refund"),
    "partial_refund": (frozenset({"settlement", "partial_refund"}), "partial_refund"),
    "chargeback": (frozenset({"settlement", "partial_refund", "partial_chargeback"}), "chargeback"),
    "partial_chargeback": (frozenset({"settlement", "partial_refund"}), "partial_chargeback"),
    # Within minutes of a settlement, for banks that know it.
    "reverse": (frozenset({"settlement"}), "deny"),
}
REFUNDABLE = frozenset({"credit_card", "gopay", "qris"})


class Impossible(Exception):
    """The state of the transaction does not allow it, as Midtrans' own code says: 412 or 414."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def now() -> datetime:
    return datetime.now(JAKARTA).replace(microsecond=0)


def written(moment: datetime) -> str:
    """As Midtrans writes times: Asia/Jakarta, without saying so."""
    return moment.astimezone(JAKARTA).strftime("%Y-%m-%d %H:%M:%S")


@dataclass(slots=True)
class Transaction:
    order_id: str
    amount: int
    payment_type: str
    lives: timedelta
    # Fields of the method, as they stand in bodies.
    extra: dict[str, Any] = field(default_factory=dict)
    # Where it is told; empty: the stand-in's own address.
    urls: tuple[str, ...] = ()
    transaction_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "pending"
    fraud_status: str = "accept"
    created_at: datetime = field(default_factory=now)
    settled_at: datetime | None = None
    refunds: list[dict[str, Any]] = field(default_factory=list)
    history: list[str] = field(default_factory=lambda: ["pending"])

    @property
    def state(self) -> str:
        return "challenge" if (self.status, self.fraud_status) == ("capture", "challenge") else self.status

    @property
    def expires_at(self) -> datetime:
        return self.created_at + self.lives

    @property
    def refunded(self) -> int:
        return sum(int(refund["refund_amount"].split(".")[0]) for refund in self.refunds)

    def possible(self) -> list[str]:
        """The actions that ``act`` would take now."""
        return [
            action
            for action, (states, _after) in ACTIONS.items()
            if self.state in states
            and (action != "challenge" or self.payment_type == "credit_card")
            and (action != "partial_refund" or self.amount - self.refunded > 1)
        ]

    def act(self, action: str) -> None:
        """Raises Impossible (412) when the state does not allow it; KeyError for an unknown action."""
        _states, after = ACTIONS[action]
        if action not in self.possible():
            raise Impossible("412", "Merchant cannot modify the status of the transaction")
        if action in ("refund", "chargeback"):
            self._take_back(self.amount - self.refunded, action, f"sandbox-{action}-{len(self.refunds) + 1}")
        elif action in ("partial_refund", "partial_chargeback"):
            part = max(1, (self.amount - self.refunded) // 4)
            self._take_back(part, action, f"sandbox-{action}-{len(self.refunds) + 1}")
        self._become(after or ("capture" if self.payment_type == "credit_card" else "settlement"))

    def refund(self, amount: int, refund_key: str, reason: str) -> dict[str, Any]:
        """The refund; the same key gives the same one again. Raises Impossible."""
        for refund in self.refunds:
            if refund["refund_key"] == refund_key:
                return refund
        if self.payment_type not in REFUNDABLE or self.state not in ACTIONS["refund"][0]:
            raise Impossible("412", "Merchant cannot modify the status of the transaction")
        left = self.amount - self.refunded
        if not 0 < amount <= left:
            raise Impossible("414", "Refund amount is more than what is left of the transaction")
        refund = self._take_back(amount, reason, refund_key)
        self._become("refund" if amount == left else "partial_refund")
        return refund

    def confirm_refunds(self) -> bool:
        """The bank has done what was asked; whether that is news."""
        fresh = [refund for refund in self.refunds if "bank_confirmed_at" not in refund]
        for refund in fresh:
            refund["bank_confirmed_at"] = written(now())
        return bool(fresh)

    def decline(self, bank_code: str, message: str) -> None:
        """Denied by the bank at once."""
        self.extra |= {"channel_response_code": bank_code, "channel_response_message": message}
        self._become("deny")

    def body(self, key: str, *, message: str, expire_code: str = "202", amount: int | None = None) -> dict[str, Any]:
        """The documented fields, signed with ``key``; ``amount`` lies about it."""
        code = {"challenge": "201", "expire": expire_code}.get(self.state) or _CODES.get(self.status, "200")
        gross = f"{self.amount if amount is None else amount}.00"
        body: dict[str, Any] = {
            "transaction_time": written(self.created_at),
            "transaction_status": self.status,
            "transaction_id": self.transaction_id,
            "status_message": message,
            "status_code": code,
            "signature_key": notification_signature(self.order_id, code, gross, key),
            "payment_type": self.payment_type,
            "order_id": self.order_id,
            "merchant_id": MERCHANT_ID,
            "gross_amount": gross,
            "fraud_status": self.fraud_status,
            "currency": "IDR",
            **self.extra,
        }
        if self.status == "pending":
            body["expiry_time"] = written(self.expires_at)
        if self.settled_at is not None:
            body["settlement_time"] = written(self.settled_at)
        if self.refunds:
            body["refund_amount"] = f"{self.refunded}.00"
            body["refunds"] = [dict(refund) for refund in self.refunds]
        return body

    def _become(self, state: str) -> None:
        self.status = "capture" if state == "challenge" else state
        self.fraud_status = "challenge" if state == "challenge" else "accept"
        if state == "settlement":
            self.settled_at = now()
        self.history.append(state)

    def _take_back(self, amount: int, reason: str, refund_key: str) -> dict[str, Any]:
        refund: dict[str, Any] = {
            "refund_chargeback_id": len(self.refunds) + 1,
            "refund_amount": f"{amount}.00",
            "created_at": written(now()),
            "reason": reason,
            "refund_key": refund_key,
            "refund_method": "online",
        }
        self.refunds.append(refund)
        return refund
