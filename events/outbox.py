"""Events leave with the change they tell of, or not at all. Room: events.

Contract: what is recorded in a transaction that commits reaches Kafka at least once, however processes die; consumers
know a repeated one by the header ``event_id``. Events of one key go out in the order of their ids: a caller for whom
that order matters holds the lock of the row they tell of, so that two transactions do not take their ids crosswise.
"""

import datetime
import uuid
from collections.abc import Iterable

from django.db import transaction
from django.utils import timezone

from events.models import OutboxEvent

# Bytes; brokers take 1 MiB with headers by default, and one that none takes would wait for ever.
VALUE_SIZE_LIMIT = 524_288
_PRUNE_BATCH = 1_000
_RECORD_BATCH = 500


def record(topic: str, key: str, value: bytes) -> uuid.UUID:
    """Writes the event in the caller's transaction; ``value`` is a serialised protobuf message. Returns its event_id.

    Raises RuntimeError outside of ``transaction.atomic()``: an event without its change would be a lie.
    Raises ValueError above VALUE_SIZE_LIMIT bytes.
    """
    _check(len(value))
    return OutboxEvent.objects.create(topic=topic, key=key, value=value).event_id


def record_all(topic: str, events: Iterable[tuple[str, bytes]]) -> None:
    """As ``record`` for each (key, value), in few visits to the database."""
    rows = [OutboxEvent(topic=topic, key=key, value=value) for key, value in events]
    _check(max((len(row.value) for row in rows), default=0))
    OutboxEvent.objects.bulk_create(rows, batch_size=_RECORD_BATCH)


def _check(size: int) -> None:
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("an event is recorded in the transaction of its change: use transaction.atomic()")
    if size > VALUE_SIZE_LIMIT:
        raise ValueError(f"an event of {size} bytes is above the limit of {VALUE_SIZE_LIMIT}")


def prune(older_than: datetime.timedelta = datetime.timedelta(days=1)) -> int:
    """Deletes what was published longer ago than that; how many rows. Rows that wait for Kafka are kept however old."""
    before = timezone.now() - older_than
    deleted = 0
    while True:
        # In small steps: SQLite has one writer, and requests wait for it.
        batch = list(OutboxEvent.objects.filter(published_at__lt=before).values_list("pk", flat=True)[:_PRUNE_BATCH])
        deleted += OutboxEvent.objects.filter(pk__in=batch).delete()[0]
        if len(batch) < _PRUNE_BATCH:
            return deleted
