"""What a terminal may write in JSON, derived from the protobuf schema, field by field. Room: streaming.core (pure).

Both forms of a message have the same fields by construction: a field that is added to ``payloads.proto`` is one here.
A field that is absent and one that is null are the same: not set.
"""

from typing import Annotated, Any

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from proto.gateway.v1 import control_pb2, payloads_pb2
from streaming.core.stream import SEQUENCE_LIMIT

_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Sequence = Annotated[int, msgspec.Meta(ge=0, le=SEQUENCE_LIMIT)]
_SCALARS: dict[int, Any] = {
    FieldDescriptor.TYPE_DOUBLE: float,
    FieldDescriptor.TYPE_INT64: _Int64,
    FieldDescriptor.TYPE_UINT64: _Sequence,
    FieldDescriptor.TYPE_STRING: str,
    # By name, in short or in full, or by number.
    FieldDescriptor.TYPE_ENUM: str | _Int32,
}
# message_type -> what its payload becomes
MESSAGES: dict[str, type[Message]] = {
    "tick_data": payloads_pb2.BatchTickData,
    "trading_signal": payloads_pb2.TradingSignal,
    "user_event": payloads_pb2.UserEvent,
    "notification": payloads_pb2.Notification,
    "gateway.ping": control_pb2.Ping,
    "gateway.refresh": control_pb2.Refresh,
}
# What the gateway sets itself: a client may write it, as in protobuf, and it is overwritten.
OVERWRITTEN = ("user_id", "company_id", "received_at", "session_id", "stream_writer")


class Envelope(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag_field="message_type"):
    """A frame without the fields of its payload, which stand beside these or in ``payload``."""

    sequence: _Sequence | None = None
    stream_id: str | None = None
    timestamp: _Int64 | None = None
    correlation_id: str | None = None
    enable_tracing: bool | None = None
    user_id: Any = None
    company_id: Any = None
    received_at: Any = None
    session_id: Any = None
    stream_writer: Any = None


ENVELOPE_TYPES: dict[str, Any] = {
    field.name: field.type for field in msgspec.structs.fields(Envelope) if field.name not in OVERWRITTEN
}


# Descriptors are typed as Any: protobuf's stubs and its C part name their types differently.
class EnumNames:
    """``numbers``: by name, in short (BUY) and in full (TRADE_ACTION_BUY); ``allowed``: the short ones but that of 0.

    The name for 0 ends with UNSPECIFIED; what stands before it begins all names of the enum.
    """

    __slots__ = ("allowed", "numbers")

    def __init__(self, field: Any) -> None:
        values: Any = field.enum_type.values
        prefix = values[0].name.removesuffix("UNSPECIFIED")
        short = {value.name.removeprefix(prefix): value.number for value in values}
        self.numbers: dict[str, int] = {**short, **{value.name: value.number for value in values}}
        self.allowed = tuple(name for name, number in short.items() if number)


class Kind:
    """One message type in JSON. ``fields``: names of its payload; ``item``: the struct of a tick, for ticks."""

    __slots__ = ("enums", "fields", "frame", "item", "message", "message_type", "payload")

    def __init__(self, message_type: str, message: type[Message]) -> None:
        self.message_type = message_type
        self.message = message
        descriptor = message.DESCRIPTOR
        self.fields = tuple(field.name for field in descriptor.fields)
        self.enums = {field.name: EnumNames(field) for field in descriptor.fields if field.enum_type is not None}
        self.item = _struct("Tick", payloads_pb2.Tick.DESCRIPTOR) if message_type == "tick_data" else None
        fields = [(field.name, _type_of(field, self.item) | None, None) for field in descriptor.fields]
        self.payload = msgspec.defstruct(descriptor.name, fields, kw_only=True, forbid_unknown_fields=True)
        self.frame = msgspec.defstruct(
            f"{descriptor.name}Frame",
            [("payload", self.payload | None, None), *fields],
            bases=(Envelope,),
            kw_only=True,
            forbid_unknown_fields=True,
            tag_field="message_type",
            tag=message_type,
        )


def _struct(name: str, descriptor: Any) -> type[msgspec.Struct]:
    fields = [(field.name, _type_of(field) | None, None) for field in descriptor.fields]
    return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)


def _type_of(field: Any, item: Any = None) -> Any:
    if field.message_type is not None:
        return dict[str, str] if field.message_type.GetOptions().map_entry else list[item]
    # MT5 knows a login as a number, and terminals write it so; some know no other numbers than doubles.
    return str | _Int64 | float if field.name == "account" else _SCALARS[field.type]


KINDS = {message_type: Kind(message_type, message) for message_type, message in MESSAGES.items()}
