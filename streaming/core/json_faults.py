"""What is wrong with a frame in JSON, in words for whoever wrote it. Room: streaming.core (pure).

Only frames that the strict reader has refused come here, so it may look twice. Names and values of the sender are cut
before they are shown.
"""

import math
from typing import Any

import msgspec

from proto.gateway.v1 import envelope_pb2
from streaming.core.codes import NackCode
from streaming.core.errors import MessageRefused
from streaming.core.json_schema import ENVELOPE_TYPES, KINDS, OVERWRITTEN, Kind

_SHOWN = 40
# A terminal's string functions leave these around a message: the 0 of a C string, the mark of UTF-8, line ends.
_AROUND = "\x00\ufeff \t\r\n"


# A number beyond all doubles is JSON: whoever sends one is told which field it is.
_decode = msgspec.json.Decoder(float_hook=float).decode


class PayloadProblem(Exception):
    """The envelope could be read, its payload could not; carries the envelope, so that the sequence is known."""

    def __init__(self, envelope: envelope_pb2.MessageEnvelope, refusal: MessageRefused) -> None:
        super().__init__(refusal.reason)
        self.envelope = envelope
        self.refusal = refusal


def empty_frame() -> MessageRefused:
    return MessageRefused(NackCode.MALFORMED, "an empty frame: send a message or nothing", harmless=True)


def without_quirks(text: str | bytes) -> str:
    """The message alone. Raises MessageRefused, harmless, where there is none."""
    if isinstance(text, bytes):
        text = text.decode(errors="surrogateescape")
    cleaned = text.strip(_AROUND)
    if not cleaned:
        raise empty_frame()
    return cleaned


def explain(text: str) -> envelope_pb2.MessageEnvelope:
    """Raises MessageRefused or PayloadProblem; the envelope alone of a type that there is not."""
    try:
        frame = _decode(text)
    except msgspec.MsgspecError as error:
        raise MessageRefused(NackCode.MALFORMED, f"not a message in JSON: {error}") from None
    except RecursionError:
        raise MessageRefused(NackCode.MALFORMED, "not a message in JSON: nested too deeply") from None
    except UnicodeError:
        raise MessageRefused(NackCode.MALFORMED, "not a message in JSON: text that is not Unicode") from None
    if not isinstance(frame, dict):
        raise MessageRefused(NackCode.MALFORMED, 'not a message in JSON: send an object, {"message_type": …}')
    envelope = _envelope(frame)
    kind = KINDS.get(envelope.message_type)
    if kind is None:
        return envelope
    try:
        reason = _payload_fault(kind, frame)
    except RecursionError:
        reason = "the payload is nested too deeply"
    raise PayloadProblem(envelope, MessageRefused(NackCode.PAYLOAD_MISMATCH, reason))


def _envelope(frame: dict[str, Any]) -> envelope_pb2.MessageEnvelope:
    """Its sequence, where that can be read, goes along with what is wrong with the rest."""
    values: dict[str, Any] = {}
    fault = ""
    for name, type_ in ENVELOPE_TYPES.items():
        try:
            values[name] = msgspec.convert(frame.get(name), type_)
        except msgspec.ValidationError as error:
            fault = fault or f"{name}: {_in_words(str(error))}"
    message_type = frame.get("message_type")
    if not isinstance(message_type, str) or not message_type:
        fault = fault or f'message_type is missing: send "message_type" with one of {", ".join(KINDS)}'
        message_type = ""
    if fault and not {"sequence", "stream_id"} <= values.keys():
        raise MessageRefused(NackCode.MALFORMED, f"not a message in JSON: {fault}")
    envelope = envelope_pb2.MessageEnvelope(message_type=message_type, **values)
    if fault:
        raise PayloadProblem(envelope, MessageRefused(NackCode.MALFORMED, fault))
    return envelope


def _payload_fault(kind: Kind, frame: dict[str, Any]) -> str:
    """Looks where the payload is: in ``payload`` or beside it."""
    known = {"message_type", "payload", *ENVELOPE_TYPES, *OVERWRITTEN}
    beside = {name: value for name, value in frame.items() if name not in known}
    payload = frame.get("payload")
    allowed = kind.fields
    if unknown := [name for name in beside if name not in allowed]:
        # A field of the envelope may be meant as well.
        others = () if payload is not None else allowed
        return _unknown(unknown[0], f"a {kind.message_type} message", (*others, "payload", *ENVELOPE_TYPES), others)
    if payload is None:
        return _fault_of(kind, beside, "")
    if beside:
        return f"{', '.join(beside)} beside payload: write all fields of {kind.message_type} in one of the two places"
    if not isinstance(payload, dict):
        return "payload is an object with the fields " + ", ".join(allowed)
    if unknown := [name for name in payload if name not in allowed]:
        return _unknown(unknown[0], "payload", allowed, allowed)
    return _fault_of(kind, payload, "payload.")


def _fault_of(kind: Kind, fields: dict[str, Any], where: str) -> str:
    """All names are known; a value is not what its field takes."""
    ticks = fields.get("ticks")
    if kind.item is not None and isinstance(ticks, list):
        for place, tick in enumerate(ticks):
            if fault := _tick_fault(kind.item, tick, f"{where}ticks[{place}]"):
                return fault
    return _value_fault(kind.payload, fields, where) or "the payload is not of its message_type"


def _tick_fault(item: type[msgspec.Struct], tick: Any, where: str) -> str:
    names = item.__struct_fields__
    if not isinstance(tick, dict):
        return f"{where} is an object with the fields {', '.join(names)}"
    if unknown := [name for name in tick if name not in names]:
        return _unknown(unknown[0], where, names, names)
    return _value_fault(item, tick, f"{where}.")


def _value_fault(struct: type[msgspec.Struct], fields: dict[str, Any], where: str) -> str:
    """The first value that its field does not take; ``where``: what stands before a name."""
    for name, value in fields.items():
        if isinstance(value, float) and math.isinf(value):
            return f"{where}{name}: larger than any number here"
        try:
            msgspec.convert({name: value}, struct)
        except msgspec.ValidationError as error:
            return f"{where}{name}: {_in_words(str(error))}"
    return ""


def _unknown(name: str, where: str, candidates: tuple[str, ...], allowed: tuple[str, ...]) -> str:
    """``candidates``: what may have been meant; ``allowed``: what is listed, nothing where that is the envelope's."""
    nearest = next((one for one in candidates if _is_near(name, one)), "")
    hint = f"did you mean {nearest}? " if nearest else ""
    listed = ", ".join(allowed) if allowed else ", ".join(candidates)
    return f"{where} has no field {name[:_SHOWN]!r}: {hint}Its fields are {listed}"


def _is_near(name: str, candidate: str) -> bool:
    """The same but for case, underscores, one letter more, less, other or swapped; or the beginning of the name."""
    one, two = _letters(name[:_SHOWN]), _letters(candidate)
    if one == two or (len(one) >= 3 and (two.startswith(one) or one.startswith(two))):
        return True
    # What is left between the common beginning and the common end.
    start, limit = 0, min(len(one), len(two))
    while start < limit and one[start] == two[start]:
        start += 1
    end = 0
    while end < limit - start and one[-1 - end] == two[-1 - end]:
        end += 1
    left, right = one[start : len(one) - end], two[start : len(two) - end]
    return (len(left) <= 1 and len(right) <= 1 and limit >= 2) or (len(left) == 2 and left == right[::-1])


def _letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def _in_words(text: str) -> str:
    """msgspec's words without the place, which ours name better."""
    return text.partition(" - at ")[0].replace(" | null", "")[:160]
