"""The JSON form of a client's messages, for terminals without protobuf. Room: streaming.core (pure).

One text frame becomes one MessageEnvelope with a protobuf payload; from there on both forms take the same way.
"""

from typing import Annotated, Any, Literal

import msgspec
from google.protobuf.message import Message

from proto.gateway.v1 import control_pb2, envelope_pb2, payloads_pb2
from streaming.core.codes import NackCode
from streaming.core.errors import MessageRefused
from streaming.core.stream import SEQUENCE_LIMIT

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Sequence = Annotated[int, msgspec.Meta(ge=0, le=SEQUENCE_LIMIT)]


class TickJson(msgspec.Struct):
    symbol: str
    bid: float = 0.0
    ask: float = 0.0
    time_msc: _Int64 = 0
    volume: float = 0.0


class EnvelopeJson(msgspec.Struct):
    """A tick batch carries ``account`` and ``ticks`` itself; every other type carries ``payload``."""

    message_type: str
    sequence: _Sequence = 0
    stream_id: str = ""
    timestamp: _Int64 = 0
    correlation_id: str = ""
    enable_tracing: bool = False
    account: str = ""
    # Read in a second step, so that a wrong price is refused under the message's own sequence.
    ticks: msgspec.Raw = msgspec.Raw(b"")
    payload: msgspec.Raw = msgspec.Raw(b"{}")


class TickDataJson(msgspec.Struct):
    ticks: list[TickJson] = []
    account: str = ""


class SignalJson(msgspec.Struct):
    symbol: str = ""
    action: Literal["BUY", "SELL", "CLOSE", "MODIFY", "CANCEL"] | _Int64 = 0
    signal_id: str = ""
    price: float = 0.0
    stop_loss: float = 0.0
    take_profit: float = 0.0
    volume: float = 0.0
    account: str = ""
    time_msc: _Int64 = 0
    magic: _Int64 = 0
    comment: str = ""


class EventJson(msgspec.Struct):
    event_type: str = ""
    account: str = ""
    time_msc: _Int64 = 0
    attributes: dict[str, str] = {}


class NotificationJson(msgspec.Struct):
    notification_id: str = ""
    severity: Literal["INFO", "WARNING", "CRITICAL"] | _Int64 = 0
    title: str = ""
    body: str = ""
    account: str = ""
    time_msc: _Int64 = 0


class PingJson(msgspec.Struct):
    client_time_ms: _Int64 = 0
    heard_sequence: _Sequence = 0


class RefreshJson(msgspec.Struct):
    token: str = ""


_decode_envelope = msgspec.json.Decoder(EnvelopeJson).decode
_decode_ticks = msgspec.json.Decoder(list[TickJson]).decode
# message_type -> decoder of the payload and the protobuf message it becomes
_PAYLOADS: dict[str, tuple[msgspec.json.Decoder[Any], type[Message]]] = {
    "tick_data": (msgspec.json.Decoder(TickDataJson), payloads_pb2.BatchTickData),
    "trading_signal": (msgspec.json.Decoder(SignalJson), payloads_pb2.TradingSignal),
    "user_event": (msgspec.json.Decoder(EventJson), payloads_pb2.UserEvent),
    "notification": (msgspec.json.Decoder(NotificationJson), payloads_pb2.Notification),
    "gateway.ping": (msgspec.json.Decoder(PingJson), control_pb2.Ping),
    "gateway.refresh": (msgspec.json.Decoder(RefreshJson), control_pb2.Refresh),
}
_ENUM_PREFIX = {"action": "TRADE_ACTION_", "severity": "SEVERITY_"}


class PayloadProblem(Exception):
    """The envelope could be read, its payload could not; carries the envelope, so that the sequence is known."""

    def __init__(self, envelope: envelope_pb2.MessageEnvelope, refusal: MessageRefused) -> None:
        super().__init__(refusal.reason)
        self.envelope = envelope
        self.refusal = refusal


def read_json(text: str | bytes) -> envelope_pb2.MessageEnvelope:
    """Parses one text frame. Raises MessageRefused (``malformed``) or PayloadProblem."""
    try:
        frame = _decode_envelope(text)
        envelope = envelope_pb2.MessageEnvelope(
            message_type=frame.message_type,
            timestamp=frame.timestamp,
            correlation_id=frame.correlation_id,
            enable_tracing=frame.enable_tracing,
            sequence=frame.sequence,
            stream_id=frame.stream_id,
        )
    except msgspec.MsgspecError as error:
        raise MessageRefused(NackCode.MALFORMED, f"not a message in JSON: {error}") from None
    except RecursionError:
        raise MessageRefused(NackCode.MALFORMED, "not a message in JSON: nested too deeply") from None
    except (UnicodeError, ValueError):
        # A lone surrogate is legal in JSON escapes and has no UTF-8.
        raise MessageRefused(NackCode.MALFORMED, "not a message in JSON: text that is not Unicode") from None
    kind = _PAYLOADS.get(frame.message_type)
    if kind is None:
        return envelope
    decoder, message = kind
    try:
        if frame.message_type == "tick_data" and bytes(frame.ticks):
            payload = _message(message, TickDataJson(_decode_ticks(frame.ticks), frame.account))
        else:
            payload = _message(message, decoder.decode(frame.payload))
        envelope.payload = payload.SerializeToString()
    except msgspec.MsgspecError as error:
        reason = f"the payload is not of its message_type: {error}"
        raise PayloadProblem(envelope, MessageRefused(NackCode.PAYLOAD_MISMATCH, reason)) from None
    except RecursionError:
        reason = "the payload is nested too deeply"
        raise PayloadProblem(envelope, MessageRefused(NackCode.PAYLOAD_MISMATCH, reason)) from None
    except (UnicodeError, ValueError):
        reason = "the payload holds a value out of range or text that is not Unicode"
        raise PayloadProblem(envelope, MessageRefused(NackCode.PAYLOAD_MISMATCH, reason)) from None
    return envelope


def _message(kind: type[Message], value: msgspec.Struct) -> Message:
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    for name, prefix in _ENUM_PREFIX.items():
        if isinstance(fields.get(name), str):
            fields[name] = prefix + fields[name]
    if "ticks" in fields:
        fields["ticks"] = [
            payloads_pb2.Tick(symbol=t.symbol, bid=t.bid, ask=t.ask, time_msc=t.time_msc, volume=t.volume)
            for t in fields["ticks"]
        ]
    return kind(**fields)
