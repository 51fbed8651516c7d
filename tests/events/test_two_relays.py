"""Relays and transactions that truly run side by side: for a database with more than one writer (events.relay)."""

import threading
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from django.db import connection, transaction

from events import outbox
from events.models import OutboxEvent, RelayLease
from tests.events.cast import make_relay, record, values_by_key, waiting
from tests.support.gateway import until
from tests.support.skips import needs_row_locks
from tests.support.topics import read_topics

pytestmark = [pytest.mark.django_db(transaction=True), needs_row_locks]


@pytest.fixture
def bootstrap() -> Iterator[str]:
    """A broker in memory."""
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 3})
    (broker,) = cluster.list_topics(timeout=10).brokers.values()
    yield f"127.0.0.1:{broker.port}"
    cluster.flush(0)


class Running:
    """A relay in a thread."""

    def __init__(self, bootstrap: str) -> None:
        self._stopping = threading.Event()
        relay = make_relay(bootstrap)
        self._thread = threading.Thread(target=relay.run, args=(self._stopping,))
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


def test_two_relays_publish_each_event_once_while_one_of_them_stops(
    bootstrap: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.kafka._TIMEOUT", 1.0)
    relays = [Running(bootstrap), Running(bootstrap)]
    numbers = [str(number) for number in range(300)]
    try:
        record(topic, "alpha", *numbers[:150])
        until(lambda: waiting() < 100, 20, "the first events")
        relays.pop(0).stop()
        record(topic, "alpha", *numbers[150:])
        until(lambda: waiting() == 0, 20, "all events")
    finally:
        for relay in relays:
            relay.stop()
    assert values_by_key(bootstrap, topic) == {"alpha": numbers}
    assert len(read_topics(bootstrap, [topic])) == 300
    assert RelayLease.objects.get().holder == ""


def test_event_that_commits_behind_a_younger_one_is_published_too(
    bootstrap: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.kafka._TIMEOUT", 1.0)
    recorded, may_commit = threading.Event(), threading.Event()

    def commit_late() -> None:
        with transaction.atomic():
            outbox.record(topic, "slow", b"older")
            recorded.set()
            may_commit.wait(20)
        connection.close()

    slow = threading.Thread(target=commit_late)
    slow.start()
    assert recorded.wait(20)
    relay = Running(bootstrap)
    try:
        record(topic, "quick", "younger")
        until(lambda: OutboxEvent.objects.filter(published_at__isnull=False).count() == 1, 20, "the younger event")
        may_commit.set()
        slow.join(20)
        until(lambda: OutboxEvent.objects.filter(published_at__isnull=False).count() == 2, 20, "the older event")
    finally:
        may_commit.set()
        relay.stop()
    first, second = OutboxEvent.objects.order_by("id").values_list("key", flat=True)
    assert (first, second) == ("slow", "quick")
    assert values_by_key(bootstrap, topic) == {"slow": ["older"], "quick": ["younger"]}


def pids(question: str) -> set[int]:
    with connection.cursor() as cursor:
        cursor.execute(question)
        return {pid for (pid,) in cursor.fetchall()}


def test_relay_goes_on_after_the_database_has_cut_its_connections(
    bootstrap: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.kafka._TIMEOUT", 1.0)
    relay = Running(bootstrap)
    try:
        record(topic, "alpha", "1")
        until(lambda: waiting() == 0, 20, "the event before")
        cut = pids("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()")
        assert cut
        pids(f"SELECT pid FROM unnest(ARRAY{sorted(cut)}) AS pid WHERE pg_terminate_backend(pid)")  # noqa: S608
        until(lambda: not cut & pids("SELECT pid FROM pg_stat_activity"), 20, "the end of the connections")
        record(topic, "alpha", "2")
        until(lambda: waiting() == 0, 20, "the event after")
    finally:
        relay.stop()
    assert values_by_key(bootstrap, topic) == {"alpha": ["1", "2"]}
