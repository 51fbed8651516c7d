"""A process hears every record of a topic from its start on (events.feed)."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic
from structlog.testing import capture_logs

from events import feed as module
from events.feed import TopicFeed
from tests.events.cast import client_config
from tests.support.gateway import until
from tests.support.kafka import KafkaBroker

MakeFeed = Callable[[str, str], "Listener"]


class Listener:
    """A running feed and what it heard."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.records: list[tuple[bytes, bytes]] = []
        self.feed = TopicFeed(client_config(bootstrap), topic, self._take, relist_interval=0.5)
        self.feed.start()

    def _take(self, key: bytes, value: bytes) -> None:
        self.records.append((key, value))
        if value == b"bad":
            raise ZeroDivisionError


@pytest.fixture
def listen() -> Iterator[MakeFeed]:
    made: list[Listener] = []

    def make(bootstrap: str, topic: str) -> Listener:
        made.append(Listener(bootstrap, topic))
        return made[-1]

    yield make
    for listener in made:
        listener.feed.stop()


def make_topic(bootstrap: str, topic: str, partitions: int = 3) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
        future.result(timeout=20)


def publish(bootstrap: str, topic: str, *values: bytes, partition: int = 0) -> None:
    producer = Producer(client_config(bootstrap))
    for value in values:
        producer.produce(topic, value, b"key", partition=partition)
    assert producer.flush(20) == 0


def test_feed_hears_what_comes_after_its_start(kafka: KafkaBroker, topic: str, listen: MakeFeed) -> None:
    make_topic(kafka.bootstrap, topic)
    publish(kafka.bootstrap, topic, b"old")
    listener = listen(kafka.bootstrap, topic)
    assert listener.feed.ready.wait(20)
    publish(kafka.bootstrap, topic, b"bad", b"1")
    publish(kafka.bootstrap, topic, b"2", partition=2)
    until(lambda: len(listener.records) >= 3, 20, "three records")
    assert sorted(listener.records) == [(b"key", b"1"), (b"key", b"2"), (b"key", b"bad")]


def test_feed_hears_all_of_a_topic_that_is_made_later(kafka: KafkaBroker, topic: str, listen: MakeFeed) -> None:
    listener = listen(kafka.bootstrap, topic)
    assert listener.feed.ready.wait(20)
    # The feed has not made it by looking for it.
    assert topic not in AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=10).topics
    make_topic(kafka.bootstrap, topic)
    publish(kafka.bootstrap, topic, b"first")
    until(lambda: listener.records == [(b"key", b"first")], 20, "the first record")


def test_feed_hears_partitions_that_are_added(kafka: KafkaBroker, topic: str, listen: MakeFeed) -> None:
    make_topic(kafka.bootstrap, topic, partitions=1)
    listener = listen(kafka.bootstrap, topic)
    assert listener.feed.ready.wait(20)
    publish(kafka.bootstrap, topic, b"1")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.create_partitions([NewPartitions(topic, 2)]).values():
        future.result(timeout=20)
    publish(kafka.bootstrap, topic, b"2", partition=1)
    publish(kafka.bootstrap, topic, b"3", partition=0)
    until(lambda: len(listener.records) >= 3, 20, "a record of the new partition")
    assert sorted(value for _, value in listener.records) == [b"1", b"2", b"3"]


def test_feed_goes_on_after_an_outage(own_kafka: KafkaBroker, topic: str, listen: MakeFeed) -> None:
    make_topic(own_kafka.bootstrap, topic)
    with capture_logs() as logs:
        listener = listen(own_kafka.bootstrap, topic)
        assert listener.feed.ready.wait(20)
        publish(own_kafka.bootstrap, topic, b"1")
        until(lambda: len(listener.records) == 1, 20, "the record before the outage")
        own_kafka.kill()
        until(lambda: any(entry["event"] == "feed_down" for entry in logs), 30, "the outage in the log")
        own_kafka.start()
        publish(own_kafka.bootstrap, topic, b"2")
        until(lambda: any(value == b"2" for _, value in listener.records), 30, "the record after the outage")
        until(lambda: any(entry["event"] == "feed_back" for entry in logs), 10, "the end of the outage in the log")
    said = [entry["event"] for entry in logs if entry["log_level"] != "debug"]
    # A broker that is still starting may answer and be away once more; nothing is said twice in a row.
    assert len(said) >= 2
    assert said == ["feed_down", "feed_back"] * (len(said) // 2)


def test_feed_that_crashes_goes_on_where_it_was(
    kafka: KafkaBroker, topic: str, listen: MakeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_topic(kafka.bootstrap, topic)
    listener = listen(kafka.bootstrap, topic)
    assert listener.feed.ready.wait(20)
    publish(kafka.bootstrap, topic, b"1")
    until(lambda: len(listener.records) == 1, 20, "the record before the crash")
    crashed = threading.Event()
    assign = listener.feed._assign_new

    def crash_once(*arguments: object) -> bool:
        if not crashed.is_set():
            # What comes while nobody reads.
            publish(kafka.bootstrap, topic, b"2", b"3")
            crashed.set()
            raise ZeroDivisionError
        return assign(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(listener.feed, "_assign_new", crash_once)
    until(crashed.is_set, 20, "the crash")
    until(lambda: [value for _, value in listener.records] == [b"1", b"2", b"3"], 20, "what came meanwhile")


def test_feed_stops_within_two_seconds(kafka: KafkaBroker, topic: str, listen: MakeFeed) -> None:
    make_topic(kafka.bootstrap, topic)
    listener = listen(kafka.bootstrap, topic)
    assert listener.feed.ready.wait(20)
    began, thread = time.monotonic(), listener.feed._thread
    listener.feed.stop()
    # Two, and what the machine takes for itself.
    assert time.monotonic() - began < 5.0
    publish(kafka.bootstrap, topic, b"late")
    assert thread is not None
    until(lambda: not thread.is_alive(), 20, "the end of the feed")
    assert listener.records == []


def test_idle_feed_sleeps_until_there_is_something(
    kafka: KafkaBroker, topic: str, listen: MakeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    class Watched(Consumer):
        def poll(self, timeout: float = 1.0) -> Any:
            looks.append(time.monotonic())
            return super().poll(timeout)

    monkeypatch.setattr(module, "Consumer", Watched)
    monkeypatch.setattr(module, "_POLL_TIMEOUT", 0.3)
    make_topic(kafka.bootstrap, topic)
    assert listen(kafka.bootstrap, topic).feed.ready.wait(20)
    until(lambda: len(looks) >= 5, 20, "five looks")
    # The first one may find the library still busy with the assignment.
    assert looks[4] - looks[1] >= 3 * 0.3 * 0.9
