"""The two forms of the wire, against the gateway's own schemas."""

import json
from typing import Any

import pytest
from google.protobuf.message import Message

from proto.gateway.v1 import control_pb2, envelope_pb2
from streaming.core.codes import NackAction, NackCode
from streaming.core.errors import MessageRefused
from streaming.core.replies import FORMS as GATEWAY_FORMS
from streaming.core.replies import nack_message
from trading_gateway_client import BatchTickData, Notification, Tick, TradingSignal, UserEvent
from trading_gateway_client.errors import UnreadableAnswer
from trading_gateway_client.forms import FORMS
from trading_gateway_client.pb import control_pb2 as own_pb2

ANSWERS: dict[str, Message] = {
    "gateway.welcome": control_pb2.Welcome(
        session_id="s1",
        server_time_ms=1_700_000_000_000,
        policy=control_pb2.Policy(tier="PRO", message_rate_limit=50.5, active_pairs=["EURUSD"], in_flight_limit=8),
        last_acknowledged_sequence=2**53 - 1,
    ),
    "gateway.ack": control_pb2.Ack(sequence=7),
    "gateway.nack": control_pb2.Nack(sequence=8, code="rate_limited", reason="too fast", retryable=True),
    "gateway.notice": control_pb2.Notice(code="quota", reason="80 %", detail={"left": "20"}),
    "gateway.policy": control_pb2.Policy(tier="FREE", version=3),
    "gateway.disconnect": control_pb2.Disconnect(code=4003, reconnect=True, retry_after_ms=500, jitter_ms=250),
    "gateway.pong": control_pb2.Pong(client_time_ms=1, server_time_ms=2),
}
SIGNAL = TradingSignal(symbol="EURUSD", action="TRADE_ACTION_BUY", price=1.085, magic=-7)


def protobuf_answer(kind: str, payload: Message) -> bytes:
    return envelope_pb2.MessageEnvelope(message_type=kind, payload=payload.SerializeToString()).SerializeToString()


def plain(message: Message) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field, value in message.ListFields():
        if isinstance(value, Message):
            values[field.name] = plain(value)
        elif isinstance(value, str | int | float | bool):
            values[field.name] = value
        else:
            values[field.name] = dict(value) if field.name == "detail" else list(value)
    return values


def json_answer(kind: str, payload: Message) -> bytes:
    return json.dumps({"message_type": kind, "payload": plain(payload)}).encode()


def json_frame(message_type: str, payload: Message, **envelope: Any) -> Any:
    return json.loads(FORMS["json"].frame(message_type, payload, **envelope))


def test_gateway_reads_the_protobuf_form() -> None:
    frame = FORMS["protobuf"].frame("trading_signal", SIGNAL, sequence=5, stream_id="ea-1", timestamp=99)
    envelope = envelope_pb2.MessageEnvelope.FromString(frame)
    assert (envelope.message_type, envelope.sequence, envelope.stream_id, envelope.timestamp) == (
        ("trading_signal", 5, "ea-1", 99)
    )
    assert TradingSignal.FromString(envelope.payload) == SIGNAL


def test_json_batch_of_ticks_lies_beside_its_envelope() -> None:
    ticks = [Tick(symbol="EURUSD", bid=1.1, ask=1.2, time_msc=2**53, volume=1), Tick(symbol="XAUUSD")]
    frame = json_frame(
        "tick_data", BatchTickData(ticks=ticks, account="12345"), sequence=12, stream_id="s", timestamp=9
    )
    assert frame == {
        "message_type": "tick_data",
        "sequence": 12,
        "stream_id": "s",
        "timestamp": 9,
        "account": "12345",
        "ticks": [{"symbol": "EURUSD", "bid": 1.1, "ask": 1.2, "time_msc": 2**53, "volume": 1}, {"symbol": "XAUUSD"}],
    }


def test_json_payload_has_short_enum_names() -> None:
    assert json_frame("trading_signal", SIGNAL)["payload"] == (
        {"symbol": "EURUSD", "action": "BUY", "price": 1.085, "magic": -7}
    )
    assert json_frame("notification", Notification(title="Margin", severity="SEVERITY_CRITICAL"))["payload"] == (
        {"title": "Margin", "severity": "CRITICAL"}
    )


def test_json_enum_value_without_a_name_stays_a_number() -> None:
    unknown = TradingSignal.FromString(bytes([3 << 3, 99]))
    assert json_frame("trading_signal", unknown)["payload"] == {"action": 99}


def test_json_payload_keeps_maps_and_text_as_they_are() -> None:
    event = UserEvent(event_type="login", attributes={"rüdiger": '"\n', "": "x"})
    assert json_frame("user_event", event)["payload"] == (
        {"event_type": "login", "attributes": {"rüdiger": '"\n', "": "x"}}
    )


def test_json_control_message_names_no_stream() -> None:
    frame = json_frame("gateway.refresh", own_pb2.Refresh(token="t"))
    assert frame == {"message_type": "gateway.refresh", "sequence": 0, "timestamp": 0, "payload": {"token": "t"}}


def test_protobuf_control_message_is_small() -> None:
    frame = FORMS["protobuf"].frame("gateway.ping", own_pb2.Ping(client_time_ms=5))
    assert envelope_pb2.MessageEnvelope.FromString(frame) == (
        envelope_pb2.MessageEnvelope(message_type="gateway.ping", payload=b"\x08\x05")
    )


@pytest.mark.parametrize("form", ["protobuf", "json"])
@pytest.mark.parametrize("action", list(NackAction))
def test_both_forms_read_what_a_refusal_asks_for(form: str, action: NackAction) -> None:
    encode = GATEWAY_FORMS[f"gateway.v1.{form}"].encode
    error = MessageRefused(NackCode.RATE_LIMITED, "wait", retry_after_ms=7, action=action)
    refusal = control_pb2.Refusal(first=1, last=2, code="x", action=control_pb2.NackAction.Name(action))
    for kind, message in (
        ("gateway.nack", nack_message(3, error)),
        ("gateway.welcome", control_pb2.Welcome(policy=control_pb2.Policy(tier="PRO"), refusals=[refusal, refusal])),
    ):
        data = encode(kind, message)
        answer = FORMS[form].read(data if isinstance(data, bytes) else data.encode())
        assert answer is not None
        assert answer.SerializeToString() == message.SerializeToString()


def test_json_action_of_a_newer_gateway_is_no_error() -> None:
    data = b'{"message_type": "gateway.nack", "payload": {"sequence": 3, "action": "PERHAPS", "code": "x"}}'
    answer = FORMS["json"].read(data)
    assert isinstance(answer, own_pb2.Nack)
    assert (answer.sequence, answer.action) == (3, 0)


@pytest.mark.parametrize("form", ["protobuf", "json"])
def test_ticks_of_a_frame_can_be_replaced(form: str) -> None:
    batch = BatchTickData(ticks=[Tick(symbol="EURUSD", bid=1.1, ask=1.2), Tick(symbol="XAUUSD", last=0.0)], account="7")
    frame = FORMS[form].frame("tick_data", batch, sequence=5, stream_id="s", timestamp=9)
    assert FORMS[form].ticks_of(frame) == batch
    fewer = BatchTickData(ticks=batch.ticks[1:], account="7")
    assert FORMS[form].ticks_of(FORMS[form].with_ticks(frame, fewer)) == fewer
    assert FORMS[form].with_ticks(FORMS[form].with_ticks(frame, fewer), batch) == frame
    assert FORMS[form].reframed(FORMS[form].reframed(frame, 2**53 - 1), 5) == frame


@pytest.mark.parametrize("price", [float("nan"), float("inf")])
def test_json_form_refuses_a_number_that_json_lacks(price: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_frame("trading_signal", TradingSignal(price=price))


@pytest.mark.parametrize("kind", list(ANSWERS))
def test_both_forms_read_every_answer_of_the_gateway(kind: str) -> None:
    expected = ANSWERS[kind].SerializeToString(deterministic=True)
    for form, frame in (("protobuf", protobuf_answer), ("json", json_answer)):
        answer = FORMS[form].read(frame(kind, ANSWERS[kind]))
        assert answer is not None
        assert answer.DESCRIPTOR.full_name == ANSWERS[kind].DESCRIPTOR.full_name
        assert answer.SerializeToString(deterministic=True) == expected


@pytest.mark.parametrize("form", list(FORMS))
def test_client_passes_over_an_answer_of_a_newer_gateway(form: str) -> None:
    frame = {"protobuf": protobuf_answer, "json": json_answer}[form]
    assert FORMS[form].read(frame("gateway.greeting", control_pb2.Ack(sequence=1))) is None
    grown = b'{"message_type":"gateway.ack","trace":1,"payload":{"sequence":4,"topic":"tick-data"}}'
    if form == "json":
        assert FORMS[form].read(grown) == own_pb2.Ack(sequence=4)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff", b"null", b"[]", b"3", b"{}", b'{"message_type":"gateway.ack"}', b"[" * 100_000]
    + [b'{"message_type":["gateway.ack"],"payload":{}}', b'{"message_type":"gateway.ack","payload":{"sequence":-1}}']
    + [
        b'{"message_type":"gateway.ack","payload":%b}' % payload for payload in (b"null", b"[]", b'["x"]', b'"x"', b"7")
    ],
)
def test_json_form_calls_nonsense_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableAnswer):
        FORMS["json"].read(data)


@pytest.mark.parametrize("cut", range(1, 12))
def test_protobuf_form_reads_no_half_answer(cut: int) -> None:
    whole = protobuf_answer("gateway.nack", control_pb2.Nack(sequence=300, code="malformed"))
    with pytest.raises(UnreadableAnswer):
        FORMS["protobuf"].read(whole[:-cut])


def test_protobuf_form_calls_a_broken_payload_unreadable() -> None:
    envelope = envelope_pb2.MessageEnvelope(message_type="gateway.nack", payload=b"\x12\x02\xff\xff")
    with pytest.raises(UnreadableAnswer):
        FORMS["protobuf"].read(envelope.SerializeToString())
