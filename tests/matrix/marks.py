"""What tells where a piece of text comes from: each company has marks that nothing else in a test has.

A mark is a word (six letters), the beginning of each of its UUIDs, and the beginning of each of its numbers.
"""

import base64
import re
import uuid
from dataclasses import dataclass, field
from functools import cached_property

_AROUND = 60


@dataclass(frozen=True)
class Marks:
    """``word`` stands in every text, ``hex`` begins every UUID, ``digits`` every number (nine in all) of a company."""

    word: str
    hex: str
    digits: str
    _taken: list[int] = field(default_factory=lambda: [0], compare=False, repr=False)

    def text(self, kind: str, limit: int | None = None) -> str:
        """A text of this company's, another at each call, in at most ``limit`` characters."""
        number = self._next()
        whole = f"{self.word}{number:03d}-{kind}"
        return whole if limit is None else whole[:limit]

    def uuid(self) -> uuid.UUID:
        return uuid.UUID(f"{self.hex}-0000-4000-8000-{self._next():012d}")

    def number(self) -> int:
        return int(f"{self.digits}{self._next():05d}")

    def _next(self) -> int:
        self._taken[0] += 1
        return self._taken[0]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        in_link = base64.b64encode(f"{self.hex}-".encode()).decode()
        return re.compile(rf"{self.word}|{self.hex}|{self.digits}\d{{5}}|{in_link}", re.IGNORECASE)


COMPANIES = (
    Marks("aquila", "a1a1a1a1", "7101"),
    Marks("boreas", "b2b2b2b2", "7202"),
    Marks("corvus", "c3c3c3c3", "7303"),
)
# Of rows that never were; in shape it is one of the companies.
NOBODY = Marks("dorado", "d4d4d4d4", "7404")


def found_in(text: str, others: tuple[Marks, ...]) -> list[str]:
    """The marks of these companies in ``text``, each with what stands around it."""
    found = [match.span() for marks in others for match in marks.pattern.finditer(text)]
    return [text[max(0, start - _AROUND) : end + _AROUND] for start, end in found]
