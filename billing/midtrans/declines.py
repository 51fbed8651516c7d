"""Which refused charges are worth another try. Room: billing (midtrans). Pure."""

from enum import Enum

# Codes of the API for which the method itself is gone: not enabled, user blocked, token invalid.
_HARD_STATUS_CODES = frozenset({"402", "410", "411"})
# ISO 8583 answers of a bank: keep it, invalid or unknown card, lost, stolen, expired, closed, not allowed.
_HARD_BANK_CODES = frozenset({"04", "07", "14", "15", "33", "36", "41", "43", "46", "54", "57", "59", "62"})


class Decline(Enum):
    # Try again by the calendar.
    SOFT = "soft"
    # Ask for another method; another try can only be refused again.
    HARD = "hard"


def kind_of_decline(status_code: str, channel_response_code: str = "") -> Decline:
    """``status_code`` of Midtrans (of the answer or of the error) and, with a denied card, the bank's own code.

    What is unknown is soft: the calendar ends by itself.
    """
    if status_code in _HARD_STATUS_CODES or channel_response_code.zfill(2) in _HARD_BANK_CODES:
        return Decline.HARD
    return Decline.SOFT
