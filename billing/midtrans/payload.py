"""What Midtrans' bodies say. Room: billing (midtrans).

Pure. Strict about the fields we act on, tolerant of everything else: fields that are unknown are ignored, as Midtrans
asks. Tokens and signatures are in no repr and no error.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from billing.midtrans.signature import ORDER_ID
from billing.money import AmountError, parse_amount
from billing.periods import JAKARTA

BODY_SIZE_LIMIT = 65_536
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_STATUS_CODE = re.compile(r"[0-9]{3}")
_WORD = re.compile(r"[A-Za-z_]{1,32}")
_TEXT_LIMIT = 255
# Fields that let their holder charge somebody, or forge.
_SECRET_FIELDS = frozenset(
    {"saved_token_id", "token_id", "token", "payment_option_token", "signature_key", "redirect_token", "card_token"}
)


class PayloadError(ValueError):
    """A body that is not what Midtrans documents; ``field`` names where, the value is never repeated."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class Kind(Enum):
    TRANSACTION = "transaction"
    # A GoPay account was linked or unlinked.
    ACCOUNT = "account"
    # Of the Subscription API: carries no signature, so it can be no more than a reason to ask.
    SUBSCRIPTION = "subscription"


@dataclass(frozen=True, slots=True)
class Refund:
    """One refund or chargeback of a transaction; amounts in rupiah."""

    chargeback_id: int
    amount: int
    refund_key: str
    reason: str
    # The bank has confirmed it: the second of the two notifications.
    is_confirmed: bool


@dataclass(frozen=True, slots=True)
class TransactionStatus:
    """A transaction as a notification, an answer of the API or ``GET status`` tells it. Times are aware datetimes."""

    order_id: str
    transaction_id: str
    # Lower case, as are payment_type and fraud_status.
    transaction_status: str
    status_code: str
    payment_type: str
    # Rupiah, and the text as it stands in the body: the signature is over that.
    gross_amount: int
    gross_amount_text: str = field(repr=False)
    # None: not evaluated.
    fraud_status: str | None = None
    currency: str = "IDR"
    merchant_id: str = ""
    signature_key: str = field(default="", repr=False)
    transaction_time: datetime | None = None
    settlement_time: datetime | None = None
    expiry_time: datetime | None = None
    # "48111111-1114", as Midtrans masks it.
    masked_card: str = ""
    bank: str = ""
    channel_response_code: str = ""
    channel_response_message: str = ""
    # Charges the card again without its owner.
    saved_token: str = field(default="", repr=False)
    saved_token_expires_at: datetime | None = None
    # The linked GoPay account, where one paid.
    account_id: str = ""
    # Rupiah, all refunds so far together.
    refund_amount: int = 0
    refunds: tuple[Refund, ...] = ()
    # Where the customer goes on (3DS, the GoPay application), as name and URL.
    actions: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def event_key(self) -> str:
        """Equal for two notifications of the same event; Midtrans gives events no id."""
        last = max((refund.chargeback_id for refund in self.refunds), default=0)
        confirmed = any(refund.is_confirmed for refund in self.refunds if refund.chargeback_id == last)
        parts = (
            self.transaction_id.lower(),
            self.transaction_status,
            self.status_code,
            self.fraud_status or "",
            str(last),
            str(int(confirmed)),
        )
        return "|".join(parts)


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """A linked GoPay account. ``status`` is PENDING, ENABLED, DISABLED or EXPIRED."""

    account_id: str
    status: str
    status_code: str
    payment_type: str = "gopay"
    signature_key: str = field(default="", repr=False)
    # Where the customer agrees to the link, while PENDING.
    activation_url: str = ""
    # Charges the wallet; only while ENABLED.
    wallet_token: str = field(default="", repr=False)


def decode(body: bytes) -> dict[str, Any]:
    """The object in a body as received. Raises PayloadError("body")."""
    if len(body) > BODY_SIZE_LIMIT:
        raise PayloadError("body", f"is larger than {BODY_SIZE_LIMIT} bytes")
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise PayloadError("body", "is not JSON") from None
    if not isinstance(data, dict):
        raise PayloadError("body", "is not a JSON object")
    return data


def kind_of(data: Mapping[str, Any]) -> Kind:
    """Raises PayloadError when it is none of the bodies that Midtrans sends."""
    if "transaction_status" in data and "order_id" in data:
        return Kind.TRANSACTION
    if "account_id" in data and "account_status" in data:
        return Kind.ACCOUNT
    if "subscription" in data or "schedule" in data:
        return Kind.SUBSCRIPTION
    raise PayloadError("body", "is no notification of Midtrans")


def parse_transaction(data: Mapping[str, Any]) -> TransactionStatus:
    """Raises PayloadError, naming the field that is missing or not as documented."""
    amount_text = _text(data, "gross_amount")
    currency = _optional_text(data, "currency") or "IDR"
    if currency != "IDR":
        raise PayloadError("currency", "only IDR is dealt with")
    return TransactionStatus(
        order_id=_matching(data, "order_id", ORDER_ID),
        transaction_id=_matching(data, "transaction_id", _UUID),
        transaction_status=_matching(data, "transaction_status", _WORD).lower(),
        status_code=_matching(data, "status_code", _STATUS_CODE),
        payment_type=_matching(data, "payment_type", _WORD).lower(),
        gross_amount=_amount(amount_text, "gross_amount"),
        gross_amount_text=amount_text,
        fraud_status=_optional_text(data, "fraud_status").lower() or None,
        currency=currency,
        merchant_id=_optional_text(data, "merchant_id"),
        signature_key=_optional_text(data, "signature_key"),
        transaction_time=_moment(data, "transaction_time"),
        settlement_time=_moment(data, "settlement_time"),
        expiry_time=_moment(data, "expiry_time"),
        masked_card=_shown(data, "masked_card"),
        bank=_bank(data),
        channel_response_code=_optional_text(data, "channel_response_code"),
        channel_response_message=_shown(data, "channel_response_message"),
        saved_token=_optional_text(data, "saved_token_id"),
        saved_token_expires_at=_moment(data, "saved_token_id_expired_at"),
        account_id=_account_of(data),
        refund_amount=_optional_amount(data, "refund_amount"),
        refunds=_refunds(data),
        actions=_actions(data),
    )


def parse_account(data: Mapping[str, Any]) -> AccountStatus:
    """Raises PayloadError, naming the field."""
    options = _objects(_object(data, "metadata"), "payment_options")
    wallet = next((option for option in options if option.get("name") == "GOPAY_WALLET"), {})
    urls = dict(_actions(data))
    return AccountStatus(
        account_id=_text(data, "account_id"),
        status=_matching(data, "account_status", _WORD).upper(),
        status_code=_matching(data, "status_code", _STATUS_CODE),
        payment_type=_optional_text(data, "payment_type") or "gopay",
        signature_key=_optional_text(data, "signature_key"),
        activation_url=urls.get("activation-link-url", "") or urls.get("activation-deeplink", ""),
        wallet_token=_optional_text(wallet, "token"),
    )


def masked(data: Any) -> Any:
    """A copy of a body that may be kept and shown: what charges or signs is replaced, at any depth."""
    if isinstance(data, Mapping):
        return {key: _mask(value) if key in _SECRET_FIELDS else masked(value) for key, value in data.items()}
    if isinstance(data, list):
        return [masked(item) for item in data]
    return data


def _mask(value: Any) -> str:
    # The end tells two tokens apart and is of no use to anybody.
    return f"…{value[-4:]}" if isinstance(value, str) and len(value) >= 16 else "…"


def _text(data: Mapping[str, Any], name: str) -> str:
    if data.get(name) is None:
        raise PayloadError(name, "is missing")
    value = data[name]
    if not isinstance(value, str):
        raise PayloadError(name, "must be a string")
    if not 0 < len(value) <= _TEXT_LIMIT or not value.isprintable():
        raise PayloadError(name, f"must have 1 to {_TEXT_LIMIT} printable characters")
    return value


def _optional_text(data: Mapping[str, Any], name: str) -> str:
    return _text(data, name) if data.get(name) not in (None, "") else ""


def _shown(data: Mapping[str, Any], name: str) -> str:
    """Text that is only shown: never a reason to refuse a payment."""
    value = data.get(name)
    if not isinstance(value, str):
        return ""
    return "".join(char if char.isprintable() else " " for char in value[:_TEXT_LIMIT])


def _matching(data: Mapping[str, Any], name: str, form: re.Pattern[str]) -> str:
    value = _text(data, name)
    if not form.fullmatch(value):
        raise PayloadError(name, "does not have the documented form")
    return value


def _amount(text: str, name: str) -> int:
    try:
        return parse_amount(text)
    except AmountError as error:
        raise PayloadError(name, str(error)) from None


def _optional_amount(data: Mapping[str, Any], name: str) -> int:
    text = _optional_text(data, name)
    return _amount(text, name) if text else 0


def _moment(data: Mapping[str, Any], name: str) -> datetime | None:
    text = _optional_text(data, name)
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=JAKARTA)
    except ValueError:
        raise PayloadError(name, 'is not a time as "2026-11-23 10:00:00"') from None


def _object(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    return value if isinstance(value, Mapping) else {}


def _objects(data: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = data.get(name)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _bank(data: Mapping[str, Any]) -> str:
    if bank := _shown(data, "bank"):
        return bank
    if data.get("permata_va_number"):
        return "permata"
    numbers = _objects(data, "va_numbers")
    return _shown(numbers[0], "bank") if numbers else ""


def _account_of(data: Mapping[str, Any]) -> str:
    return _optional_text(_object(_object(data, "metadata"), "extra_info"), "account_id")


def _refunds(data: Mapping[str, Any]) -> tuple[Refund, ...]:
    refunds = []
    for item in _objects(data, "refunds"):
        number = item.get("refund_chargeback_id")
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise PayloadError("refund_chargeback_id", "must be a whole number")
        refunds.append(
            Refund(
                chargeback_id=number,
                amount=_amount(_text(item, "refund_amount"), "refund_amount"),
                refund_key=_optional_text(item, "refund_key"),
                reason=_shown(item, "reason"),
                is_confirmed=bool(item.get("bank_confirmed_at")),
            )
        )
    return tuple(refunds)


def _actions(data: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    found = [(item.get("name"), item.get("url")) for item in _objects(data, "actions")]
    actions = [(name, url) for name, url in found if isinstance(name, str) and isinstance(url, str)]
    redirect = data.get("redirect_url")
    if isinstance(redirect, str):
        actions.append(("redirect", redirect))
    return tuple(actions)
