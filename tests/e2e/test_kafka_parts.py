"""What is wrong with one topic of Kafka stays there: a real gateway on a real broker."""

import json
from collections.abc import Callable

from tests.support.gateway import Gateway, until
from tests.support.kafka import KafkaBroker
from tests.support.kafka.rules import denied
from tests.support.terminal import Terminal
from tests.support.topics import Topics

MakeGateway = Callable[..., Gateway]


def wait_for_nack(terminal: Terminal, sequence: int, code: str) -> None:
    while (nack := terminal.hear_until("gateway.nack"))["code"] != code or nack["sequence"] != sequence:
        pass
    assert not nack.get("kept"), nack


def test_malformed_frame_harms_nobody_while_failed_messages_cannot_be_written(
    make_gateway: MakeGateway, kafka: KafkaBroker
) -> None:
    topics = Topics(kafka.bootstrap)
    gateway = make_gateway(**topics.settings).start()
    bad, good = (Terminal(gateway, user.token, stream="s1") for user in gateway.users[:2])
    for one in (bad, good):
        one.tick(1)
        one.wait_for_ack(1)
    with denied(kafka.bootstrap, topics.failed):
        for sequence in range(2, 12):
            bad.say("no_such_type", sequence=sequence)
            wait_for_nack(bad, sequence, "unknown_type")
            good.tick(sequence)
            good.wait_for_ack(sequence)
        bad.tick(12)
        bad.wait_for_ack(12)
        assert gateway.metric("gateway_kafka_ill", topic=topics.failed) == 1
        assert gateway.metric("gateway_kafka_failures_total", topic=topics.failed, reason="not_allowed") >= 1
        status, body = gateway.http("/readyz")
        expected = {"status": "ready", "problems": [], "ill": [f"kafka topic {topics.failed}"]}
        assert (status, json.loads(body)) == (200, expected)
        # A process that starts now serves everybody, too.
        late = make_gateway(**topics.settings).start()
        third = Terminal(late, late.users[2].token, stream="s1")
        third.tick(1)
        third.wait_for_ack(1)
    until(lambda: json.loads(gateway.http("/readyz")[1])["ill"] == [], 20, "a topic that is well again")
    assert gateway.metric("gateway_closes_total") == 0
    said = [entry["event"] for entry in gateway.events() if entry["event"].startswith("kafka_topic_")]
    assert said == ["kafka_topic_ill", "kafka_topic_well"]
    assert [entry for entry in gateway.events() if entry["event"] == "kafka_reset"] == []
