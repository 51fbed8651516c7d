"""The refused sequences of one stream, remembered until the client has heard of them. Room: streaming.core (pure)."""

from collections.abc import Iterator
from typing import NamedTuple

from streaming.core.codes import ACTIONS, NackAction, NackCode

# Refused sequences that are remembered for a stream, the newest ones.
REFUSED_LIMIT = 1_024


class Refusal(NamedTuple):
    """What became of a sequence that is settled and not recorded. ``kept``: its frame is in failed-messages."""

    code: NackCode
    action: NackAction
    kept: bool = False


class Run(NamedTuple):
    """Neighbouring sequences with the same code and action; both ends included."""

    first: int
    last: int
    code: NackCode
    action: NackAction


class Refused:
    """``complete_from``: from this sequence on every refused one is here; below it, one that is not here may have been
    forgotten."""

    __slots__ = ("_by_sequence", "_text", "complete_from")

    def __init__(self, complete_from: int = 1) -> None:
        self.complete_from = complete_from
        self._by_sequence: dict[int, Refusal] = {}
        # As it is written down; made again after a change.
        self._text: str | None = ""

    def __len__(self) -> int:
        return len(self._by_sequence)

    def __contains__(self, sequence: object) -> bool:
        return sequence in self._by_sequence

    def __iter__(self) -> Iterator[int]:
        return iter(self._by_sequence)

    def get(self, sequence: int) -> Refusal | None:
        return self._by_sequence.get(sequence)

    def add(self, sequence: int, refusal: Refusal) -> None:
        """Remembers one more, and forgets the one that was remembered first where there are too many."""
        by_sequence = self._by_sequence
        by_sequence[sequence] = refusal
        self._text = None
        if len(by_sequence) > REFUSED_LIMIT:
            oldest = next(iter(by_sequence))
            del by_sequence[oldest]
            self.complete_from = max(self.complete_from, oldest + 1)

    def forget(self, upto: int) -> None:
        """The client has heard of all up to and including ``upto``."""
        if upto >= self.complete_from:
            self.complete_from = upto + 1
        if any(sequence <= upto for sequence in self._by_sequence):
            self._by_sequence = {s: refusal for s, refusal in self._by_sequence.items() if s > upto}
            self._text = None

    def take_over(self, other: "Refused", upto: int) -> None:
        """``other`` decides for all sequences up to ``upto``; above it both count."""
        own = {s: refusal for s, refusal in self._by_sequence.items() if s > upto}
        self._by_sequence = {}
        self._text = None
        self.complete_from = other.complete_from
        for sequence in sorted(own.keys() | other._by_sequence.keys()):
            self.add(sequence, own[sequence] if sequence in own else other._by_sequence[sequence])

    def runs(self, above: int = 0) -> list[Run]:
        """All above a sequence, ascending, neighbours put together."""
        runs: list[Run] = []
        for sequence in sorted(self._by_sequence):
            if sequence <= above:
                continue
            code, action, _ = self._by_sequence[sequence]
            if runs and runs[-1].last == sequence - 1 and runs[-1][2:] == (code, action):
                runs[-1] = runs[-1]._replace(last=sequence)
            else:
                runs.append(Run(sequence, sequence, code, action))
        return runs

    def to_text(self) -> str:
        """``code/action:3-5,9;…``, ``k`` behind the action of kept ones; without spaces."""
        if self._text is None:
            groups: dict[Refusal, list[list[int]]] = {}
            for sequence in sorted(self._by_sequence):
                ranges = groups.setdefault(self._by_sequence[sequence], [])
                if ranges and ranges[-1][1] == sequence - 1:
                    ranges[-1][1] = sequence
                else:
                    ranges.append([sequence, sequence])
            self._text = ";".join(
                f"{refusal.code}/{refusal.action:d}{'k' * refusal.kept}:"
                + ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in ranges)
                for refusal, ranges in groups.items()
            )
        return self._text

    @classmethod
    def from_text(cls, text: str, complete_from: int) -> "Refused":
        """Raises ValueError for what ``to_text`` has not written."""
        found: dict[int, Refusal] = {}
        for group in filter(None, text.split(";")):
            name, _, ranges = group.partition(":")
            code, _, action = name.partition("/")
            refusal = Refusal(NackCode(code), NackAction(int(action.removesuffix("k"))), action.endswith("k"))
            for part in ranges.split(","):
                first, _, last = part.partition("-")
                span = range(int(first), int(last or first) + 1)
                if len(span) + len(found) > REFUSED_LIMIT:
                    raise ValueError("more refused sequences than are ever kept")
                found.update(dict.fromkeys(span, refusal))
        refused = cls(complete_from)
        for sequence in sorted(found):
            refused.add(sequence, found[sequence])
        return refused


def refusal_of(code: NackCode) -> Refusal:
    """With the action that follows from the code."""
    return Refusal(code, ACTIONS[code])
