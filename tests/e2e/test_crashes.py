"""What is promised to hold when a process dies: real processes, real SIGKILL."""

import time
from collections.abc import Callable
from pathlib import Path

from tests.support.gateway import Gateway, until
from tests.support.kafka import KafkaBroker
from tests.support.simulator import Simulator, assert_every_message_has_its_answer
from tests.support.strain import Strain
from tests.support.topics import Topics, assert_in_order, names_of

MakeGateway = Callable[..., Gateway]
LOAD = ["--clients", "20", "--ticks-per-second", "40", "--batch-size", "1", "--signals-per-second", "100"]


def assert_nothing_acknowledged_is_lost(simulator: Simulator, topics: Topics) -> None:
    records = topics.read("tick_data", "trading_signal")
    acknowledged = simulator.acknowledged()
    assert len(acknowledged) == len(set(acknowledged)), "a message was counted as acknowledged twice"
    missing = set(acknowledged) - set(names_of(records))
    assert not missing, f"{len(missing)} acknowledged messages are not in Kafka"
    assert_in_order(records)


def test_gateway_that_is_killed_loses_nothing(make_gateway: MakeGateway, kafka: KafkaBroker, tmp_path: Path) -> None:
    topics = Topics(kafka.bootstrap)
    gateway = make_gateway(**topics.settings).start()
    simulator = Simulator(gateway, tmp_path, *LOAD, "--duration", "8")
    until(lambda: gateway.metric("gateway_messages_total", result="acknowledged") > 1500, 30, "a running load")
    gateway.kill()
    gateway.start()
    report = simulator.report(90)
    assert_every_message_has_its_answer(report)
    assert report["reconnects"] >= 20, report
    assert_nothing_acknowledged_is_lost(simulator, topics)


def test_broker_that_is_killed_loses_nothing_and_the_gateway_recovers_by_itself(
    make_gateway: MakeGateway, own_kafka: KafkaBroker, tmp_path: Path
) -> None:
    topics = Topics(own_kafka.bootstrap)
    gateway = make_gateway(**topics.settings, GATEWAY_BACKEND_TIMEOUT="3s").start()
    simulator = Simulator(gateway, tmp_path, *LOAD, "--duration", "14")
    until(lambda: gateway.metric("gateway_messages_total", result="acknowledged") > 1500, 30, "a running load")
    own_kafka.kill()
    until(lambda: gateway.http("/readyz")[0] == 503, 20, "a gateway that says it is not ready")
    assert gateway.metric("gateway_kafka_breaker_state") == 1
    until(lambda: gateway.metric("gateway_closes_total", code="4003") == 20, 20, "every terminal told 4003")
    time.sleep(2)
    own_kafka.start()
    until(lambda: gateway.http("/readyz")[0] == 200, 60, "a gateway that is ready again")
    report = simulator.report(120)
    assert_every_message_has_its_answer(report)
    assert report["closes"].get("4003") == 20, report
    assert_nothing_acknowledged_is_lost(simulator, topics)
    assert gateway.process is not None
    assert gateway.process.poll() is None


def test_drain_ends_every_connection_with_a_hint_and_loses_nothing(
    make_gateway: MakeGateway, kafka: KafkaBroker, tmp_path: Path
) -> None:
    topics = Topics(kafka.bootstrap)
    gateway = make_gateway(**topics.settings, GATEWAY_DRAIN_TIMEOUT="10s").start()
    simulator = Simulator(gateway, tmp_path, *LOAD, "--duration", "8")
    until(lambda: gateway.metric("gateway_messages_total", result="acknowledged") > 1500, 30, "a running load")
    began = time.monotonic()
    with Strain() as strain:
        assert gateway.stop() == 0
    assert time.monotonic() - began < (10 + 5) * strain.factor, "the drain took longer than it may"
    gateway.start()
    report = simulator.report(90)
    assert_every_message_has_its_answer(report)
    assert report["closes"].get("1012") == 20, report
    assert_nothing_acknowledged_is_lost(simulator, topics)
    assert gateway.errors() == []
