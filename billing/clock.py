"""What time it is for billing: the only clock that decides about money. Room: billing.

Tests set it, for the whole process and all its threads; a development process may be shifted by GATEWAY_CLOCK_OFFSET.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

_lock = threading.Lock()
_hand: "Hand | None" = None


class Hand:
    """A clock that stands still until it is moved."""

    def __init__(self, moment: datetime) -> None:
        if moment.tzinfo is None:
            raise ValueError("a moment needs its time zone")
        self.moment = moment

    def advance(self, by: timedelta) -> datetime:
        self.moment += by
        return self.moment


def now() -> datetime:
    """An aware datetime."""
    hand = _hand
    if hand is not None:
        return hand.moment
    moment = timezone.now()
    return moment + timedelta(seconds=settings.GATEWAY_CLOCK_OFFSET) if settings.GATEWAY_CLOCK_OFFSET else moment


@contextmanager
def stopped_at(moment: datetime) -> Iterator[Hand]:
    """For tests: the clock stands at ``moment`` and goes as the hand is moved. Not nested."""
    global _hand
    hand = Hand(moment)
    with _lock:
        if _hand is not None:
            raise RuntimeError("the clock is already stopped")
        _hand = hand
    try:
        yield hand
    finally:
        _hand = None
