"""What is asked of Midtrans. Room: billing (midtrans). Pure: builds and checks request bodies.

Amounts are whole rupiah. Everything raises ValueError that Midtrans would refuse anyway: such a request is a mistake of
ours, not an answer about money.
"""

from dataclasses import dataclass, field
from typing import Any

from billing.midtrans.signature import ORDER_ID

# Methods on the payment page; what an account of Midtrans has not enabled it leaves out.
PAGE_METHODS = ("credit_card", "bca_va", "bni_va", "bri_va", "permata_va", "echannel", "gopay", "other_qris")
_NAME_LIMIT = 50
IDEMPOTENCY_KEY_LIMIT = 46


@dataclass(frozen=True, slots=True)
class Item:
    """A line of the bill; a discount has a negative price."""

    name: str
    price: int
    quantity: int = 1


@dataclass(frozen=True, slots=True)
class Customer:
    name: str
    email: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class PageOrder:
    """One payment page. ``amount`` is the sum of the items where there are any."""

    order_id: str
    amount: int
    items: tuple[Item, ...] = ()
    customer: Customer | None = None
    methods: tuple[str, ...] = PAGE_METHODS
    # Seconds until the page and what was chosen on it expire; 20 s to 7 days.
    expires_in: int = 86_400
    # Where the customer goes afterwards. Says nothing about the payment.
    finish_url: str = ""
    # Ours of the payer: keeps card and wallet for renewals under it. Empty: nothing is kept.
    payer_id: str = ""

    def body(self) -> dict[str, Any]:
        if not 20 <= self.expires_in <= 7 * 86_400:
            raise ValueError("a payment page lives 20 seconds to 7 days")
        keeps = bool(self.payer_id)
        body: dict[str, Any] = {
            "transaction_details": order_details(self.order_id, self.amount),
            "enabled_payments": [*self.methods],
            # Not secure by default.
            "credit_card": {"secure": True, "save_card": keeps},
            "gopay": {"tokenization": keeps},
            "expiry": {"unit": "minute", "duration": max(1, self.expires_in // 60)},
            "page_expiry": {"unit": "minute", "duration": max(1, self.expires_in // 60)},
        }
        if keeps:
            body["user_id"] = self.payer_id
        if self.finish_url:
            body["callbacks"] = {"finish": self.finish_url}
        return body | _extras(self.amount, self.items, self.customer)


def order_details(order_id: str, amount: int) -> dict[str, Any]:
    check_order_id(order_id)
    if isinstance(amount, bool) or not 0 < amount < 10**12:
        raise ValueError("an amount is at least one rupiah and below 10^12")
    return {"order_id": order_id, "gross_amount": amount}


def card_charge(
    order_id: str, amount: int, saved_token: str, items: tuple[Item, ...] = (), customer: Customer | None = None
) -> dict[str, Any]:
    """A renewal on a saved card, started by us."""
    if not saved_token:
        raise ValueError("a saved token is needed")
    return {
        "payment_type": "credit_card",
        "transaction_details": order_details(order_id, amount),
        "credit_card": {"token_id": saved_token, "initiated_by": "merchant"},
    } | _extras(amount, items, customer)


def gopay_charge(
    order_id: str,
    amount: int,
    account_id: str,
    wallet_token: str,
    items: tuple[Item, ...] = (),
    customer: Customer | None = None,
) -> dict[str, Any]:
    """A renewal from a linked GoPay account."""
    if not account_id or not wallet_token:
        raise ValueError("a linked account and its token are needed")
    return {
        "payment_type": "gopay",
        "transaction_details": order_details(order_id, amount),
        "gopay": {"account_id": account_id, "payment_option_token": wallet_token},
    } | _extras(amount, items, customer)


def refund_body(refund_key: str, amount: int, reason: str) -> dict[str, Any]:
    """The same key again is the same refund, for seven days."""
    check_order_id(refund_key)
    if amount <= 0:
        raise ValueError("a refund is at least one rupiah")
    return {"refund_key": refund_key, "amount": amount, "reason": reason[:255]}


def check_order_id(order_id: str) -> None:
    """Also what goes into a path."""
    if not ORDER_ID.fullmatch(order_id):
        raise ValueError("an id has 1 to 50 letters, digits and - _ ~ . and begins with a letter or digit")


def idempotency_header(key: str) -> dict[str, str]:
    """A dictionary of its own for every call: the client library would share it otherwise."""
    if not 0 < len(key) <= IDEMPOTENCY_KEY_LIMIT or not key.isascii() or not key.isprintable():
        raise ValueError(f"an idempotency key has 1 to {IDEMPOTENCY_KEY_LIMIT} printable characters")
    return {"Idempotency-Key": key}


def _extras(amount: int, items: tuple[Item, ...], customer: Customer | None) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if items:
        if sum(item.price * item.quantity for item in items) != amount:
            raise ValueError("the items do not add up to the amount")
        extras["item_details"] = [
            {"name": item.name[:_NAME_LIMIT], "price": item.price, "quantity": item.quantity} for item in items
        ]
    if customer is not None:
        details = {"first_name": customer.name[:_NAME_LIMIT], "email": customer.email}
        extras["customer_details"] = {name: value for name, value in details.items() if value}
    return extras
