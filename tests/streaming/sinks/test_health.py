"""When a topic or a partition counts as ill and as well again."""

import pytest
from confluent_kafka import murmur2
from structlog.testing import capture_logs

from streaming.sinks import health as module
from streaming.sinks.health import Health
from streaming.sinks.look import TopicState
from tests.streaming.shell_cast import Clock

WELL = TopicState("", (True, True), 1_000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, module)


@pytest.fixture
def health(clock: Clock) -> Health:
    health = Health()
    health.note({"a": WELL, "b": WELL})
    return health


@pytest.mark.parametrize(
    ("key", "number"),
    [
        # Of the Java client's own tests: the hash of its murmur2 without the sign, over a count that leaves it whole.
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_partition_of_a_key_is_the_one_of_java_clients(key: bytes, number: int) -> None:
    for count in (1, 6, 48, 2**31 - 1):
        assert murmur2(key, count) == (number & 0x7FFFFFFF) % count


def test_topic_that_fails_again_at_once_rests_longer_each_time(health: Health, clock: Clock) -> None:
    rests = []
    for _ in range(8):
        health.topic_fails("a", "not_allowed")
        began = clock.elapsed
        while health.is_ill:
            clock.elapsed += 0.5
            health.note({"a": WELL, "b": WELL})
        rests.append(clock.elapsed - began)
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60]
    clock.elapsed += 600
    health.topic_fails("a", "not_allowed")
    clock.elapsed += 1
    health.note({"a": WELL, "b": WELL})
    assert not health.is_ill


def test_running_partition_is_not_ill_for_an_election_but_a_new_sink_waits_for_it(health: Health) -> None:
    electing = TopicState("", (True, False), 1_000)
    health.note({"a": electing})
    assert (health.is_ill, health.leaderless) == (False, {("a", 1)})
    health.note({"a": electing}, nothing_in_flight=["a"])
    assert health.parts() == [("a", "1")]
    health.note({"a": WELL})
    assert (health.is_ill, health.leaderless) == (False, set())


def test_partition_stays_ill_while_something_of_it_is_held(health: Health, clock: Clock) -> None:
    illness = health.partition_fails(("a", 0), "no report")
    illness.held = 2
    health.note({"a": WELL})
    clock.elapsed += 4
    health.note({"a": WELL})
    assert (health.is_ill, health.stuck) == (True, set())
    clock.elapsed += 2
    health.note({"a": WELL})
    assert (health.is_ill, health.stuck) == (True, {"a"})
    health.nothing_is_held(["a"])
    health.note({"a": WELL})
    assert not health.is_ill


def test_somebody_is_taken_as_long_as_one_partition_is_well(health: Health) -> None:
    for place in (("a", 0), ("a", 1), ("b", 0)):
        health.partition_fails(place, "no report")
    assert health.takes_somebody(["a", "b"])
    assert not health.takes_somebody(["a"])
    health.topic_fails("b", "not_allowed")
    assert not health.takes_somebody(["a", "b"])


def test_limit_that_was_concluded_is_believed_for_a_time_and_not_against_the_brokers(
    health: Health, clock: Clock
) -> None:
    health.learn_limit("a", 500)
    health.learn_limit("new", 700)
    assert (health.limit_of("a"), health.limit_of("new")) == (500, 700)
    health.note({"a": WELL, "new": TopicState("", (True,), None)})
    assert (health.limit_of("a"), health.limit_of("new")) == (1_000, 700)
    clock.elapsed += 601
    assert health.limit_of("new") is None


def test_log_has_one_line_when_an_illness_begins_and_one_when_it_ends(health: Health, clock: Clock) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            health.topic_fails("a", "missing")
            health.partition_fails(("b", 1), "no report")
            health.note({"a": TopicState("missing", (), None)})
        clock.elapsed += 10
        for _ in range(3):
            health.note({"a": WELL, "b": WELL})
    assert [(entry["event"], entry["topic"]) for entry in logs] == [
        ("kafka_topic_ill", "a"),
        ("kafka_partition_ill", "b"),
        ("kafka_topic_well", "a"),
        ("kafka_partition_well", "b"),
    ]
