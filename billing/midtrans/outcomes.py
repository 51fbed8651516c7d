"""What a call to Midtrans came to. Room: billing (midtrans).

Three ends, and only three: it was done, Midtrans said no, or nobody knows. Unknown is not failed: a charge whose
answer was lost may have taken the money, so whoever gets ``Unknown`` asks ``GET status`` before anything else.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class Refusal(Enum):
    """Why Midtrans said no."""

    # Something in the request; a repetition is refused again.
    INVALID = "invalid"
    # The server key.
    UNAUTHORIZED = "unauthorized"
    # The payment type is not enabled for the merchant.
    NOT_ENABLED = "not_enabled"
    # No such transaction. Of a Snap order: the customer has not chosen a method yet, which is no failure.
    MISSING = "missing"
    # The order id was used before, perhaps by a try whose answer was lost: ask for its status.
    DUPLICATE_ORDER = "duplicate_order"
    # The saved token or the linked account is of no use any more: ask the customer for another method.
    METHOD_GONE = "method_gone"
    # The state of the transaction does not allow it.
    WRONG_STATE = "wrong_state"
    REFUND_REFUSED = "refund_refused"
    # Too many calls: the same call may be made again later.
    RATE_LIMITED = "rate_limited"


class Doubt(Enum):
    """Why nobody knows."""

    # No connection was made, so nothing was done; still no answer about what an earlier try did.
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    # Midtrans failed (5xx), or the connection ended before the answer.
    BROKEN = "broken"
    # An answer that is not what Midtrans documents.
    UNREADABLE = "unreadable"
    # The first call with the same idempotency key still runs.
    IN_PROGRESS = "in_progress"


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """Midtrans did it, or tells it. A denied charge is ``Done`` too: the value says ``deny``."""

    value: T


@dataclass(frozen=True, slots=True)
class Refused:
    """Midtrans did nothing. ``message`` is its own, cut, for logs and operators."""

    reason: Refusal
    status_code: str
    message: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have been done."""

    doubt: Doubt


Outcome = Done[T] | Refused | Unknown

_REASONS = {
    "401": Refusal.UNAUTHORIZED,
    "402": Refusal.NOT_ENABLED,
    "403": Refusal.UNAUTHORIZED,
    "404": Refusal.MISSING,
    "406": Refusal.DUPLICATE_ORDER,
    "409": Refusal.DUPLICATE_ORDER,
    "410": Refusal.METHOD_GONE,
    "411": Refusal.METHOD_GONE,
    "412": Refusal.WRONG_STATE,
    "414": Refusal.REFUND_REFUSED,
    "418": Refusal.REFUND_REFUSED,
    "429": Refusal.RATE_LIMITED,
}


def refusal_of(status_code: str, message: str) -> Refused | Unknown:
    """The outcome of an error that Midtrans answered; what is neither 4xx nor known to do nothing stays unknown."""
    if len(status_code) != 3 or not status_code.startswith("4") or status_code == "408":
        return Unknown(Doubt.BROKEN)
    text = "".join(char if char.isprintable() else " " for char in message[:200])
    return Refused(_REASONS.get(status_code, Refusal.INVALID), status_code, text)
