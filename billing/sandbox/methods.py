"""How the stand-in's methods of payment look and behave. Room: billing (sandbox)."""

import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

_BANKS = frozenset({"bca", "bni", "bri", "cimb", "permata"})
_LIVES = {"credit_card": timedelta(minutes=10), "gopay": timedelta(minutes=15), "qris": timedelta(minutes=15)}
_TRANSFER_LIVES = timedelta(hours=24)
# Midtrans' own test cards, and what becomes of a charge.
TEST_CARDS = {"4911111111111113": "05", "4511111111111117": "challenge", "4611111111111116": "deny"}
BANK_ANSWERS = {"05": "Do not honor", "14": "Invalid card number", "51": "Insufficient funds", "54": "Expired card"}
# Methods of the payment page, and the payment_type of each.
PAGE_METHODS = {"card": "credit_card", "bank_transfer": "bank_transfer", "gopay": "gopay", "qris": "qris"}


class ApiError(Exception):
    """``code`` is Midtrans' status_code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def life_of(payment_type: str) -> timedelta:
    """How long an unpaid one waits."""
    return _LIVES.get(payment_type, _TRANSFER_LIVES)


def _digits(count: int) -> str:
    return "".join(secrets.choice("0123456789") for _ in range(count))


def method_fields(kind: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in bodies of a new transaction. Raises ApiError for a bank that is none."""
    if kind == "credit_card":
        return {
            "masked_card": "48111111-1114",
            "bank": "bni",
            "card_type": "credit",
            "eci": "05",
            "channel_response_code": "00",
            "channel_response_message": "Approved",
        }
    if kind == "bank_transfer":
        bank = str(details.get("bank"))
        if bank not in _BANKS:
            raise ApiError("400", "bank_transfer.bank is not valid")
        if bank == "permata":
            return {"permata_va_number": _digits(16)}
        return {"va_numbers": [{"bank": bank, "va_number": _digits(15)}], "payment_amounts": []}
    if kind == "echannel":
        return {"biller_code": "70012", "bill_key": _digits(12)}
    return {"acquirer": "gopay"} if kind == "qris" else {}
