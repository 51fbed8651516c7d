"""One of many may do it at a time, by a row in the database. Room: events.

Contract: times are the database's, so the clocks of hosts do not matter. The holder counts its time from before it
asked, by its own monotonic clock, and stops a second early: two never both believe that they hold it unless a process
is stopped between looking and acting.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.db.models.functions import Now

from events.models import RelayLease

# Seconds.
LEASE_TTL = 5.0
_MARGIN = 1.0
_ASK_AGAIN_AFTER = 0.5


class Lease:
    """Blocks for one statement a call; raises DatabaseError as that does."""

    def __init__(
        self,
        name: str,
        holder: str,
        *,
        now: Callable[[], Any] = Now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``holder``: unique to this object among all processes; ``now``: the database's time, as an expression."""
        self._name = name
        self._holder = holder
        self._now = now
        self._monotonic = monotonic
        self._held_until = 0.0
        # When the database is worth asking again.
        self._ask_at = 0.0

    @property
    def is_held(self) -> bool:
        return self._monotonic() < self._held_until

    def keep(self) -> bool:
        """Takes the lease where it is free, or renews it when a third of its time is over; whether it is held.

        Where it is another's, the database is asked twice a second at most."""
        asked_at = self._monotonic()
        if asked_at < self._ask_at:
            return self.is_held
        rows = RelayLease.objects.filter(name=self._name)
        free = Q(holder=self._holder) | Q(holder="") | Q(expires_at__lte=self._now())
        expires_at = self._now() + timedelta(seconds=LEASE_TTL)
        # One statement decides, whoever else asks at the same moment.
        is_taken = rows.filter(free).update(holder=self._holder, expires_at=expires_at) == 1
        if not is_taken and not rows.exists():
            RelayLease.objects.bulk_create(
                [RelayLease(name=self._name, holder="", expires_at=self._now())], ignore_conflicts=True
            )
            is_taken = rows.filter(free).update(holder=self._holder, expires_at=expires_at) == 1
        self._held_until = asked_at + LEASE_TTL - _MARGIN if is_taken else 0.0
        self._ask_at = asked_at + (LEASE_TTL / 3 if is_taken else _ASK_AGAIN_AFTER)
        return is_taken

    def release(self) -> None:
        """The next one need not wait for the end of its time."""
        self._held_until = self._ask_at = 0.0
        RelayLease.objects.filter(name=self._name, holder=self._holder).update(holder="")
