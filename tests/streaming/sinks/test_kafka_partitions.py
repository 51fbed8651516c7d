"""A partition that loses its leader, on two real brokers."""

from collections.abc import Iterator

import pytest
from confluent_kafka import murmur2

from streaming.sinks import contact
from tests.streaming.sinks.on_kafka import new_topic, sink_on, until
from tests.support.kafka import KafkaBroker

KEYS = [b"user-%d" % n for n in range(12)]
# Of three partitions, the last one is on the second broker only.
REPLICAS = [[1], [1], [2]]
AWAY = [key for key in KEYS if murmur2(key, 3) == 2]


@pytest.fixture
def second(own_kafka: KafkaBroker) -> Iterator[KafkaBroker]:
    broker = KafkaBroker(own_kafka.log.parent.parent / "second-kafka", joins=own_kafka)
    broker.start()
    yield broker
    broker.stop()


async def test_partition_without_a_leader_refuses_its_users_only_and_comes_back_in_order(
    own_kafka: KafkaBroker, second: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact, "_ILL_LOOK", 0.2)
    topic = new_topic(own_kafka.bootstrap, replicas=REPLICAS)
    failed = new_topic(own_kafka.bootstrap, replicas=[[1]])
    async with sink_on(own_kafka.bootstrap, [topic], failed, timeout=1.0) as bench:
        owners: dict[int, bytes] = {}

        def publish_round() -> None:
            for key in KEYS:
                number = len(owners) + 1
                owners[number] = key
                bench.publish(number, topic, key)

        publish_round()
        await bench.settle()
        second.kill()
        while not bench.failed:
            publish_round()
            await until(lambda: bench.sink.in_flight < 500)
        await bench.settle()
        assert bench.told == list(owners)
        assert {owners[number] for number in bench.failed} == set(AWAY)
        assert sorted(bench.delivered) == [n for n, key in owners.items() if key not in AWAY or n <= len(KEYS)]
        assert (bench.sink.available, bench.sink.ill_parts()) == (True, [(topic, "2")])
        assert [key for key in KEYS if not bench.sink.takes_user(key)] == AWAY
        lost = list(bench.failed)

        # A process that starts now serves the others.
        async with sink_on(own_kafka.bootstrap, [topic], failed, timeout=1.0) as late:
            late.publish(1_000_000, topic, next(key for key in KEYS if key not in AWAY))
            await late.settle()
            assert late.delivered == [1_000_000]

        second.start()
        await until(lambda: not bench.sink.is_ill)
        for number in lost:
            bench.publish(number, topic, owners[number])
        await bench.settle()
        # First what the producer still held, a beginning of what was lost, then all of it.
        for key in AWAY:
            mine = [number for _, owner, number in bench.read(topic) if owner == key]
            assert list(dict.fromkeys(mine)) == [number for number, owner in owners.items() if owner == key]
