"""Events reach Kafka in order and at least once, whatever happens on the way (events.relay, events.publisher)."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from django.db import OperationalError
from structlog.testing import capture_logs

from events import relay as module
from events.lease import Lease
from events.models import OutboxEvent, RelayLease
from events.publisher import Publisher
from events.relay import LEASE_NAME, Relay
from tests.events.cast import (
    client_config,
    drive,
    first_of_each,
    make_relay,
    new_topic,
    record,
    values_by_key,
    waiting,
)
from tests.support.kafka import KafkaBroker
from tests.support.ports import free_port
from tests.support.topics import read_topics

pytestmark = pytest.mark.django_db(transaction=True)


def nothing_waits() -> bool:
    return waiting() == 0


def test_events_arrive_in_order_with_key_and_id(kafka: KafkaBroker, topic: str) -> None:
    numbers = [str(number) for number in range(40)]
    for number in numbers:
        record(topic, "alpha", f"a{number}")
        record(topic, "beta", f"b{number}")
    relay = make_relay(kafka.bootstrap)
    drive(relay, nothing_waits)
    assert values_by_key(kafka.bootstrap, topic) == {
        "alpha": [f"a{number}" for number in numbers],
        "beta": [f"b{number}" for number in numbers],
    }
    ids = {found.headers["event_id"].decode() for found in read_topics(kafka.bootstrap, [topic])}
    assert ids == {str(event_id) for event_id in OutboxEvent.objects.values_list("event_id", flat=True)}


def test_missing_topic_is_made_as_the_settings_say(kafka: KafkaBroker, topic: str) -> None:
    record(topic, "alpha", "1")
    drive(make_relay(kafka.bootstrap), nothing_waits)
    found = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=10).topics
    assert len(found[topic].partitions) == 3


def test_topics_of_the_product_are_there_before_their_first_event(kafka: KafkaBroker, topic: str) -> None:
    publisher = Publisher(client_config(kafka.bootstrap), topics=[topic], partitions=2)
    assert publisher.poll(0) is True
    assert topic in AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=10).topics


def test_more_events_than_may_be_in_flight_all_arrive(
    kafka: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_LIMIT", 10)
    numbers = [str(number) for number in range(95)]
    record(topic, "alpha", *numbers)
    drive(make_relay(kafka.bootstrap), nothing_waits)
    assert values_by_key(kafka.bootstrap, topic) == {"alpha": numbers}
    assert len(read_topics(kafka.bootstrap, [topic])) == 95


def test_of_two_relays_one_works_and_nothing_goes_twice(kafka: KafkaBroker, topic: str) -> None:
    first, second = make_relay(kafka.bootstrap), make_relay(kafka.bootstrap)
    numbers = [str(number) for number in range(30)]
    for number in numbers:
        record(topic, "alpha", number)
        first.turn()
        second.turn()
    drive(first, nothing_waits)
    second.turn()
    found = read_topics(kafka.bootstrap, [topic])
    assert [one.value.decode() for one in found] == numbers
    assert RelayLease.objects.count() == 1


def test_relay_publishes_nothing_while_another_holds_the_lease(kafka: KafkaBroker, topic: str) -> None:
    other = Lease(LEASE_NAME, "another")
    assert other.keep() is True
    relay = make_relay(kafka.bootstrap)
    record(topic, "alpha", "1")
    for _ in range(5):
        # However long all this takes, it is held, and asked for in each turn.
        other._ask_at = relay._lease._ask_at = relay._read_at = 0.0
        assert other.keep() is True
        relay.turn()
    assert waiting() == 1
    other.release()
    drive(relay, nothing_waits, 10)


def test_stopped_relay_gives_the_lease_back(kafka: KafkaBroker, topic: str) -> None:
    record(topic, "alpha", "1")
    relay = make_relay(kafka.bootstrap)
    drive(relay, nothing_waits)
    assert RelayLease.objects.get().holder != ""
    stopping = threading.Event()
    stopping.set()
    relay.run(stopping)
    assert RelayLease.objects.get().holder == ""


def test_stop_waits_for_what_is_in_flight(kafka: KafkaBroker, topic: str) -> None:
    relay = make_relay(kafka.bootstrap)
    record(topic, "alpha", "0")
    drive(relay, nothing_waits)
    record(topic, "alpha", "1")
    drive(relay, lambda: relay._publisher.is_busy or waiting() == 0)
    stopping = threading.Event()
    stopping.set()
    relay.run(stopping)
    assert waiting() == 0
    assert values_by_key(kafka.bootstrap, topic) == {"alpha": ["0", "1"]}


def test_events_of_an_outage_arrive_in_order_when_kafka_is_back(own_kafka: KafkaBroker, topic: str) -> None:
    relay = make_relay(own_kafka.bootstrap)
    record(topic, "alpha", "0")
    drive(relay, nothing_waits)
    with capture_logs() as logs:
        own_kafka.kill()
        record(topic, "alpha", "1", "2")
        drive(relay, lambda: any(entry["event"] == "relay_kafka_down" for entry in logs), 60)
        record(topic, "alpha", "3")
        relay.turn()
        assert waiting() == 3
        own_kafka.start()
        drive(relay, nothing_waits, 60)
    assert values_by_key(own_kafka.bootstrap, topic) == {"alpha": ["0", "1", "2", "3"]}
    said = [entry["event"] for entry in logs if entry["log_level"] != "debug"]
    assert said == ["relay_kafka_down", "relay_kafka_back"]


def test_relay_that_starts_without_kafka_goes_on_when_it_comes(
    own_kafka: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.kafka._TIMEOUT", 1.0)
    own_kafka.kill()
    relay = make_relay(own_kafka.bootstrap)
    record(topic, "alpha", "1")
    with capture_logs() as logs:
        relay.turn()
        relay.turn()
        assert waiting() == 1
        own_kafka.start()
        drive(relay, nothing_waits, 60)
    said = [entry["event"] for entry in logs if entry["log_level"] != "debug"]
    assert said == ["relay_kafka_down", "relay_kafka_back"]
    assert values_by_key(own_kafka.bootstrap, topic) == {"alpha": ["1"]}


def test_refused_event_stops_its_topic_and_no_other(kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("events.publisher._SET_ASIDE_TIME", 1.0)
    narrow, wide = new_topic(), new_topic()
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.create_topics([NewTopic(narrow, 1, 1, config={"max.message.bytes": "1000"})]).values():
        future.result(timeout=10)
    relay = make_relay(kafka.bootstrap)
    record(narrow, "alpha", "before", "x" * 5_000, "after")
    record(wide, "alpha", "1")
    drive(relay, lambda: OutboxEvent.objects.filter(topic=wide, published_at__isnull=False).exists())
    record(wide, "alpha", "2")
    drive(relay, lambda: waiting() <= 3 and not OutboxEvent.objects.filter(topic=wide, published_at=None).exists())
    # The one behind it may not overtake.
    assert "after" not in values_by_key(kafka.bootstrap, narrow).get("alpha", [])
    OutboxEvent.objects.filter(topic=narrow).update(value=b"short")
    drive(relay, nothing_waits)
    assert values_by_key(kafka.bootstrap, wide) == {"alpha": ["1", "2"]}


class FailingProducer:
    """A producer as librdkafka's, whose messages with the value ``bad`` fail as told."""

    def __init__(self, config: dict[str, Any], error: KafkaError | None) -> None:
        self._real = Producer(config)
        self._error = error
        self._due: list[Callable[[], None]] = []
        self.produced: list[bytes] = []

    def produce(self, topic: str, value: bytes, key: bytes, *, headers: Any, on_delivery: Any) -> None:
        self.produced.append(value)
        if self._error is not None and value == b"bad":
            self._due.append(lambda: on_delivery(self._error, None))
        else:
            self._real.produce(topic, value, key, headers=headers, on_delivery=on_delivery)

    def poll(self, timeout: float) -> int:
        due, self._due = self._due, []
        for report in due:
            report()
        return int(self._real.poll(timeout))

    def purge(self, **options: bool) -> None:
        self._real.purge(**options)

    def list_topics(self, *arguments: Any, **options: Any) -> Any:
        return self._real.list_topics(*arguments, **options)


def test_failed_message_is_sent_again_before_its_successors(kafka: KafkaBroker, topic: str) -> None:
    producers: list[FailingProducer] = []

    def make(config: dict[str, Any]) -> Any:
        error = KafkaError(KafkaError._GAPLESS_GUARANTEE, fatal=True) if not producers else None
        producers.append(FailingProducer(config, error))
        return producers[-1]

    relay = Relay(Publisher(client_config(kafka.bootstrap), make_producer=make), poll_interval=0.05)
    record(topic, "alpha", "first", "bad", "last")
    drive(relay, nothing_waits)
    assert len(producers) == 2
    assert producers[0].produced == [b"first", b"bad", b"last"]
    # The first may be there already, or go again; the order is kept in both cases.
    assert producers[1].produced in ([b"first", b"bad", b"last"], [b"bad", b"last"])
    assert values_by_key(kafka.bootstrap, topic)["alpha"][0] == "first"
    assert OutboxEvent.objects.filter(published_at__isnull=False).count() == 3


def test_report_that_the_database_does_not_take_is_saved_later(
    kafka: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DATABASE_PAUSE", 0.05)
    relay = make_relay(kafka.bootstrap)
    save, failures = relay._save_confirmed, iter([OperationalError("database is locked")])

    def fail_once() -> None:
        if relay._publisher.confirmed and (error := next(failures, None)):
            raise error
        save()

    monkeypatch.setattr(relay, "_save_confirmed", fail_once)
    # A connection that is closed in the middle of a test's memory database would take it along.
    monkeypatch.setattr("events.relay.connection.close", lambda: None)
    record(topic, "alpha", "1", "2")
    drive(relay, nothing_waits)
    assert next(failures, None) is None
    found = read_topics(kafka.bootstrap, [topic])
    assert [one.value.decode() for one in found] == ["1", "2"] == [one.value.decode() for one in first_of_each(found)]


def test_broker_in_memory_that_makes_topics_on_demand_is_served(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("events.kafka._TIMEOUT", 1.0)
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 3})
    (broker,) = cluster.list_topics(timeout=10).brokers.values()
    bootstrap = f"127.0.0.1:{broker.port}"
    record(topic, "alpha", "1", "2")
    drive(make_relay(bootstrap), nothing_waits)
    assert values_by_key(bootstrap, topic) == {"alpha": ["1", "2"]}


def test_unreachable_kafka_holds_no_turn_for_long(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("events.kafka._TIMEOUT", 0.5)
    relay = make_relay(f"127.0.0.1:{free_port()}")
    record(topic, "alpha", "1")
    began = time.monotonic()
    for _ in range(3):
        assert relay.turn() <= 2.0
    assert time.monotonic() - began < 10
    assert waiting() == 1
