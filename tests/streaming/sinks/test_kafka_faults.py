"""What stays where when librdkafka or a broker does what a healthy one does not: a twin of the producer plays it."""

import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from confluent_kafka import KafkaError

from streaming.core.codes import NackAction
from streaming.core.ports import Receipt
from streaming.sinks import contact, health, kafka, lane
from tests.streaming.sinks.twin import DATA, FAILED, PARTITIONS, SIGNALS, Bench, Producer, key_of, until

BOB, ALICE = key_of(0), key_of(1)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(contact, "_ILL_LOOK", 0.01)
    monkeypatch.setattr(contact, "_RECONNECT_PAUSE", 0.01)
    monkeypatch.setattr(health, "_REST", 0.0)
    bench = Bench()
    await bench.start()
    yield bench
    for producer in bench.producers:
        producer.is_stuck = False
    bench.brokers.leaderless.clear()
    bench.brokers.is_away = False
    await bench.sink.close(1.0)


def assert_told_once(bench: Bench, count: int) -> None:
    """Each of 1..count was reported exactly once, and nothing waits."""
    assert bench.told == list(range(1, count + 1))
    assert (bench.sink.in_flight, bench.sink.in_flight_size) == (0, 0)


# --- One partition ----------------------------------------------------------------------------------------------------


async def test_partition_without_a_leader_fails_its_users_and_nobody_else(bench: Bench) -> None:
    bench.brokers.leaderless.add((DATA, 0))
    number = 0
    while not bench.failed:
        bench.publish(number + 1, key=BOB)
        bench.publish(number + 2, key=ALICE)
        number += 2
        await asyncio.sleep(0.005)
    await bench.settle()
    assert bench.failed == list(range(1, number, 2))
    assert bench.delivered == list(range(2, number + 1, 2))
    assert_told_once(bench, number)
    assert bench.sink.available
    assert bench.sink.is_ill
    assert bench.sink.ill_parts() == [(DATA, "0")]
    assert [bench.sink.takes(DATA, key_of(n)) for n in range(PARTITIONS)] == [False, True, True, True]
    assert (bench.sink.takes(SIGNALS, BOB), bench.sink.takes_user(BOB), bench.sink.takes_user(ALICE)) == (
        True,
        False,
        True,
    )


async def test_ill_partition_gets_nothing_until_what_is_held_is_through(bench: Bench) -> None:
    bench.brokers.leaderless.add((DATA, 0))
    for number in (1, 2):
        bench.publish(number, key=BOB)
    await until(lambda: bench.failed == [1, 2])
    bench.publish(3, key=BOB)
    await until(lambda: bench.failed == [1, 2, 3])
    producer = bench.main
    assert [message.value for message in producer.waiting] == [b"1", b"2"]
    bench.brokers.leaderless.clear()
    await until(lambda: not bench.sink.is_ill)
    # The late reports told nobody anything.
    assert (bench.told, bench.main) == ([1, 2, 3], producer)
    for number in (1, 2, 3):
        bench.publish(number, key=BOB)
    await bench.settle()
    # A prefix in order, then everything in order.
    assert bench.recorded() == [1, 2, 1, 2, 3]


async def test_producer_that_misses_the_return_of_a_partition_is_replaced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_PATIENCE", 0.05)
    bench.brokers.leaderless.add((DATA, 0))
    bench.publish(1, key=BOB)
    await until(lambda: bench.failed == [1])
    first = bench.main
    first.is_stuck = True
    bench.brokers.leaderless.clear()
    await until(lambda: bench.main is not first)
    await until(lambda: not bench.sink.is_ill)
    bench.publish(2, key=BOB)
    await bench.settle()
    assert (bench.failed, bench.delivered, bench.recorded()) == ([1], [2], [2])


async def test_user_who_connects_while_a_partition_has_no_leader_is_told_at_once() -> None:
    bench = Bench()
    bench.brokers.leaderless.add((DATA, 0))
    await bench.start()
    assert (bench.sink.takes_user(BOB), bench.sink.takes_user(ALICE)) == (False, True)
    bench.publish(1, key=ALICE)
    await bench.settle()
    assert bench.delivered == [1]
    await bench.sink.close(1.0)


async def test_partition_without_a_leader_does_not_fill_the_process_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka, "_FULL_TIMEOUT", 0.05)
    bench = Bench(timeout=60.0, in_flight_limit=50)
    await bench.start()
    bench.brokers.leaderless.add((DATA, 0))
    for number in range(1, 51):
        bench.publish(number, key=BOB)
    assert bench.sink.is_full
    await until(lambda: not bench.sink.is_full)
    bench.publish(51, key=ALICE)
    await bench.settle()
    assert (bench.failed, bench.delivered) == (list(range(1, 51)), [51])
    await bench.sink.close(1.0)


async def test_late_reports_and_others_of_one_hand_over_are_told_apart(bench: Bench) -> None:
    """As many late reports come at once as messages of the same hand-over still wait."""
    producer = bench.main
    producer.is_stuck = True
    for number in range(1, 5):
        bench.publish(number, key=BOB if number <= 2 else ALICE)
    await until(lambda: len(producer.waiting) == 4)
    [handover] = bench.sink._main._handovers
    illness = bench.sink._health.partition_fails((DATA, 0), "no report")
    for index in (0, 1):
        handover.give_up(index, illness)
        bench.failed.append(index + 1)
    bench.sink.in_flight -= 2
    bench.sink.in_flight_size -= 2
    bobs, producer.waiting = producer.waiting[:2], producer.waiting[2:]
    producer.reports = [(message, None) for message in bobs]
    await until(lambda: illness.held == 0)
    assert bench.delivered == []
    producer.is_stuck = False
    await bench.settle()
    assert_told_once(bench, 4)
    assert bench.delivered == [3, 4]


# --- One topic --------------------------------------------------------------------------------------------------------


async def test_topic_that_refuses_is_settled_and_costs_the_others_nothing(bench: Bench) -> None:
    bench.brokers.refusing[SIGNALS] = KafkaError.TOPIC_AUTHORIZATION_FAILED
    for number in range(1, 201):
        bench.publish(number, DATA if number % 2 else SIGNALS, key_of(number % PARTITIONS))
    await bench.settle()
    assert_told_once(bench, 200)
    assert (sorted(bench.delivered), bench.failed) == (list(range(1, 200, 2)), [])
    assert {error.action for _, error in bench.refused} == {NackAction.REOFFER}
    assert sorted(bench.recorded()) == list(range(1, 200, 2))
    assert bench.sink.available
    assert bench.sink.ill_parts() == [(SIGNALS, "")]
    assert not bench.sink.takes(SIGNALS, ALICE)
    assert bench.sink.takes(DATA, ALICE)
    # Nothing more is handed to it, so that it stops no producer again.
    count = len(bench.producers)
    bench.publish(201, SIGNALS, ALICE)
    await bench.settle()
    assert (bench.refused[-1][0], len(bench.producers)) == (201, count)
    assert bench.sink.failures[SIGNALS, "not_allowed"] == 101


async def test_topic_is_well_again_when_a_look_finds_it_so(bench: Bench) -> None:
    bench.brokers.refusing[SIGNALS] = KafkaError.TOPIC_AUTHORIZATION_FAILED
    bench.publish(1, SIGNALS)
    await bench.settle()
    bench.brokers.refusing.clear()
    await until(lambda: not bench.sink.is_ill)
    bench.publish(2, SIGNALS)
    await bench.settle()
    assert (bench.delivered, [number for number, _ in bench.refused]) == ([2], [1])


async def test_order_of_each_key_is_kept_over_producers_that_stop(bench: Bench) -> None:
    chance = random.Random(7)
    keys = [key_of(n) for n in range(PARTITIONS)]
    sent: dict[bytes, list[int]] = {key: [] for key in keys}
    for number in range(1, 1_001):
        if number % 100 == 0:
            bench.brokers.poison[b"%d" % (number - 50)] = KafkaError.INVALID_RECORD
            await asyncio.sleep(0.003)
        key = chance.choice(keys)
        sent[key].append(number)
        bench.publish(number, DATA, key)
    await bench.settle()
    assert_told_once(bench, 1_000)
    refused = {number for number, _ in bench.refused}
    assert (refused, bench.failed) == ({int(value) for value in bench.brokers.poison}, [])
    for key in keys:
        kept = [int(value) for _, owner, value in bench.brokers.log if owner == key]
        assert kept == [number for number in sent[key] if number not in refused]


# --- One record -------------------------------------------------------------------------------------------------------


async def test_small_messages_of_a_batch_that_is_too_large_are_all_sent_again_in_order(bench: Bench) -> None:
    bench.brokers.batch_limit = 1_000
    for number in range(1, 201):
        bench.publish(number, value=b"%088d" % number)
    await bench.settle()
    assert_told_once(bench, 200)
    assert (bench.delivered, bench.recorded()) == (list(range(1, 201)), list(range(1, 201)))
    assert bench.sink.available


async def test_message_that_is_too_large_by_itself_is_found_and_refused_for_good(bench: Bench) -> None:
    bench.brokers.batch_limit = 1_000
    for number in range(1, 41):
        bench.publish(number, value=b"%0*d" % (1_001 if number == 20 else 88, number))
    await bench.settle()
    assert_told_once(bench, 40)
    [(number, error)] = bench.refused
    assert (number, error.code, error.action) == (20, "too_large", NackAction.FINAL)
    assert bench.recorded() == [n for n in range(1, 41) if n != 20]
    # The next ones as large stop no producer, nor do batches of small ones.
    count = len(bench.producers)
    for number in range(41, 81):
        bench.publish(number, value=b"%0*d" % (1_001 if number == 60 else 88, number))
    await bench.settle()
    assert ([refused for refused, _ in bench.refused], len(bench.producers)) == ([20, 60], count)


# --- failed-messages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        lambda bench: bench.brokers.refusing.update({FAILED: KafkaError.TOPIC_AUTHORIZATION_FAILED}),
        lambda bench: bench.brokers.leaderless.update({(FAILED, n) for n in range(PARTITIONS)}),
        lambda bench: setattr(bench.sink._side._producer, "error", KafkaError(KafkaError._MSG_TIMED_OUT)),
    ],
    ids=["refuses", "no leader", "unknown"],
)
async def test_failed_messages_that_cannot_be_written_closes_nobody(bench: Bench, fault: Any) -> None:
    fault(bench)
    main = bench.main
    for number in range(1, 101):
        bench.publish(number, FAILED if number % 10 == 0 else DATA)
    await bench.settle()
    assert_told_once(bench, 100)
    assert (bench.failed, sorted(number for number, _ in bench.refused)) == ([], list(range(10, 101, 10)))
    assert (bench.sink.available, bench.main) == (True, main)


@pytest.mark.parametrize("is_refusing", [True, False])
async def test_data_is_taken_although_failed_messages_is_not_there_at_the_start(*, is_refusing: bool) -> None:
    bench = Bench()
    if is_refusing:
        bench.brokers.refusing[FAILED] = KafkaError.TOPIC_AUTHORIZATION_FAILED
    else:
        bench.brokers.leaderless.update({(FAILED, n) for n in range(PARTITIONS)})
    await bench.start()
    assert not bench.sink.takes(FAILED, BOB)
    assert bench.sink.takes(DATA, BOB)
    assert (FAILED, "") in bench.sink.ill_parts()
    bench.publish(1)
    bench.publish(2, FAILED)
    await bench.settle()
    assert (bench.delivered, [number for number, _ in bench.refused], bench.failed) == ([1], [2], [])
    await bench.sink.close(1.0)


async def test_producer_that_is_given_up_while_failed_messages_is_waited_for_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the sink would say that it is there, and fail every message for ever."""
    monkeypatch.setattr(contact, "_SIDE_TIMEOUT", 0.2)
    monkeypatch.setattr(contact, "_RECONNECT_PAUSE", 0.01)
    bench = Bench()
    make = bench.make_producer

    def make_slowly(config: dict[str, Any]) -> Producer:
        producer = make(config)
        if len(bench.producers) == 2:
            monkeypatch.setattr(producer, "poll", lambda _timeout: 0)
        return producer

    bench.sink._main._make_producer = bench.sink._side._make_producer = make_slowly  # type: ignore[assignment]
    bench.sink.start()
    await until(lambda: bench.sink._main.is_open)
    assert not bench.sink.available
    bench.sink.reset("fatal")
    await until(lambda: bench.sink.available)
    bench.publish(1)
    await bench.settle()
    assert (bench.delivered, bench.failed) == ([1], [])
    await bench.sink.close(1.0)


async def test_failed_messages_takes_only_its_part_of_what_may_be_in_flight() -> None:
    bench = Bench(in_flight_limit=100)
    await bench.start()
    bench.brokers.leaderless.update({(FAILED, n) for n in range(PARTITIONS)})
    for number in range(1, 91):
        bench.publish(number, FAILED)
    await until(lambda: len(bench.refused) == 65)
    assert not bench.sink.is_full
    bench.brokers.leaderless.clear()
    await bench.settle()
    assert_told_once(bench, 90)
    await bench.sink.close(1.0)


# --- All of Kafka -----------------------------------------------------------------------------------------------------


async def test_kafka_that_does_not_answer_gives_up_all_at_once(bench: Bench) -> None:
    bench.brokers.is_away = True
    for number in range(1, 41):
        bench.publish(number, [DATA, SIGNALS, FAILED][number % 3], key_of(number % PARTITIONS))
    await until(lambda: not bench.sink.available)
    await bench.settle()
    assert sorted(bench.failed) == list(range(1, 41))
    bench.brokers.is_away = False
    await until(lambda: bench.sink.available)
    for number in range(41, 81):
        bench.publish(number)
    await bench.settle()
    assert_told_once(bench, 80)


async def test_report_that_nobody_understands_gives_up_everything(bench: Bench) -> None:
    bench.brokers.leaderless.add((DATA, 0))
    bench.publish(1, key=BOB)
    await asyncio.sleep(0.02)
    bench.main.error = KafkaError(KafkaError._MSG_TIMED_OUT)
    bench.publish(2, key=ALICE)
    await until(lambda: len(bench.failed) == 2)
    bench.brokers.leaderless.clear()
    await until(lambda: bench.sink.available)
    assert (sorted(bench.failed), bench.delivered) == ([1, 2], [])


async def test_fatal_error_of_the_producer_gives_up_everything(bench: Bench) -> None:
    bench.main.is_stuck = True
    bench.publish(1)
    await asyncio.sleep(0.02)
    first = bench.main
    first.config["error_cb"](KafkaError(KafkaError.PRODUCER_FENCED, "fenced", fatal=True))
    await until(lambda: bench.failed == [1])
    await until(lambda: bench.sink.available and bench.main is not first)


@pytest.mark.parametrize("purges_at_once", [True, False])
@pytest.mark.parametrize("is_deaf", [True, False])
async def test_reset_tells_of_every_receipt_whatever_purge_does(
    *, purges_at_once: bool, is_deaf: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "_PURGE_TIMEOUT", 0.05)
    bench = Bench(timeout=60.0)
    bench.purges_at_once = purges_at_once
    await bench.start()
    for producer in bench.producers:
        producer.is_stuck, producer.purge_is_deaf = True, is_deaf
    for number in range(1, 3_001):
        bench.publish(number, FAILED if number % 7 == 0 else DATA, key_of(number % PARTITIONS))
        if number % 500 == 0:
            await asyncio.sleep(0.005)
    old = bench.producers[:2]
    bench.sink.reset("told to")
    assert_told_once(bench, 3_000)
    assert sorted(bench.failed) == list(range(1, 3_001))
    await until(lambda: bench.sink.available)
    # What the old ones still say is heard by nobody.
    for producer in old:
        producer.is_stuck = False
        producer.poll(0)
    bench.publish(3_001)
    await bench.settle()
    assert_told_once(bench, 3_001)
    await bench.sink.close(1.0)


async def test_reset_tells_what_was_delivered_as_delivered(bench: Bench) -> None:
    for number in range(1, 11):
        bench.publish(number)
    bench.sink._main.serve()
    bench.publish(11, key=BOB)
    bench.sink.reset("told to")
    assert (bench.delivered, bench.failed) == (list(range(1, 11)), [11])


# --- The sink itself --------------------------------------------------------------------------------------------------


async def test_listener_that_raises_does_not_stop_the_sink(bench: Bench) -> None:
    crashed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: crashed.append(context))

    def crash(_batch: list[Receipt], _reason: str) -> None:
        raise RuntimeError("a listener's own mistake")

    bench.on_failed = crash
    bench.brokers.leaderless.add((DATA, 0))
    bench.publish(1, key=BOB)
    await until(lambda: len(crashed) == 1)
    bench.publish(2, key=ALICE)
    await until(lambda: bench.delivered == [2])


async def test_close_returns_as_soon_as_everything_is_reported(bench: Bench) -> None:
    for number in range(1, 51):
        bench.publish(number)
    async with asyncio.timeout(5):
        await bench.sink.close(60.0)
    assert (bench.delivered, bench.failed) == (list(range(1, 51)), [])


async def test_close_fails_what_is_never_reported(bench: Bench) -> None:
    bench.main.is_stuck = True
    bench.publish(1)
    await bench.sink.close(0.1)
    assert (bench.failed, bench.sink.in_flight) == ([1], 0)


async def test_turn_that_is_due_is_not_put_off(bench: Bench) -> None:
    bench.sink._next_turn()
    # As the end of a reconnect does in the same round of the loop.
    bench.sink._schedule(60.0)
    await asyncio.sleep(0.01)
    bench.publish(1)
    await until(lambda: bench.delivered == [1])


def test_twin_is_as_strict_as_the_real_one() -> None:
    """A refused batch stops it, and nothing goes past."""
    bench = Bench()
    producer = Producer(bench.brokers, {"batch.size": 1, "stats_cb": lambda _: None})
    heard: list[tuple[bytes, str]] = []

    def note(value: bytes, error: KafkaError | None, _message: object) -> None:
        heard.append((value, error.name() if error else ""))

    for value in (b"1", b"2", b"3"):
        producer.produce(DATA, value, BOB, on_delivery=partial(note, value))
    bench.brokers.poison[b"2"] = KafkaError.INVALID_RECORD
    producer.poll(0)
    assert heard == [(b"1", ""), (b"2", "INVALID_RECORD"), (b"3", "_PURGE_QUEUE")]
