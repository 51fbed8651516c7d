"""The JSON form has the field names of the protobuf messages (protocol: Envelope)."""

from collections.abc import Iterable

import msgspec
import pytest
from google.protobuf.message import Message

from proto.gateway.v1 import control_pb2, payloads_pb2
from streaming.core import json_form


@pytest.mark.parametrize(
    ("struct", "message"),
    [
        (json_form.TickJson, payloads_pb2.Tick),
        (json_form.TickDataJson, payloads_pb2.BatchTickData),
        (json_form.SignalJson, payloads_pb2.TradingSignal),
        (json_form.EventJson, payloads_pb2.UserEvent),
        (json_form.NotificationJson, payloads_pb2.Notification),
        (json_form.PingJson, control_pb2.Ping),
        (json_form.RefreshJson, control_pb2.Refresh),
    ],
)
def test_json_payload_has_the_fields_of_its_message(struct: type[msgspec.Struct], message: type[Message]) -> None:
    names: Iterable[str] = (field.name for field in message.DESCRIPTOR.fields)
    assert set(struct.__struct_fields__) == set(names)


def test_envelope_of_unknown_type_is_read_for_its_sequence() -> None:
    envelope = json_form.read_json('{"message_type":"news","sequence":4,"payload":[[]]}')
    assert (envelope.message_type, envelope.sequence, envelope.payload) == ("news", 4, b"")


def test_user_event_attributes_survive() -> None:
    text = '{"message_type":"user_event","payload":{"event_type":"login","attributes":{"ip":"10.0.0.1"}}}'
    event = payloads_pb2.UserEvent.FromString(json_form.read_json(text).payload)
    assert (event.event_type, dict(event.attributes)) == ("login", {"ip": "10.0.0.1"})


def test_action_out_of_range_is_refused_under_its_sequence() -> None:
    text = '{"message_type":"trading_signal","sequence":1,"payload":{"symbol":"EURUSD","action":99999999999}}'
    with pytest.raises(json_form.PayloadProblem) as caught:
        json_form.read_json(text)
    assert caught.value.envelope.sequence == 1
