"""Who a notification is from. Room: billing (midtrans).

Pure. Two channels: Midtrans' own notifications, with a plain SHA-512 over fields of the body and the server key, and
events of a payment service of ours, with HMAC-SHA512 over ``id.timestamp.body``. Neither says anything about the state
of a payment: that comes from ``GET status``. No key appears in a repr or in an error.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

# The first character keeps "." and ".." out of paths.
ORDER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,49}")
_STATUS_CODE = re.compile(r"[0-9]{3}")
_AMOUNT = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,2})?")
_HEX_DIGEST = re.compile(r"[0-9a-fA-F]{128}")
_EVENT_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_VERSION = "v1a512"
# A header may carry several signatures while keys rotate; more than this is not rotation.
_SIGNATURE_LIMIT = 8


@dataclass(frozen=True, slots=True)
class Keys:
    """Secrets that are accepted at the same time, for rotation. Raises ValueError when there is none, or an empty one:
    anybody could sign with that."""

    values: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, values: Iterable[str]) -> "Keys":
        return cls(tuple(values))

    def __post_init__(self) -> None:
        if not self.values or not all(value.strip() for value in self.values):
            raise ValueError("at least one key is needed, and none may be empty")


class SignatureRefused(Exception):
    """``code``: missing, malformed, expired or mismatch. Says nothing about what would have been right."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the signature is refused: {code}")
        self.code = code


def notification_signature(order_id: str, status_code: str, gross_amount: str, key: str) -> str:
    """Midtrans' ``signature_key``: lower-case hex. The arguments are the literal strings of the body."""
    return hashlib.sha512(f"{order_id}{status_code}{gross_amount}{key}".encode()).hexdigest()


def verify_notification(
    *, order_id: str, status_code: str, gross_amount: str, signature_key: str | None, keys: Keys
) -> None:
    """Raises SignatureRefused unless one of the keys made it.

    The formula has no separators: A + 200 + 201… and A200 + 201 + … sign alike. The forms of the fields narrow that,
    and whoever calls compares the amount with the invoice of that order.
    """
    forms = ((ORDER_ID, order_id), (_STATUS_CODE, status_code), (_AMOUNT, gross_amount))
    if not all(form.fullmatch(value) for form, value in forms):
        raise SignatureRefused("malformed")
    _compare_digest(
        signature_key, [notification_signature(order_id, status_code, gross_amount, key) for key in keys.values]
    )


def account_signature(account_id: str, account_status: str, status_code: str, key: str) -> str:
    """``signature_key`` of a notification about a linked GoPay account."""
    return hashlib.sha512(f"{account_id}{account_status}{status_code}{key}".encode()).hexdigest()


def verify_account(
    *, account_id: str, account_status: str, status_code: str, signature_key: str | None, keys: Keys
) -> None:
    """As ``verify_notification``, for a linked GoPay account."""
    if not _STATUS_CODE.fullmatch(status_code):
        raise SignatureRefused("malformed")
    _compare_digest(
        signature_key, [account_signature(account_id, account_status, status_code, key) for key in keys.values]
    )


def sign_event(event_id: str, timestamp: int, body: bytes, secret: str) -> str:
    """One value of the ``webhook-signature`` header: ``v1a512,<base64>``. The secret's UTF-8 bytes are the key."""
    signed = b".".join((event_id.encode(), str(timestamp).encode(), body))
    digest = hmac.new(secret.encode(), signed, hashlib.sha512).digest()
    return f"{_VERSION},{base64.b64encode(digest).decode()}"


def verify_event(
    *,
    event_id: str | None,
    timestamp: str | None,
    signature: str | None,
    body: bytes,
    secrets: Keys,
    now: float,
    tolerance: float = 300.0,
) -> None:
    """Checks the headers ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature`` over the body as received.

    The signature header may hold several values separated by spaces; other versions than v1a512 are passed over.
    ``now`` is Unix seconds, ``tolerance`` seconds to either side. Raises SignatureRefused.
    """
    if not event_id or not timestamp or not signature:
        raise SignatureRefused("missing")
    if not _EVENT_ID.fullmatch(event_id) or not _TIMESTAMP.fullmatch(timestamp):
        raise SignatureRefused("malformed")
    given = [value for value in signature.split() if value.startswith(f"{_VERSION},")]
    if not given or len(given) > _SIGNATURE_LIMIT or not signature.isascii():
        raise SignatureRefused("malformed")
    # The text that was signed: "007" and "7" are one number and two signatures.
    if str(int(timestamp)) != timestamp:
        raise SignatureRefused("malformed")
    matched = False
    for secret in secrets.values:
        expected = sign_event(event_id, int(timestamp), body, secret).encode()
        for value in given:
            matched |= hmac.compare_digest(expected, value.encode())
    if not matched:
        raise SignatureRefused("mismatch")
    # After the signature: who cannot sign learns nothing about our clock.
    if abs(now - int(timestamp)) > tolerance:
        raise SignatureRefused("expired")


def _compare_digest(given: str | None, expected: list[str]) -> None:
    """Against every key, whichever matches, so that the time says nothing."""
    if not given:
        raise SignatureRefused("missing")
    if not _HEX_DIGEST.fullmatch(given):
        raise SignatureRefused("malformed")
    matched = False
    for digest in expected:
        matched |= hmac.compare_digest(digest, given.lower())
    if not matched:
        raise SignatureRefused("mismatch")
