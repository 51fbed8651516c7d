"""Frames that could not be read: the sequence that may stand in them, the gap they leave. Room: streaming.core (pure).

A frame without a readable sequence explains one missing number in the next message; that number is settled when
nothing more is owed for the frame, as every other one.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from streaming.core.codes import NackCode
from streaming.core.errors import MessageRefused
from streaming.core.stream import SEQUENCE_LIMIT

# Frames of a connection that may explain a gap, and the largest gap that is explained.
EXPLAINED_LIMIT = 1_024
# A key, with or without a number in quotes behind it, as a double or not; what stands in a string has its quotes
# escaped.
_JSON_SEQUENCE = re.compile(r'(?<!\\)"sequence"\s*:\s*"?(\d{1,16})(?:\.0*)?"?(?![\w.+-])')
# MessageEnvelope.sequence, and how many fields of a broken envelope are looked at.
_SEQUENCE_FIELD = 8
_FIELD_LIMIT = 32
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def read_sequence(data: bytes | str) -> int:
    """The sequence that an unreadable frame seems to carry; 0 when it cannot be told."""
    sequence = _from_text(data) if isinstance(data, str) else _from_bytes(data)
    return sequence if sequence <= SEQUENCE_LIMIT else 0


def _from_text(text: str) -> int:
    found = {int(number) for number in _JSON_SEQUENCE.findall(text)}
    return found.pop() if len(found) == 1 else 0


def _from_bytes(data: bytes) -> int:
    """Walks the fields up to where the bytes are none any more."""
    sequence = at = 0
    for _ in range(_FIELD_LIMIT):
        tag, at = _varint(data, at)
        kind = tag & 7
        if at and kind == _VARINT:
            value, at = _varint(data, at)
            if at and tag >> 3 == _SEQUENCE_FIELD:
                sequence = value
        elif at and kind == _LENGTH:
            size, at = _varint(data, at)
            at = at + size if at else 0
        elif at and kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            at = 0
        if not at or at >= len(data):
            break
    return sequence


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The value and where it ends; ``(0, 0)`` when there is none."""
    value = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    return 0, 0


class Answer(NamedTuple):
    """What is to be said of a sequence, 0 for a frame whose own is not known; ``kept``: it is in failed-messages."""

    sequence: int
    error: MessageRefused
    kept: bool


@dataclass(slots=True)
class _Frame:
    error: MessageRefused
    is_settled: bool
    kept: bool = False
    gap: "_Gap | None" = None


@dataclass(slots=True)
class _Gap:
    missing: list[int]
    frames: list[_Frame] = field(default_factory=list)

    @property
    def is_exact(self) -> bool:
        return len(self.missing) == len(self.frames) == 1

    def answers(self) -> list[Answer]:
        """For its sequences, once all its frames are settled."""
        if not all(frame.is_settled for frame in self.frames):
            return []
        if self.is_exact:
            return [Answer(self.missing[0], self.frames[0].error, self.frames[0].kept)]
        error = MessageRefused(NackCode.MALFORMED, "this sequence came in a frame that could not be read")
        kept = all(frame.kept for frame in self.frames)
        return [Answer(sequence, error, kept) for sequence in self.missing]


class UnreadFrames:
    """Those of one connection. ``count``: frames since the last message that had a sequence."""

    __slots__ = ("_fresh", "_open", "count")

    def __init__(self) -> None:
        self.count = 0
        self._fresh: list[_Frame] = []
        # By token: those whose record Kafka has not reported yet.
        self._open: dict[int, _Frame] = {}

    def note(self, error: MessageRefused, token: int = 0) -> None:
        """One more; ``token``: the name of its record, 0 when it has none and has been answered."""
        frame = _Frame(error, is_settled=not token)
        if token:
            self._open[token] = frame
        self.count += 1
        self._fresh.append(frame)
        if len(self._fresh) > EXPLAINED_LIMIT:
            self._fresh = [frame for frame in self._fresh if not frame.is_settled]

    def forget(self) -> None:
        """A message came for which nothing is missing: these frames had no sequence."""
        self.count = 0
        self._fresh = []

    def explain(self, missing: list[int]) -> list[Answer]:
        """These sequences, not more than ``count``, came in them; what can be said at once."""
        frames, count = self._fresh, self.count
        self.forget()
        if len(frames) == len(missing) == count:
            gaps = [_Gap([sequence], [frame]) for sequence, frame in zip(missing, frames, strict=True)]
        else:
            gaps = [_Gap(missing, frames)]
        answers = []
        for gap in gaps:
            for frame in gap.frames:
                frame.gap = gap
            answers += gap.answers()
        return answers

    def holds(self, token: int) -> bool:
        return token in self._open

    def settle(self, token: int, *, kept: bool) -> list[Answer]:
        """Kafka has reported a record, or certainly does not have it; what is to be said."""
        frame = self._open.pop(token)
        frame.is_settled, frame.kept = True, kept
        if frame.gap is not None and frame.gap.is_exact:
            return frame.gap.answers()
        own = Answer(0, frame.error, kept)
        return [own, *(frame.gap.answers() if frame.gap is not None else ())]
