"""Brings recorded events to Kafka, in order, at least once. Room: events.

Contract: a row counts as published when Kafka's delivery report is there, never before: a process that is killed leaves
rows that the next one publishes, some of them a second time. One relay at a time works (``lease``); any number may run.
No transaction is open while Kafka is waited for: what is read is read at once, what is written is one statement.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

import structlog
from django.db import Error, connection
from django.utils import timezone

from events.lease import Lease
from events.models import OutboxEvent
from events.publisher import Publisher

log = structlog.get_logger(__name__)

LEASE_NAME = "outbox"
# Rows that may wait for their delivery reports.
IN_FLIGHT_LIMIT = 500
# Seconds: for reports in one turn; before the database is asked again after an error; for reports at the end.
_REPORT_WAIT = 0.05
_DATABASE_PAUSE = 1.0
_STOP_TIMEOUT = 5.0
_POLL_INTERVAL_MINIMUM = 0.01


def lease_of_this_process() -> Lease:
    return Lease(LEASE_NAME, f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}")


class Relay:
    """Belongs to one thread; a call blocks for as long as the database does, or Kafka's listing of topics."""

    def __init__(
        self, publisher: Publisher, *, poll_interval: float, make_lease: Callable[[], Lease] = lease_of_this_process
    ) -> None:
        """``poll_interval``: seconds between two looks at the outbox, 10 ms at least."""
        self._publisher = publisher
        self._lease = make_lease()
        self._poll_interval = max(poll_interval, _POLL_INTERVAL_MINIMUM)
        self._read_at = 0.0
        # Whether the last look found more than there was room for.
        self._is_behind = False
        self._is_database_down = False

    def run(self, stopping: threading.Event) -> None:
        """Until ``stopping`` is set; then waits a few seconds for what is in flight and gives the lease back.

        What Kafka has not confirmed by then is published again by the next relay."""
        try:
            while not stopping.is_set():
                stopping.wait(self.turn())
            self._publisher.finish(_STOP_TIMEOUT)
        finally:
            self._publisher.finish(0)
            try:
                self._save_confirmed()
                self._lease.release()
            except Error as error:
                self._note_database_down(error)
            connection.close()

    def turn(self) -> float:
        """One look at Kafka's reports and, when it is due, at the outbox; seconds until the next turn should be."""
        try:
            pause = self._work()
        except Error as error:
            self._note_database_down(error)
            # The next statement connects anew.
            connection.close()
            return _DATABASE_PAUSE
        if self._is_database_down:
            self._is_database_down = False
            log.info("relay_database_back")
        return pause

    def _work(self) -> float:
        # While something is in flight this is where the time passes.
        can_publish = self._publisher.poll(_REPORT_WAIT)
        self._save_confirmed()
        if self._publisher.is_busy:
            # Others would take over while reports are late.
            self._lease.keep()
        if not can_publish:
            return self._poll_interval
        room = IN_FLIGHT_LIMIT - len(self._publisher.in_hand)
        is_due = time.monotonic() >= self._read_at or (self._is_behind and room > IN_FLIGHT_LIMIT // 2)
        if is_due and room > 0:
            rows = self._read(room)
            self._is_behind = len(rows) == room
            self._read_at = time.monotonic() + self._poll_interval
            if rows and self._lease.keep():
                self._publisher.publish(rows, lambda: self._lease.is_held)
        return 0.0 if self._publisher.is_busy else max(self._read_at - time.monotonic(), 0.0)

    def _read(self, room: int) -> list[OutboxEvent]:
        """The next rows in order, without those that are in hand."""
        rows = OutboxEvent.objects.filter(published_at__isnull=True)
        if in_hand := self._publisher.in_hand:
            rows = rows.exclude(pk__in=in_hand)
        if set_aside := self._publisher.topics_set_aside():
            rows = rows.exclude(topic__in=set_aside)
        return list(rows.order_by("id")[:room])

    def _save_confirmed(self) -> None:
        confirmed = self._publisher.confirmed
        if confirmed:
            OutboxEvent.objects.filter(pk__in=confirmed).update(published_at=timezone.now())
            confirmed.clear()

    def _note_database_down(self, error: Error) -> None:
        if not self._is_database_down:
            self._is_database_down = True
            log.warning("relay_database_down", reason=type(error).__name__)
