"""An event leaves with its change or not at all (events.outbox)."""

import datetime
import uuid

import pytest
from django.db import connection, transaction
from django.utils import timezone

from events import outbox
from events.models import OutboxEvent


@pytest.mark.django_db(transaction=True)
def test_event_of_committed_change_waits_for_kafka() -> None:
    with transaction.atomic():
        event_id = outbox.record("topic", "schlüssel", b"\x00\xff")
    row = OutboxEvent.objects.get()
    assert isinstance(event_id, uuid.UUID)
    assert (row.event_id, row.topic, row.key, bytes(row.value)) == (event_id, "topic", "schlüssel", b"\x00\xff")
    assert row.published_at is None


@pytest.mark.django_db(transaction=True)
def test_event_of_rolled_back_change_is_gone() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        outbox.record("topic", "key", b"value")
        raise ZeroDivisionError
    assert not OutboxEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_event_without_a_transaction_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"transaction\.atomic"):
        outbox.record("topic", "key", b"value")
    assert not OutboxEvent.objects.exists()


@pytest.mark.django_db
def test_event_that_no_broker_takes_is_refused() -> None:
    outbox.record("topic", "key", bytes(outbox.VALUE_SIZE_LIMIT))
    with pytest.raises(ValueError, match="limit"):
        outbox.record("topic", "key", bytes(outbox.VALUE_SIZE_LIMIT + 1))
    assert OutboxEvent.objects.count() == 1


@pytest.mark.django_db
def test_prune_deletes_only_what_was_published_more_than_a_day_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_PRUNE_BATCH", 2)
    now = timezone.now()
    old, young = now - datetime.timedelta(days=1, minutes=1), now - datetime.timedelta(hours=23)
    for published_at in (old, old, old, young, None):
        OutboxEvent.objects.create(topic="topic", key="key", value=b"", published_at=published_at)
    # One that has waited for Kafka for a week.
    OutboxEvent.objects.filter(published_at=None).update(created_at=now - datetime.timedelta(days=7))
    assert outbox.prune() == 3
    assert sorted(OutboxEvent.objects.values_list("published_at", flat=True), key=str) == [young, None]
    assert outbox.prune() == 0


@pytest.mark.django_db
def test_search_for_waiting_events_reads_no_published_ones() -> None:
    now = timezone.now()
    OutboxEvent.objects.bulk_create(
        OutboxEvent(topic="topic", key="key", value=b"value", published_at=now) for _ in range(20_000)
    )
    OutboxEvent.objects.create(topic="topic", key="key", value=b"value")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    plan = OutboxEvent.objects.filter(published_at__isnull=True).order_by("id")[:500].explain()
    assert "events_unpublished" in plan
