"""A session driven through its ports, without sockets (spec section 2)."""

import dataclasses
import json
import math
from typing import Any

import pytest

from proto.gateway.v1 import control_pb2, envelope_pb2, payloads_pb2
from streaming.core.codes import CloseCode
from streaming.core.policy import ConnectionLimits
from streaming.core.replies import JSON
from streaming.core.stream import SEQUENCE_LIMIT, StreamPosition
from tests.streaming.core.cast import BOB, GOOD_UNTIL_MS, NOW_US, Terminal, signal, ticks


def test_terminal_ticks_arrive_stamped_and_are_acknowledged_after_delivery() -> None:
    bob = Terminal()
    bob.send(sequence=1, stream_id="s1", user_id="eve", company_id="beta", session_id="x", received_at=7)
    assert bob.acks() == []
    bob.sink.deliver()
    [record] = bob.sink.records
    assert (record.topic, record.key) == ("tick-data", b"bob")
    [envelope] = bob.records("tick-data")
    assert (envelope.user_id, envelope.company_id, envelope.session_id) == ("bob", "alpha", "c0ffee")
    assert (envelope.received_at, envelope.sequence, envelope.stream_id) == (NOW_US, 1, "s1")
    assert bob.acks() == [1]


@pytest.mark.parametrize(
    ("message_type", "payload", "topic"),
    [
        ("tick_data", ticks(), "tick-data"),
        ("trading_signal", signal(), "trading-signals"),
        ("user_event", payloads_pb2.UserEvent(event_type="login"), "user-events"),
        ("notification", payloads_pb2.Notification(title="margin call"), "notifications"),
    ],
)
def test_each_message_type_goes_to_its_topic(message_type: str, payload: payloads_pb2.UserEvent, topic: str) -> None:
    bob = Terminal()
    bob.send(message_type, payload, sequence=1)
    bob.sink.deliver()
    assert [record.topic for record in bob.sink.records] == [topic]


def test_unknown_fields_of_a_client_never_reach_kafka() -> None:
    bob = Terminal()
    smuggled = b"\xfa\x3f\x05PROOF"  # field 1023, five bytes
    tick = payloads_pb2.Tick(symbol="EURUSD", bid=1, ask=1).SerializeToString() + smuggled
    payload = b"\x0a" + bytes([len(tick)]) + tick + smuggled
    envelope = envelope_pb2.MessageEnvelope(message_type="tick_data", payload=payload, sequence=1)
    bob.frame(envelope.SerializeToString() + smuggled)
    bob.sink.deliver()
    [record] = bob.sink.records
    assert record.topic == "tick-data"
    assert b"PROOF" not in record.value


def test_ticks_of_inactive_pairs_are_taken_out_with_one_notice() -> None:
    bob = Terminal()
    for sequence in (1, 2):
        bob.send(payload=ticks("EURUSD", "BTCUSD"), sequence=sequence)
    bob.sink.deliver()
    for envelope in bob.records("tick-data"):
        batch = payloads_pb2.BatchTickData.FromString(envelope.payload)
        assert ([tick.symbol for tick in batch.ticks], batch.account) == (["EURUSD"], "1001")
    [notice] = bob.heard("gateway.notice")
    assert (notice.code, dict(notice.detail)) == ("pair_not_active", {"symbols": "BTCUSD"})


def test_batch_with_no_active_pair_is_refused_and_settled() -> None:
    bob = Terminal()
    bob.send(payload=ticks("BTCUSD"), sequence=1)
    assert bob.nacks() == [(1, "pair_not_active")]
    assert bob.acks() == [1]
    assert bob.sink.in_flight == 0


@pytest.mark.parametrize(
    ("message_type", "payload", "code"),
    [
        ("tick_data", ticks(account="9"), "account_unknown"),
        ("trading_signal", signal(account="9"), "account_unknown"),
        ("trading_signal", signal("BTCUSD"), "pair_not_active"),
        ("user_event", payloads_pb2.UserEvent(event_type="x", account="9"), "account_unknown"),
        ("notification", payloads_pb2.Notification(title="x", account="9"), "account_unknown"),
    ],
)
def test_what_the_policy_does_not_allow_is_refused(
    message_type: str, payload: payloads_pb2.UserEvent, code: str
) -> None:
    bob = Terminal()
    bob.send(message_type, payload, sequence=1)
    bob.sink.deliver()
    assert bob.nacks() == [(1, code)]
    assert bob.sink.records == []


@pytest.mark.parametrize(("message_type", "feature"), [("trading_signal", "signals"), ("notification", "alerts")])
def test_feature_outside_the_plan_is_refused(message_type: str, feature: str) -> None:
    bob = Terminal(dataclasses.replace(BOB, features=BOB.features - {feature}))
    payload = signal() if message_type == "trading_signal" else payloads_pb2.Notification(title="x")
    bob.send(message_type, payload, sequence=1)
    assert bob.nacks() == [(1, "feature_not_in_plan")]


@pytest.mark.parametrize(
    ("message_type", "payload"),
    [
        ("tick_data", b"\xff\xff"),
        ("tick_data", ticks(bid=math.nan).SerializeToString()),
        ("tick_data", ticks(bid=math.inf).SerializeToString()),
        ("tick_data", ticks(bid=-math.inf).SerializeToString()),
        ("tick_data", ticks("").SerializeToString()),
        ("tick_data", ticks("X" * 33).SerializeToString()),
        ("tick_data", b"\x12\x02\xff\xfe"),
        ("trading_signal", ticks("EURUSD").SerializeToString()),
        ("trading_signal", payloads_pb2.TradingSignal(symbol="EURUSD").SerializeToString()),
        ("trading_signal", signal(price=math.nan).SerializeToString()),
        ("user_event", b""),
        (
            "user_event",
            payloads_pb2.UserEvent(event_type="x", attributes={str(i): "" for i in range(65)}).SerializeToString(),
        ),
        ("notification", b""),
        ("notification", payloads_pb2.Notification(title="x", severity=9).SerializeToString()),  # type: ignore[arg-type]  # wrong on purpose
    ],
)
def test_payload_that_does_not_match_is_nacked_and_kept_as_it_came(message_type: str, payload: bytes) -> None:
    bob = Terminal()
    frame = envelope_pb2.MessageEnvelope(message_type=message_type, payload=payload, sequence=1).SerializeToString()
    bob.frame(frame)
    assert (bob.nacks(), bob.acks()) == ([], []), "told and settled only when Kafka has the record"
    bob.sink.deliver()
    [nack] = bob.heard("gateway.nack")
    assert (nack.sequence, nack.code, nack.settled, nack.kept) == (1, "payload_mismatch", True, True)
    [record] = bob.sink.records
    assert (record.topic, record.key, record.value) == ("failed-messages", b"bob", frame)
    headers = dict(record.headers or ())
    assert headers == {
        "user_id": b"bob",
        "company_id": b"alpha",
        "session_id": b"c0ffee",
        "endpoint": b"/ws/mt5",
        "reason": b"payload_mismatch",
        "received_at": str(NOW_US).encode(),
        "message_type": message_type.encode(),
    }
    assert bob.acks() == [1]


def test_unknown_type_is_nacked_and_kept() -> None:
    bob = Terminal()
    bob.send("tick_dat", sequence=1)
    bob.sink.deliver()
    assert bob.nacks() == [(1, "unknown_type")]
    assert [record.topic for record in bob.sink.records] == ["failed-messages"]


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff" * 40,
        b"\x0a\xff\xff\xff\xff\x07",
        b"\x0a\x02\xff\xfe",
        "{",
        "[" * 60_000,
        '{"message_type":1}',
        '{"message_type":"tick_data","sequence":-1}',
        '{"message_type":"tick_data","sequence":1.5}',
        '{"message_type":"tick_data","sequence":NaN}',
        '{"message_type":"tick_data","ticks":[{"symbol":"EURUSD","bid":Infinity}]}',
        '{"message_type":"tick_data","sequence":9007199254740992}',
        '{"message_type":"tick_data","sequence":7,"ticks":[{"symbol":"EURUSD","bid":1,1}]}',
    ],
)
def test_unreadable_frame_is_nacked_without_a_sequence_and_kept(frame: bytes | str) -> None:
    bob = Terminal()
    bob.frame(frame)
    assert bob.nacks() == []
    bob.sink.deliver()
    assert bob.nacks() == [(0, "malformed")]
    assert [nack.kept for nack in bob.heard("gateway.nack")] == [True]
    [record] = bob.sink.records
    assert record.value == (frame.encode() if isinstance(frame, str) else frame)


@pytest.mark.parametrize(
    "ticks_json",
    [
        '[{"symbol":"EURUSD","bid":"1.1"}]',
        '[{"symbol":"EURUSD","bid":1e999}]',
        '[{"symbol":"EURUSD","time_msc":1.5}]',
        '[{"bid":1}]',
        '{"symbol":"EURUSD"}',
        "[]",
        "[[[[]]]]",
    ],
)
def test_wrong_value_in_a_json_batch_is_refused_under_its_own_sequence(ticks_json: str) -> None:
    bob = Terminal(form=JSON)
    bob.frame(f'{{"message_type":"tick_data","sequence":1,"ticks":{ticks_json}}}')
    bob.sink.deliver()
    [nack, ack] = [json.loads(text) for text in bob.peer.sent]
    assert (nack["payload"]["sequence"], nack["payload"]["code"]) == (1, "payload_mismatch")
    assert ack == {"message_type": "gateway.ack", "payload": {"sequence": 1}}


def test_json_batch_becomes_one_protobuf_batch() -> None:
    bob = Terminal(form=JSON)
    bob.frame(
        '{"message_type":"tick_data","sequence":1,"stream_id":"s1","timestamp":1700000000000,"account":"1001",'
        '"ticks":[{"symbol":"EURUSD","bid":1.1,"ask":1.2,"time_msc":1700000000000,"volume":1},'
        '{"symbol":"XAUUSD","bid":2000,"ask":2001}]}'
    )
    bob.sink.deliver()
    [envelope] = bob.records("tick-data")
    batch = payloads_pb2.BatchTickData.FromString(envelope.payload)
    assert [(t.symbol, t.bid, t.ask) for t in batch.ticks] == [("EURUSD", 1.1, 1.2), ("XAUUSD", 2000.0, 2001.0)]
    assert (batch.account, envelope.timestamp, envelope.user_id) == ("1001", 1_700_000_000_000, "bob")


def test_json_signal_takes_the_action_by_name() -> None:
    bob = Terminal(form=JSON)
    bob.frame('{"message_type":"trading_signal","sequence":1,"payload":{"symbol":"EURUSD","action":"SELL"}}')
    bob.sink.deliver()
    [envelope] = bob.records("trading-signals")
    assert payloads_pb2.TradingSignal.FromString(envelope.payload).action == payloads_pb2.TRADE_ACTION_SELL


# --- Sequences --------------------------------------------------------------------------------------------------------


def test_acknowledgement_is_cumulative_and_waits_for_the_earliest() -> None:
    bob = Terminal()
    for sequence in (1, 2, 3):
        bob.send(sequence=sequence)
    bob.session.delivered(3, False, 0)
    bob.session.delivered(2, False, 0)
    assert bob.acks() == []
    bob.session.delivered(1, False, 0)
    assert bob.acks() == [3]


def test_message_without_sequence_is_sent_on_and_not_acknowledged() -> None:
    bob = Terminal()
    bob.send(sequence=0)
    bob.sink.deliver()
    assert len(bob.sink.records) == 1
    assert bob.acks() == []


def test_repeated_message_is_acknowledged_and_not_produced_again() -> None:
    bob = Terminal()
    bob.send(sequence=1)
    bob.sink.deliver()
    bob.send(sequence=1)
    bob.sink.deliver()
    assert len(bob.sink.records) == 1
    assert bob.acks() == [1, 1]
    assert bob.nacks() == [(1, "duplicate")]


def test_repeated_message_that_is_still_in_flight_is_not_produced_again() -> None:
    bob = Terminal()
    bob.send(sequence=1)
    bob.send(sequence=1)
    bob.sink.deliver()
    assert len(bob.sink.records) == 1
    assert (bob.acks(), bob.nacks()) == ([1], [])


def test_gap_is_refused_until_the_missing_message_comes() -> None:
    bob = Terminal()
    for sequence in (1, 3, 2, 3):
        bob.send(sequence=sequence)
    bob.sink.deliver()
    assert bob.nacks() == [(3, "sequence_gap")]
    assert [envelope.sequence for envelope in bob.records("tick-data")] == [1, 2, 3]
    assert bob.acks()[-1] == 3


def test_unreadable_frame_uses_up_one_sequence() -> None:
    bob = Terminal()
    bob.send(sequence=1)
    bob.frame(b"\xff\xff\xff")
    bob.send(sequence=3)
    bob.sink.deliver()
    assert bob.nacks() == [(2, "malformed")]
    assert bob.acks()[-1] == 3


def test_first_message_of_a_connection_may_go_on_above_the_known_position() -> None:
    bob = Terminal(position=StreamPosition(40))
    bob.send(sequence=51)
    bob.sink.deliver()
    assert bob.acks() == [51]


def test_new_connection_of_a_stream_does_not_repeat_what_is_in_flight() -> None:
    first = Terminal()
    first.send(sequence=1)
    first.session.lost()
    second = Terminal(position=first.session.position)
    second.send(sequence=1)
    assert second.sink.in_flight == 0
    first.sink.deliver()
    second.session.flush_ack()
    assert second.acks() == [1]


def test_failure_after_the_connection_is_gone_lets_its_successor_send_again() -> None:
    first = Terminal()
    first.send(sequence=1)
    first.session.lost()
    first.sink.fail()
    second = Terminal(position=first.session.position)
    second.send(sequence=1)
    second.sink.deliver()
    assert len(second.sink.records) == 1
    assert second.acks() == [1]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"stream_id": "other"}, "another stream"),
        ({"sequence": SEQUENCE_LIMIT + 1}, "a sequence that JSON cannot carry"),
        ({"correlation_id": "x" * 65}, "a correlation id of 65 characters"),
    ],
)
def test_envelope_that_contradicts_the_connection_is_malformed(fields: dict[str, Any], reason: str) -> None:
    bob = Terminal()
    bob.send(**fields)
    bob.sink.deliver()
    assert [code for _, code in bob.nacks()] == ["malformed"], reason


def test_largest_sequence_is_taken() -> None:
    bob = Terminal(position=StreamPosition(SEQUENCE_LIMIT - 1))
    bob.send(sequence=SEQUENCE_LIMIT)
    bob.sink.deliver()
    assert bob.acks() == [SEQUENCE_LIMIT]


# --- Limits and back-pressure -----------------------------------------------------------------------------------------


def test_user_at_the_rate_passes_and_one_above_is_refused_with_a_hint() -> None:
    bob = Terminal()
    for sequence in range(1, 52):
        bob.send(sequence=sequence)
    bob.sink.deliver()
    [nack] = bob.heard("gateway.nack")
    assert (nack.sequence, nack.code, nack.retryable, nack.settled) == (51, "rate_limited", False, True)
    assert control_pb2.NackAction.Name(nack.action) == "NACK_ACTION_REOFFER"
    assert 1 <= nack.retry_after_ms <= 20
    assert bob.acks()[-1] == 51
    bob.now += nack.retry_after_ms / 1000
    bob.send(sequence=52)
    assert len(bob.nacks()) == 1


def test_flood_of_unreadable_frames_does_not_flood_failed_messages() -> None:
    bob = Terminal()
    for _ in range(200):
        bob.frame(b"\xff")
    bob.sink.deliver()
    assert len(bob.sink.records) == 50
    assert [code for _, code in bob.nacks()].count("rate_limited") == 150


def test_full_window_stops_reading_until_half_of_it_is_delivered() -> None:
    bob = Terminal(limits=ConnectionLimits(in_flight_limit=4))
    paused = []
    for sequence in (1, 2, 3, 4):
        bob.send(sequence=sequence)
        paused.append(bob.peer.is_paused)
    for _ in range(2):
        bob.sink.deliver(1)
        paused.append(bob.peer.is_paused)
    assert paused == [False, False, False, True, True, False]


def test_full_sink_stops_reading_until_it_has_room() -> None:
    bob = Terminal(in_flight_limit=2)
    bob.send(sequence=1)
    bob.send(sequence=2)
    assert bob.peer.is_paused
    bob.sink.deliver()
    assert not bob.peer.is_paused


def test_stopped_session_reads_no_more_but_settles_what_it_has() -> None:
    bob = Terminal()
    bob.send(sequence=1)
    bob.session.stop_reading()
    bob.sink.deliver()
    assert bob.peer.is_paused
    assert bob.acks() == [1]


# --- Kafka away -------------------------------------------------------------------------------------------------------


def test_failed_delivery_nacks_everything_unanswered_and_closes_with_a_hint() -> None:
    bob = Terminal()
    for sequence in (1, 2, 3):
        bob.send(sequence=sequence)
    bob.sink.deliver(1)
    bob.sink.fail()
    assert bob.acks() == [1]
    assert bob.nacks() == [(2, "backend_unavailable"), (3, "backend_unavailable")]
    [disconnect] = bob.heard("gateway.disconnect")
    assert (disconnect.code, disconnect.reconnect, disconnect.retry_after_ms) == (4003, True, 2_000)
    assert bob.peer.closed == (CloseCode.BACKEND_UNAVAILABLE, "ra=2000;j=3000")
    assert bob.session.position.expected == 2


def test_message_while_kafka_is_away_is_nacked_at_once() -> None:
    bob = Terminal()
    bob.sink.available = False
    bob.send(sequence=1)
    assert bob.nacks() == [(1, "backend_unavailable")]
    assert bob.sink.in_flight == 0
    bob.sink.available = True
    again = Terminal(position=bob.session.position)
    again.send(sequence=1)
    again.sink.deliver()
    assert again.acks() == [1]


def test_nothing_is_answered_after_the_end() -> None:
    bob = Terminal()
    bob.session.end(CloseCode.USER_DISABLED, "this user is disabled")
    sent = len(bob.peer.sent)
    bob.send(sequence=1)
    bob.session.end(CloseCode.IDLE_TIMEOUT, "again")
    assert len(bob.peer.sent) == sent
    assert bob.peer.closed == (CloseCode.USER_DISABLED, "this user is disabled")


# --- Control messages -------------------------------------------------------------------------------------------------


def test_welcome_tells_policy_position_and_times() -> None:
    bob = Terminal(position=StreamPosition(7))
    bob.session.token_expires_at_ms = 1_700_000_600_000
    bob.session.welcome(NOW_US)
    [welcome] = bob.heard("gateway.welcome")
    assert welcome.session_id == "c0ffee"
    assert welcome.last_acknowledged_sequence == 7
    assert welcome.server_time_ms == NOW_US // 1000
    assert welcome.token_expires_at_ms == 1_700_000_600_000
    assert list(welcome.policy.active_pairs) == ["EURUSD", "XAUUSD"]
    assert (welcome.policy.message_rate_limit, welcome.policy.in_flight_limit) == (50.0, 256)


def test_ping_is_answered_with_both_clocks() -> None:
    bob = Terminal()
    bob.send("gateway.ping", control_pb2.Ping(client_time_ms=5))
    [pong] = bob.heard("gateway.pong")
    assert (pong.client_time_ms, pong.server_time_ms) == (5, NOW_US // 1000)


def test_json_ping_is_answered_in_json() -> None:
    bob = Terminal(form=JSON)
    bob.frame('{"message_type":"gateway.ping","payload":{"client_time_ms":5}}')
    [pong] = bob.peer.sent
    assert json.loads(pong)["payload"] == {"client_time_ms": 5, "server_time_ms": NOW_US // 1000}


def test_refresh_with_a_good_token_is_answered_with_the_policy() -> None:
    bob = Terminal()
    bob.send("gateway.refresh", control_pb2.Refresh(token="good"))
    assert bob.tokens == ["good"]
    [policy] = bob.heard("gateway.policy")
    assert (policy.token_expires_at_ms, policy.server_time_ms) == (GOOD_UNTIL_MS, NOW_US // 1000)


def test_refresh_with_a_forged_token_ends_the_connection() -> None:
    bob = Terminal()
    bob.send("gateway.refresh", control_pb2.Refresh(token="forged"))
    assert bob.nacks() == [(0, "token_invalid")]
    assert bob.peer.closed is not None
    assert bob.peer.closed[0] is CloseCode.TOKEN_INVALID


def test_refresh_with_an_expired_token_is_refused_and_the_connection_stays() -> None:
    bob = Terminal()
    bob.send("gateway.refresh", control_pb2.Refresh(token="late"))
    assert bob.nacks() == [(0, "token_invalid")]
    assert bob.peer.closed is None


def test_newer_policy_applies_at_once_and_an_older_one_does_not() -> None:
    bob = Terminal()
    bob.session.apply_policy(dataclasses.replace(BOB, version=4, active_pairs=frozenset({"BTCUSD"})))
    bob.session.apply_policy(dataclasses.replace(BOB, version=2))
    bob.send(payload=ticks("BTCUSD"), sequence=1)
    bob.send(payload=ticks("EURUSD"), sequence=2)
    assert bob.nacks() == [(2, "pair_not_active")]
    assert len(bob.heard("gateway.policy")) == 1
