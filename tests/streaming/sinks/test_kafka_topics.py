"""What one topic of a real broker refuses costs the others nothing."""

from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from streaming.core.codes import NackAction
from streaming.sinks import contact, faults
from tests.streaming.sinks.on_kafka import Bench, new_topic, sink_on, until
from tests.support.kafka import KafkaBroker
from tests.support.kafka.rules import denied, deny, forget_rules

LIMIT = 100_000


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact, "_ILL_LOOK", 0.1)


@pytest.fixture
def bootstrap(kafka: KafkaBroker) -> str:
    return kafka.bootstrap


@pytest.fixture
def data(bootstrap: str) -> str:
    return new_topic(bootstrap, 6)


@pytest.fixture
def failed(bootstrap: str) -> Iterator[str]:
    topic = new_topic(bootstrap)
    yield topic
    forget_rules(bootstrap, topic)


def lower_limit(bootstrap: str, topic: str, limit: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(limit), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result()


def assert_all_there(bench: Bench, topic: str, numbers: list[int]) -> None:
    """Delivered, nothing else told, and recorded once, in order for each key."""
    assert (bench.told, bench.failed, bench.refused) == (numbers, [], [])
    by_key: dict[bytes, list[int]] = {}
    for _, key, number in bench.read(topic):
        by_key.setdefault(key, []).append(number)
    assert sorted(number for kept in by_key.values() for number in kept) == numbers
    assert all(kept == sorted(kept) for kept in by_key.values())


async def test_failed_messages_without_the_right_to_write_delays_and_closes_nobody(
    bootstrap: str, data: str, failed: str
) -> None:
    with denied(bootstrap, failed):
        async with sink_on(bootstrap, [data], failed) as bench:
            assert bench.sink.ill_parts() == [(failed, "")]
            for number in range(1, 501):
                bench.publish(number, failed if number % 50 == 0 else data, b"user-%d" % (number % 9))
            await bench.settle()
            assert bench.told == list(range(1, 501))
            assert (bench.failed, [number for number, _ in bench.refused]) == ([], list(range(50, 501, 50)))
            assert (bench.sink.available, bench.sink.takes_user(b"user-1")) == (True, True)
            forget_rules(bootstrap, failed)
            await until(lambda: not bench.sink.is_ill)
            bench.publish(501, failed)
            await bench.settle()
            assert bench.delivered[-1] == 501


async def test_right_that_is_taken_from_failed_messages_later_stops_no_data(
    bootstrap: str, data: str, failed: str
) -> None:
    async with sink_on(bootstrap, [data], failed) as bench:
        bench.publish(1, failed)
        await bench.settle()
        deny(bootstrap, failed)
        main, number = bench.sink._main._producer, 1
        while not bench.refused:
            number += 1
            bench.publish(number, failed if number % 5 == 0 else data, b"user-%d" % (number % 9))
            await bench.settle()
        assert (bench.told, bench.failed) == (list(range(1, number + 1)), [])
        assert bench.sink._main._producer is main
        assert bench.sink.ill_parts() == [(failed, "")]


async def test_failed_messages_with_a_tiny_limit_refuses_only_what_is_larger(bootstrap: str, data: str) -> None:
    failed = new_topic(bootstrap, max_message_bytes="1024")
    async with sink_on(bootstrap, [data], failed) as bench:
        for number in range(1, 41):
            headers = [("reason", b"malformed"), ("message_type", b"tick_data")]
            bench.publish(number, failed, size=2_000 if number % 4 == 0 else 500, headers=headers)
            bench.publish(100 + number, data)
        await bench.settle()
        assert sorted(number for number, _ in bench.refused) == list(range(4, 41, 4))
        assert (bench.failed, bench.sink.is_ill) == ([], False)
        assert len(bench.read(failed)) == 30


@pytest.mark.parametrize("compression", ["none", "lz4"])
async def test_batches_are_never_larger_than_the_topic_takes(bootstrap: str, failed: str, compression: str) -> None:
    topic = new_topic(bootstrap, max_message_bytes=str(LIMIT))
    async with sink_on(bootstrap, [topic], failed, options={"compression.type": compression}) as bench:
        first = bench.sink._main._producer
        for number in range(1, 221):
            bench.publish(number, topic, b"user-%d" % (number % 5), size=33_000 if number <= 20 else 8_800)
        await bench.settle()
        assert_all_there(bench, topic, list(range(1, 221)))
        assert bench.sink._main._producer is first


async def test_limit_that_is_lowered_under_way_loses_and_reorders_nothing(bootstrap: str, failed: str) -> None:
    topic = new_topic(bootstrap)
    async with sink_on(bootstrap, [topic], failed) as bench:
        bench.publish(1, topic)
        await bench.settle()
        lower_limit(bootstrap, topic, LIMIT)
        for number in range(2, 222):
            bench.publish(number, topic, b"user-%d" % (number % 5), size=33_000 if number <= 21 else 8_800)
        await bench.settle()
        assert_all_there(bench, topic, list(range(1, 222)))


async def test_limit_that_may_not_be_known_is_found(bootstrap: str, data: str, failed: str) -> None:
    topic = new_topic(bootstrap, max_message_bytes=str(LIMIT))
    with denied(bootstrap, topic, AclOperation.DESCRIBE_CONFIGS):
        async with sink_on(bootstrap, [topic, data], failed) as bench:
            for number in range(1, 201):
                bench.publish(number, topic, b"user-%d" % (number % 5), size=120_000 if number == 100 else 8_800)
            await bench.settle()
            [(refused, error)] = bench.refused
            assert (refused, error.code, error.action) == (100, "too_large", NackAction.FINAL)
            bench.refused.clear()
            assert_all_there(bench, topic, [number for number in range(1, 201) if number != 100])


async def test_record_is_refused_exactly_from_the_size_on_that_the_broker_refuses(bootstrap: str, failed: str) -> None:
    topic = new_topic(bootstrap, max_message_bytes="5000")
    key, headers = b"user-1", [("reason", b"malformed"), ("empty", b"")]
    fits = next(n for n in range(4_000, 5_001) if faults.batch_size_of(key, b"0" * n, headers) == 5_000)
    async with sink_on(bootstrap, [topic], failed) as bench:
        bench.publish(1, topic, key, fits, headers)
        bench.publish(2, topic, key, fits + 1, headers)
        await bench.settle()
        assert (bench.delivered, [number for number, _ in bench.refused]) == ([1], [2])
        # The broker agrees: when the sink does not know the limit, it hears the same of it.
        bench.sink._health.limits.clear()
        bench.publish(3, topic, key, fits, headers)
        bench.publish(4, topic, key, fits + 1, headers)
        await bench.settle()
        assert (bench.delivered, [number for number, _ in bench.refused]) == ([1, 3], [2, 4])


async def test_partition_of_a_key_is_the_one_where_its_records_are(bootstrap: str, data: str, failed: str) -> None:
    async with sink_on(bootstrap, [data], failed) as bench:
        for number in range(60):
            bench.publish(number, data, b"user-%d" % number)
        await bench.settle()
        places = {(partition, key) for partition, key, _ in bench.read(data)}
        assert places == {(bench.sink._health.partition_of(data, key), key) for _, key in places}
        assert len(places) == 60
        assert len({partition for partition, _ in places}) == 6


async def test_topic_that_is_deleted_costs_the_others_nothing_and_is_made_anew(
    bootstrap: str, data: str, failed: str
) -> None:
    topic = new_topic(bootstrap, 3)
    async with sink_on(bootstrap, [data, topic], failed, timeout=2.0) as bench:
        bench.publish(1, topic)
        await bench.settle()
        admin = AdminClient({"bootstrap.servers": bootstrap})
        admin.delete_topics([topic])[topic].result(timeout=20)
        for number in range(2, 102):
            bench.publish(number, [data, topic][number % 2], b"user-%d" % (number % 9))
        await bench.settle()
        assert bench.told == list(range(1, 102))
        assert {*range(2, 102, 2)} <= set(bench.delivered)
        assert bench.sink.available
        await until(lambda: not bench.sink.is_ill)
        bench.publish(102, topic)
        await bench.settle()
        assert bench.delivered[-1] == 102
