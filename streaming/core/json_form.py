"""The JSON form of a client's messages, for terminals without protobuf. Room: streaming.core (pure).

One text frame becomes one MessageEnvelope with a protobuf payload; from there on both forms take the same way. The
fields of a payload stand beside ``message_type`` or in ``payload``, for every type alike.
"""

from functools import reduce
from operator import or_
from typing import Any

import msgspec
from google.protobuf.message import Message

from proto.gateway.v1 import envelope_pb2, payloads_pb2
from streaming.core.codes import NackCode
from streaming.core.errors import MessageRefused
from streaming.core.json_faults import PayloadProblem, empty_frame, explain, without_quirks
from streaming.core.json_schema import KINDS, EnumNames, Kind

__all__ = ["PayloadProblem", "empty_frame", "read_json"]

_KINDS: dict[type, Kind] = {kind.frame: kind for kind in KINDS.values()}
_frames: Any = reduce(or_, _KINDS)
_decode = msgspec.json.Decoder(_frames).decode
_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeError)


def read_json(text: str | bytes) -> envelope_pb2.MessageEnvelope:
    """Parses one text frame. Raises MessageRefused, or PayloadProblem where the message's own sequence is known."""
    try:
        frame = _decode(text)
    except _UNREADABLE:
        return _read_again(text)
    return _envelope_of(frame)


def _read_again(text: str | bytes) -> envelope_pb2.MessageEnvelope:
    """What the strict reader does not take: a quirk is taken, anything else is answered with what is wrong."""
    cleaned = without_quirks(text)
    if cleaned != text:
        try:
            frame = _decode(cleaned)
        except _UNREADABLE:
            pass
        else:
            return _envelope_of(frame)
    return explain(cleaned)


def _envelope_of(frame: Any) -> envelope_pb2.MessageEnvelope:
    kind = _KINDS[type(frame)]
    envelope = envelope_pb2.MessageEnvelope(
        message_type=kind.message_type,
        timestamp=frame.timestamp,
        correlation_id=frame.correlation_id,
        enable_tracing=frame.enable_tracing,
        sequence=frame.sequence,
        stream_id=frame.stream_id,
    )
    payload = frame.payload
    try:
        if payload is None:
            payload = frame
        else:
            _check_once(kind, frame)
        message = _batch(payload) if kind.item is not None else _message(kind, payload)
        envelope.payload = message.SerializeToString()
    except MessageRefused as refusal:
        raise PayloadProblem(envelope, refusal) from None
    return envelope


def _check_once(kind: Kind, frame: Any) -> None:
    beside = [name for name in kind.fields if getattr(frame, name) is not None]
    if beside:
        reason = f"{', '.join(beside)} beside payload: write all fields of {kind.message_type} in one of the two places"
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, reason)


def _batch(source: Any) -> Message:
    """A loop of its own, as most messages are ticks."""
    return payloads_pb2.BatchTickData(
        account=_text(source.account),
        ticks=[
            payloads_pb2.Tick(
                symbol=tick.symbol,
                bid=tick.bid,
                ask=tick.ask,
                time_msc=tick.time_msc,
                volume=tick.volume,
                last=tick.last,
            )
            for tick in source.ticks or ()
        ],
    )


def _message(kind: Kind, source: Any) -> Message:
    # None is how protobuf's constructors are told nothing.
    fields = {name: getattr(source, name) for name in kind.fields}
    if "account" in fields:
        fields["account"] = _text(fields["account"])
    for name, names in kind.enums.items():
        if isinstance(fields[name], str):
            fields[name] = _number(fields[name], name, names)
    return kind.message(**fields)


def _text(account: str | float | None) -> str | None:
    if account is None or isinstance(account, str):
        return account
    # 1001.0 and 1.001e3 are the login 1001; any other double is none that anybody has.
    return str(int(account) if account == int(account) else account)


def _number(text: str, field: str, names: EnumNames) -> int:
    number: int | None = names.numbers.get(text.strip().upper())
    if number is None:
        reason = f"{field} is one of {', '.join(names.allowed)}, not {text[:40]!r}"
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, reason)
    return number
