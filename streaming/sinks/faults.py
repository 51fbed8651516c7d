"""What a failed delivery report says: of which part of Kafka it speaks, and whether the record can be there. Room:
streaming.sinks (pure)."""

from enum import Enum

from confluent_kafka import KafkaError

from streaming.core.codes import NackAction, NackCode
from streaming.core.errors import MessageRefused
from streaming.core.ports import Headers

# Milliseconds after which a client may try a topic again that took nothing.
_RETRY_AFTER_MS = 5_000


class Kind(Enum):
    """What follows from one failed report."""

    # Certainly not recorded, and no other record of its topic would be.
    TOPIC = "topic"
    # Certainly not recorded; one record of the batch that it was sent in is to blame, or the batch itself.
    BATCH = "batch"
    # Certainly not recorded, for a reason that is none of its own.
    AGAIN = "again"
    # It may be recorded or not.
    UNKNOWN = "unknown"


_KINDS = {
    **dict.fromkeys(
        (
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError.TOPIC_EXCEPTION,
            KafkaError.POLICY_VIOLATION,
            KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
            KafkaError.UNSUPPORTED_COMPRESSION_TYPE,
            KafkaError._UNKNOWN_TOPIC,
            KafkaError._UNKNOWN_PARTITION,
        ),
        Kind.TOPIC,
    ),
    **dict.fromkeys(
        (
            KafkaError.MSG_SIZE_TOO_LARGE,
            KafkaError.RECORD_LIST_TOO_LARGE,
            KafkaError.INVALID_RECORD,
            KafkaError.INVALID_TIMESTAMP,
        ),
        Kind.BATCH,
    ),
    # librdkafka drops what it has not sent yet as soon as a gap would come before it.
    **dict.fromkeys(
        (KafkaError._PURGE_QUEUE, KafkaError._INVALID_DIFFERENT_RECORD, KafkaError._GAPLESS_GUARANTEE), Kind.AGAIN
    ),
}

# Labels of the failure counter; whatever else librdkafka may say is "other".
NO_REPORT = "no_report"
NOT_CONNECTED = "not_connected"
TOO_LARGE = "too_large"
_REASONS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "not_allowed",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "missing",
    KafkaError._UNKNOWN_TOPIC: "missing",
    KafkaError._UNKNOWN_PARTITION: "missing",
    KafkaError.TOPIC_EXCEPTION: "name_not_valid",
    KafkaError.POLICY_VIOLATION: "policy",
    KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT: "format",
    KafkaError.UNSUPPORTED_COMPRESSION_TYPE: "compression",
    KafkaError.MSG_SIZE_TOO_LARGE: TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE: TOO_LARGE,
    KafkaError.INVALID_RECORD: "not_valid",
    KafkaError.INVALID_TIMESTAMP: "not_valid",
}


def kind_of(code: int) -> Kind:
    return _KINDS.get(code, Kind.UNKNOWN)


def reason_of(code: int) -> str:
    """One word of a small, fixed set."""
    return _REASONS.get(code, "other")


def record_refused(reason: str) -> MessageRefused:
    """The answer to a message that no broker takes, however often it is sent."""
    if reason == TOO_LARGE:
        return MessageRefused(NackCode.TOO_LARGE, "larger than the messages that Kafka takes here")
    return MessageRefused(NackCode.MALFORMED, "Kafka does not take this message", action=NackAction.FINAL)


def topic_refused() -> MessageRefused:
    """The answer to a message whose topic takes nothing now: it is nowhere, and may be offered anew."""
    reason = "messages of this type cannot be recorded now: offer it anew later"
    return MessageRefused(
        NackCode.BACKEND_UNAVAILABLE, reason, retry_after_ms=_RETRY_AFTER_MS, action=NackAction.REOFFER
    )


def _varint(number: int) -> int:
    """Bytes of a length in Kafka's zigzag form."""
    return max(1, ((number << 1).bit_length() + 6) // 7)


def batch_size_of(key: bytes, value: bytes, headers: Headers | None) -> int:
    """Bytes of a record batch (version 2, not compressed) of this one record: what ``max.message.bytes`` bounds."""
    # Attributes, difference in time, difference in offset.
    size = 3 + _varint(len(key)) + len(key) + _varint(len(value)) + len(value) + _varint(len(headers or ()))
    for name, content in headers or ():
        length = len(name.encode())
        size += _varint(length) + length + _varint(len(content)) + len(content)
    return 61 + _varint(size) + size
