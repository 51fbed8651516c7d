"""The two forms of the wire, as frames to send and answers to read. Pure."""

import json
from typing import Any, Protocol, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError, Message

from trading_gateway_client.errors import UnreadableAnswer
from trading_gateway_client.pb import control_pb2, envelope_pb2, payloads_pb2

Control = (
    control_pb2.Welcome
    | control_pb2.Ack
    | control_pb2.Nack
    | control_pb2.Notice
    | control_pb2.Policy
    | control_pb2.Disconnect
    | control_pb2.Pong
)
_TICK_FIELDS = frozenset(field.name for field in payloads_pb2.BatchTickData.DESCRIPTOR.fields)
_CONTROL: dict[str, type[Message]] = {
    "gateway.welcome": control_pb2.Welcome,
    "gateway.ack": control_pb2.Ack,
    "gateway.nack": control_pb2.Nack,
    "gateway.notice": control_pb2.Notice,
    "gateway.policy": control_pb2.Policy,
    "gateway.disconnect": control_pb2.Disconnect,
    "gateway.pong": control_pb2.Pong,
}


class Form(Protocol):
    """``frame`` encodes a message to the gateway, ``read`` an answer.

    ``read`` gives None for an answer this version does not know, and raises UnreadableAnswer for what is none.
    """

    subprotocol: str
    is_text: bool

    def frame(
        self, message_type: str, payload: Message, *, sequence: int = 0, stream_id: str = "", timestamp: int = 0
    ) -> bytes: ...

    def reframed(self, frame: bytes, sequence: int) -> bytes:
        """The same message under another sequence."""

    def ticks_of(self, frame: bytes) -> payloads_pb2.BatchTickData:
        """The payload of a frame of tick_data."""

    def with_ticks(self, frame: bytes, batch: payloads_pb2.BatchTickData) -> bytes:
        """The same message with other ticks."""

    def read(self, data: bytes) -> Control | None: ...


class ProtobufForm:
    subprotocol = "gateway.v1.protobuf"
    is_text = False

    def frame(
        self, message_type: str, payload: Message, *, sequence: int = 0, stream_id: str = "", timestamp: int = 0
    ) -> bytes:
        return envelope_pb2.MessageEnvelope(
            message_type=message_type,
            payload=payload.SerializeToString(),
            sequence=sequence,
            stream_id=stream_id,
            timestamp=timestamp,
        ).SerializeToString()

    def reframed(self, frame: bytes, sequence: int) -> bytes:
        envelope = envelope_pb2.MessageEnvelope.FromString(frame)
        envelope.sequence = sequence
        return envelope.SerializeToString()

    def ticks_of(self, frame: bytes) -> payloads_pb2.BatchTickData:
        return payloads_pb2.BatchTickData.FromString(envelope_pb2.MessageEnvelope.FromString(frame).payload)

    def with_ticks(self, frame: bytes, batch: payloads_pb2.BatchTickData) -> bytes:
        envelope = envelope_pb2.MessageEnvelope.FromString(frame)
        envelope.payload = batch.SerializeToString()
        return envelope.SerializeToString()

    def read(self, data: bytes) -> Control | None:
        try:
            envelope = envelope_pb2.MessageEnvelope.FromString(data)
            kind = _CONTROL.get(envelope.message_type)
            return None if kind is None else cast(Control, kind.FromString(envelope.payload))
        except DecodeError as error:
            raise UnreadableAnswer(str(error)) from None


class JsonForm:
    subprotocol = "gateway.v1.json"
    is_text = True

    def frame(
        self, message_type: str, payload: Message, *, sequence: int = 0, stream_id: str = "", timestamp: int = 0
    ) -> bytes:
        body: dict[str, Any] = {"message_type": message_type, "sequence": sequence, "timestamp": timestamp}
        if stream_id:
            body["stream_id"] = stream_id
        plain = _plain(payload)
        if isinstance(payload, payloads_pb2.BatchTickData):
            body.update(plain)
        else:
            body["payload"] = plain
        return _packed(body)

    def reframed(self, frame: bytes, sequence: int) -> bytes:
        return _packed({**json.loads(frame), "sequence": sequence})

    def ticks_of(self, frame: bytes) -> payloads_pb2.BatchTickData:
        body = json.loads(frame)
        return ParseDict({name: body[name] for name in _TICK_FIELDS if name in body}, payloads_pb2.BatchTickData())

    def with_ticks(self, frame: bytes, batch: payloads_pb2.BatchTickData) -> bytes:
        body = {name: value for name, value in json.loads(frame).items() if name not in _TICK_FIELDS}
        return _packed({**body, **_plain(batch)})

    def read(self, data: bytes) -> Control | None:
        try:
            body = json.loads(data)
            kind = _CONTROL.get(body["message_type"])
            if kind is None:
                return None
            # ParseDict takes a list or a text for an object without fields.
            if not isinstance(body["payload"], dict):
                raise TypeError("the payload is no object")
            # Fields that a newer gateway has added are no error.
            return cast(
                Control,
                ParseDict(
                    _long(body["payload"], cast(Descriptor, kind.DESCRIPTOR)), kind(), ignore_unknown_fields=True
                ),
            )
        except (ValueError, KeyError, TypeError, AttributeError, ParseError, RecursionError) as error:
            raise UnreadableAnswer(f"{type(error).__name__}: {error}") from None


FORMS: dict[str, Form] = {"protobuf": ProtobufForm(), "json": JsonForm()}


def _packed(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def _long(values: dict[str, Any], kind: Descriptor) -> dict[str, Any]:
    """The values with enum names as protobuf has them (NACK_ACTION_FINAL, not FINAL)."""
    for field in kind.fields:
        value = values.get(field.name)
        if field.enum_type is not None and isinstance(value, str):
            prefix = field.enum_type.values[0].name.rpartition("_")[0]
            values[field.name] = value if value.startswith(prefix) else f"{prefix}_{value}"
        elif field.message_type is not None and isinstance(value, list):
            values[field.name] = [_long(item, field.message_type) for item in value if isinstance(item, dict)]
    return values


def _plain(message: Message) -> dict[str, Any]:
    """The fields that are set, with enum names as the JSON form has them (BUY, not TRADE_ACTION_BUY)."""
    values: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            values[field.name] = dict(value)
        elif field.message_type is not None:
            values[field.name] = [_plain(item) for item in value]
        elif field.enum_type is not None:
            known = field.enum_type.values_by_number.get(value)
            values[field.name] = value if known is None else known.name.rpartition("_")[2]
        else:
            values[field.name] = value
    return values
