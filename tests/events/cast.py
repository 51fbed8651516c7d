"""What the tests of this room share: events that are committed, and a relay driven turn by turn."""

import secrets
import time
from collections.abc import Callable
from typing import Any

from django.db import transaction

from events import outbox
from events.models import OutboxEvent
from events.publisher import Publisher
from events.relay import Relay
from tests.support.topics import Record, read_topics


def new_topic() -> str:
    return f"t{secrets.token_hex(4)}-events"


def client_config(bootstrap: str) -> dict[str, Any]:
    return {"bootstrap.servers": bootstrap, "reconnect.backoff.ms": 100, "reconnect.backoff.max.ms": 500}


def make_relay(bootstrap: str, **options: Any) -> Relay:
    return Relay(Publisher(client_config(bootstrap), partitions=3), poll_interval=0.05, **options)


def record(topic: str, key: str, *values: str) -> None:
    """Each in a transaction of its own."""
    for value in values:
        with transaction.atomic():
            outbox.record(topic, key, value.encode())


def waiting() -> int:
    return OutboxEvent.objects.filter(published_at__isnull=True).count()


def drive(relay: Relay, condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Takes turns until ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(min(relay.turn(), 0.05))


def first_of_each(records: list[Record]) -> list[Record]:
    """Repetitions left out, as a consumer does."""
    return list({record.headers["event_id"]: record for record in reversed(records)}.values())[::-1]


def values_by_key(bootstrap: str, topic: str) -> dict[str, list[str]]:
    """What a consumer makes of the topic."""
    values: dict[str, list[str]] = {}
    for found in first_of_each(read_topics(bootstrap, [topic])):
        values.setdefault(found.key.decode(), []).append(found.value.decode())
    return values
