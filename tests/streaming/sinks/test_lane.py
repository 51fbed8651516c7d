"""What stays together when a part of a lane is given up."""

import time
from typing import Any, cast

import pytest

from streaming.core.session import Session
from streaming.sinks.health import Health
from streaming.sinks.lane import Lane
from streaming.sinks.look import TopicState
from tests.streaming.sinks.twin import DATA, PARTITIONS, Brokers, Producer, key_of

BOB, ALICE = key_of(0), key_of(1)
WELL = TopicState("", (True,) * PARTITIONS, None)


@pytest.fixture
def lane() -> Lane:
    """Its producer sends nothing."""
    brokers, health = Brokers(), Health()
    health.note({DATA: WELL})

    def make(config: dict[str, Any]) -> Any:
        producer = Producer(brokers, config)
        producer.is_stuck = not producers
        producers.append(producer)
        return producer

    producers: list[Producer] = []
    lane = Lane({}, [DATA], health, make)
    lane.open(lane.make_producer())
    return lane


def put(lane: Lane, number: int, key: bytes) -> None:
    lane.queue.append((DATA, key, b"%d" % number, (cast(Session, None), number, 0.0, None, 1, 0), None))


def failed(lane: Lane) -> list[int]:
    return sorted(receipt[1] for receipt in lane.failed)


def go_on(lane: Lane) -> list[int]:
    """What is delivered once the producer that stops has been replaced."""
    lane.is_held = False
    deadline = time.monotonic() + 5
    while lane._stopping_until and time.monotonic() < deadline:
        lane.serve()
        time.sleep(0.01)
    lane.serve()
    return sorted(receipt[1] for receipt in lane.delivered)


def test_what_waits_behind_a_partition_that_is_given_up_goes_with_it(lane: Lane) -> None:
    """Were it sent once the partition is well, it would be in front of what its client sends again."""
    put(lane, 1, BOB)
    put(lane, 2, ALICE)
    lane.serve()
    lane.stop()
    put(lane, 3, BOB)
    put(lane, 4, ALICE)
    place = lane._place(lane.queue[0])
    lane.give_up_overdue(time.monotonic(), {place})
    assert failed(lane) == [1, 3]
    lane._health.nothing_is_held([DATA])
    lane._health.note({DATA: WELL})
    assert not lane._health.is_ill
    assert go_on(lane) == [2, 4]
    assert failed(lane) == [1, 3]


def test_what_waits_behind_something_that_may_be_recorded_goes_with_it(lane: Lane) -> None:
    """The topic is ill when the producer stops, and well before the next one gets anything."""
    put(lane, 1, BOB)
    lane.serve()
    lane.stop()
    put(lane, 2, BOB)
    put(lane, 3, ALICE)
    lane._health.topic_fails(DATA, "not_allowed")
    lane.is_held = False
    while lane._stopping_until:
        lane.serve()
        time.sleep(0.01)
    lane._health.topic_is_well(DATA)
    assert go_on(lane) == [3]
    assert failed(lane) == [1, 2]


def test_list_that_is_written_to_stays_the_same(lane: Lane) -> None:
    queue = lane.queue
    put(lane, 1, BOB)
    lane.serve()
    lane.stop()
    put(lane, 2, BOB)
    lane.give_up_overdue(time.monotonic())
    assert lane.queue is queue == []
