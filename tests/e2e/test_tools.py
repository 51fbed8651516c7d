"""The commands an operator and a bridge author use, beside a running gateway."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.gateway import Gateway, run_manage
from tests.support.kafka import KafkaBroker
from tests.support.simulator import Simulator, assert_every_message_has_its_answer
from tests.support.terminal import Terminal
from tests.support.topics import Topics, names_of

MakeGateway = Callable[..., Gateway]


def rows(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_simulator_accounts_for_every_message_in_both_forms(
    make_gateway: MakeGateway, kafka: KafkaBroker, tmp_path: Path
) -> None:
    for form in ("protobuf", "json"):
        topics = Topics(kafka.bootstrap)
        gateway = make_gateway(**topics.settings).start()
        load = ["--clients", "10", "--ticks-per-second", "20", "--batch-size", "2", "--signals-per-second", "20"]
        simulator = Simulator(gateway, tmp_path, *load, "--duration", "3", "--subprotocol", form)
        report = simulator.report(60)
        assert_every_message_has_its_answer(report)
        assert report["refused"] == 0, report
        assert set(report["ack_ms"]) == {"tick_data", "trading_signal"}
        assert {"p50", "p99", "max"} == set(report["ack_ms"]["tick_data"])
        assert sorted(simulator.acknowledged()) == sorted(names_of(topics.read("tick_data", "trading_signal")))


def test_simulator_says_what_is_wrong_with_its_token_file(gateway: Gateway, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for path, reason in ((empty, "no token"), (tmp_path / "absent", "cannot be read")):
        done = run_manage("simulate_mt5", "--token-file", str(path), environment=gateway.environment)
        assert done.returncode == 1
        assert reason in done.stderr
        assert "Traceback" not in done.stderr


def test_tail_prints_stamped_envelopes(make_gateway: MakeGateway, kafka: KafkaBroker) -> None:
    topics = Topics(kafka.bootstrap)
    gateway = make_gateway(**topics.settings).start()
    bob = gateway.users[0]
    terminal = Terminal(gateway, bob.token, stream="ea")
    for sequence in range(1, 6):
        terminal.tick(sequence)
    terminal.wait_for_ack(5)
    printed = rows(gateway.manage("tail", topics.routes["tick_data"], "--from-beginning", "--max", "5", "--json"))
    assert [row["envelope"]["sequence"] for row in printed] == [1, 2, 3, 4, 5]
    for row in printed:
        envelope = row["envelope"]
        assert (row["key"], envelope["user_id"], envelope["stream_id"]) == (bob.user_id, bob.user_id, "ea")
        assert envelope["company_id"]
        assert envelope["received_at"] > 0
        assert envelope["payload"]["ticks"][0]["symbol"] == "EURUSD"


def test_tail_of_an_unknown_topic_says_so(gateway: Gateway) -> None:
    done = run_manage("tail", "no-such-topic", environment=gateway.environment)
    assert (done.returncode, done.stderr.strip()) == (1, "CommandError: there is no topic no-such-topic")


def test_operator_lists_shows_and_replays_failed_messages(make_gateway: MakeGateway, kafka: KafkaBroker) -> None:
    topics = Topics(kafka.bootstrap)
    # This gateway does not know user events yet.
    routes = {kind: topic for kind, topic in topics.routes.items() if kind != "user_event"}
    settings = topics.settings | {"GATEWAY_ROUTES": ",".join(f"{k}={t}" for k, t in routes.items())}
    gateway = make_gateway(**settings).start()
    bob = gateway.users[0]
    terminal = Terminal(gateway, bob.token)
    terminal.say("user_event", sequence=1, payload={"event_type": "login"})
    assert terminal.hear_until("gateway.nack")["code"] == "unknown_type"
    terminal.say("tick_data", sequence=2, ticks="none")
    assert terminal.hear_until("gateway.nack")["code"] == "payload_mismatch"
    terminal.wait_for_ack(2)

    listed = rows(gateway.manage("failed_messages", "list", "--json"))
    assert sorted(row["reason"] for row in listed) == ["payload_mismatch", "unknown_type"]
    assert {(row["user_id"], row["endpoint"]) for row in listed} == {(bob.user_id, "/ws/mt5")}
    [unknown] = [row for row in listed if row["reason"] == "unknown_type"]
    shown = json.loads(gateway.manage("failed_messages", "show", unknown["place"], "--json"))
    assert json.loads(shown["text"])["payload"] == {"event_type": "login"}

    still = rows(gateway.manage("failed_messages", "replay", unknown["place"], "--json"))
    assert [(row["result"], row["code"]) for row in still] == [("refused", "unknown_type")]

    gateway.environment["GATEWAY_ROUTES"] = topics.settings["GATEWAY_ROUTES"]
    dry = rows(gateway.manage("failed_messages", "replay", "--reason", "unknown_type", "--dry-run", "--json"))
    assert [row["result"] for row in dry] == ["valid"]
    done = rows(gateway.manage("failed_messages", "replay", "--reason", "unknown_type", "--json"))
    assert [row["result"] for row in done] == ["replayed"]
    [record] = topics.read("user_event")
    assert (record.key.decode(), record.envelope.received_at) == (bob.user_id, int(unknown["received_at"]))


def test_replaying_everything_needs_a_word(gateway: Gateway) -> None:
    done = run_manage("failed_messages", "replay", environment=gateway.environment)
    assert done.returncode == 1
    assert "--reason" in done.stderr
