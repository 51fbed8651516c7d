"""A Kafka record as JSON that a person can read. Room: streaming.tools."""

import base64
from typing import Any, cast

from confluent_kafka import Message
from google.protobuf.message import DecodeError

from proto.gateway.v1 import envelope_pb2
from streaming.core.payloads import PARSERS
from streaming.core.replies import plain


def describe(record: Message) -> dict[str, Any]:
    """``topic, partition, offset, timestamp_ms, key, headers`` and ``envelope`` (``value_base64`` when it is none)."""
    value = record.value() or b""
    described: dict[str, Any] = {
        "topic": record.topic(),
        "partition": record.partition(),
        "offset": record.offset(),
        "timestamp_ms": record.timestamp()[1],
        "key": text_of(record.key()),
        "headers": headers_of(record),
    }
    envelope = decode_envelope(value)
    if envelope is None:
        described["value_base64"] = base64.b64encode(value).decode()
    else:
        described["envelope"] = envelope
    return described


def headers_of(record: Message) -> dict[str, str]:
    headers = cast("list[tuple[str, bytes | str | None]]", record.headers() or [])
    return {name: text_of(value) for name, value in headers}


def text_of(value: bytes | str | None) -> str:
    """UTF-8, what is not shown as escapes."""
    return value if isinstance(value, str) else (value or b"").decode(errors="backslashreplace")


def decode_envelope(value: bytes) -> dict[str, Any] | None:
    """A MessageEnvelope with its payload decoded (base64 for a type we do not know); None for anything else."""
    try:
        envelope = envelope_pb2.MessageEnvelope.FromString(value)
    except DecodeError:
        return None
    if not envelope.message_type:
        return None
    fields = plain(envelope)
    parse = PARSERS.get(envelope.message_type)
    try:
        fields["payload"] = (
            base64.b64encode(envelope.payload).decode() if parse is None else plain(parse(envelope.payload))
        )
    except DecodeError:
        fields["payload"] = base64.b64encode(envelope.payload).decode()
    return fields
