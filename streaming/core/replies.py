"""Control messages to the client, in the form the client chose. Room: streaming.core (pure)."""

from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
from google.protobuf.message import Message

from proto.gateway.v1 import control_pb2, envelope_pb2
from streaming.core.codes import CloseCode, NackAction
from streaming.core.errors import MessageRefused
from streaming.core.refused import Run

PROTOBUF = "gateway.v1.protobuf"
JSON = "gateway.v1.json"


class ReplyForm(Protocol):
    """Encodes what the gateway says; bytes go out as a binary frame, str as a text frame."""

    def encode(self, message_type: str, payload: Message) -> bytes | str: ...

    def ack(self, sequence: int) -> bytes | str: ...


class ProtobufForm:
    """Answers are MessageEnvelope, their payload a message of control.proto."""

    def encode(self, message_type: str, payload: Message) -> bytes:
        envelope = envelope_pb2.MessageEnvelope(message_type=message_type, payload=payload.SerializeToString())
        return envelope.SerializeToString()

    def ack(self, sequence: int) -> bytes:
        return self.encode("gateway.ack", control_pb2.Ack(sequence=sequence))


class JsonForm:
    """Answers are ``{"message_type": …, "payload": {…}}`` with the field names of control.proto."""

    def encode(self, message_type: str, payload: Message) -> str:
        return msgspec.json.encode({"message_type": message_type, "payload": plain(payload)}).decode()

    def ack(self, sequence: int) -> str:
        return f'{{"message_type":"gateway.ack","payload":{{"sequence":{sequence}}}}}'


def nack_message(
    sequence: int, error: MessageRefused, *, settled: bool | None = None, kept: bool = False
) -> control_pb2.Nack:
    """``settled``: by default whatever is not to be sent again; ``kept``: the frame is in failed-messages."""
    is_resend = error.action is NackAction.RESEND
    return control_pb2.Nack(
        sequence=sequence,
        code=error.code,
        reason=error.reason[:400],
        retry_after_ms=error.retry_after_ms,
        retryable=is_resend,
        settled=not is_resend if settled is None else settled,
        action=control_pb2.NackAction.Name(error.action),
        kept=kept,
    )


def welcome_message(refusals: Iterable[Run], **fields: Any) -> control_pb2.Welcome:
    """``fields``: those of Welcome by their names."""
    message = control_pb2.Welcome(**fields)
    for run in refusals:
        message.refusals.add(
            first=run.first, last=run.last, code=run.code, action=control_pb2.NackAction.Name(run.action)
        )
    return message


def disconnect_message(code: CloseCode, reason: str, retry_after_ms: int, jitter_ms: int) -> control_pb2.Disconnect:
    return control_pb2.Disconnect(
        code=code, reason=reason, reconnect=code.reconnect, retry_after_ms=retry_after_ms, jitter_ms=jitter_ms
    )


FORMS: dict[str, ReplyForm] = {PROTOBUF: ProtobufForm(), JSON: JsonForm()}


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON-ready values, fields at their default included; enums by their short names (BUY).

    Integers stay integers (protobuf's own JSON mapping makes int64 a string), so MQL5 reads them without a detour.
    """
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value = dict(value)
        elif field.is_repeated:
            value = [plain(item) for item in value] if field.message_type is not None else list(value)
        elif field.message_type is not None:
            value = plain(value)
        elif field.enum_type is not None and value in field.enum_type.values_by_number:
            value = field.enum_type.values_by_number[value].name.rpartition("_")[2]
        values[field.name] = value
    return values
