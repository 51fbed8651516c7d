"""Messages from ``send`` until the gateway has settled them: in memory, and on disk when asked. No sockets.

The file is append-only, one JSON object a line: ``{"s": sequence, "t": type, "d": base64}`` for a message and
``{"a": sequence}`` for an acknowledgement; a torn last line is dropped. It is written anew when most of it is settled.
"""

import base64
import json
import os
from collections import deque
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path

from trading_gateway_client.errors import JournalFull

COUNT_LIMIT = 10_000
SIZE_LIMIT = 16 * 1024 * 1024
_REWRITE_AFTER = 5_000


@dataclass(slots=True)
class Entry:
    """One message; ``frame`` is what goes over the wire, again and again until it is settled."""

    sequence: int
    message_type: str
    frame: bytes
    # Seconds of the event loop's clock when it was given to this client; 0.0: by an earlier run of the program.
    offered_at: float = 0.0
    # How often it went over the wire.
    attempts: int = 0
    # The code of its nack, once it was refused.
    refusal: str = ""


class Journal:
    """Keeps entries in order of their sequence; those before ``unsent`` are on the way on the present connection."""

    def __init__(self, *, count_limit: int = COUNT_LIMIT, size_limit: int = SIZE_LIMIT) -> None:
        """Limits in messages and in bytes."""
        self._count_limit = count_limit
        self._size_limit = size_limit
        self.on_way: deque[Entry] = deque()
        self.unsent: deque[Entry] = deque()
        self.size = 0
        self.last_sequence = 0

    def __len__(self) -> int:
        return len(self.on_way) + len(self.unsent)

    @property
    def is_full(self) -> bool:
        return len(self) >= self._count_limit or self.size >= self._size_limit

    def add(self, entry: Entry) -> None:
        """Raises JournalFull and keeps nothing then."""
        if self.is_full:
            raise JournalFull("too many messages wait for their acknowledgement")
        self.unsent.append(entry)
        self.size += len(entry.frame)
        self.last_sequence = entry.sequence

    def settle(self, sequence: int) -> list[Entry]:
        """Takes out everything up to and including ``sequence``; the entries, in order."""
        settled = []
        for waiting in (self.on_way, self.unsent):
            while waiting and waiting[0].sequence <= sequence:
                entry = waiting.popleft()
                self.size -= len(entry.frame)
                settled.append(entry)
        return settled

    def find_on_way(self, sequence: int) -> Entry | None:
        if self.on_way and self.on_way[0].sequence <= sequence <= self.on_way[-1].sequence:
            return self.on_way[sequence - self.on_way[0].sequence]
        return None

    def rewind(self) -> None:
        """Everything that is not settled is to be sent again, in order, before anything new."""
        self.unsent.extendleft(reversed(self.on_way))
        self.on_way.clear()

    def close(self) -> None:
        """Ends the use of whatever holds the entries."""


class DiskJournal(Journal):
    """A journal that survives a crash of this program; ``stream_id`` and sequences go on where they were.

    Writes are flushed to the operating system at each message; ``sync`` adds an fsync, which survives a power cut.
    """

    def __init__(
        self, path: Path, *, count_limit: int = COUNT_LIMIT, size_limit: int = SIZE_LIMIT, sync: bool = False
    ) -> None:
        super().__init__(count_limit=count_limit, size_limit=size_limit)
        self._path = path
        self._sync = sync
        self._acknowledged = 0
        self._lines = 0
        if path.exists():
            self._load()
        self._file: BufferedWriter
        self._rewrite()

    def add(self, entry: Entry) -> None:
        super().add(entry)
        self._write(_line_of(entry))

    def settle(self, sequence: int) -> list[Entry]:
        settled = super().settle(sequence)
        if sequence > self._acknowledged:
            self._acknowledged = sequence
            self._write({"a": sequence})
            if self._lines > _REWRITE_AFTER + 2 * len(self):
                self._file.close()
                self._rewrite()
        return settled

    def close(self) -> None:
        self._file.close()

    def _write(self, line: dict[str, object]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        if self._sync:
            os.fsync(self._file.fileno())
        self._lines += 1

    def _load(self) -> None:
        entries: dict[int, Entry] = {}
        for text in self._path.read_bytes().split(b"\n"):
            try:
                line = json.loads(text)
                if "a" in line:
                    self._acknowledged = max(self._acknowledged, line["a"])
                else:
                    entries[line["s"]] = Entry(line["s"], line["t"], base64.b64decode(line["d"]))
            except (ValueError, KeyError, TypeError):
                # Half a line: the crash came while it was written, so its message was never promised to anyone.
                continue
        self.last_sequence = max([self._acknowledged, *entries])
        for sequence in sorted(entries):
            if sequence > self._acknowledged:
                self.unsent.append(entries[sequence])
                self.size += len(entries[sequence].frame)

    def _rewrite(self) -> None:
        draft = self._path.with_name(self._path.name + ".tmp")
        lines: list[dict[str, object]] = [{"a": self._acknowledged}]
        lines += [_line_of(entry) for entry in (*self.on_way, *self.unsent)]
        with draft.open("wb") as file:
            file.writelines(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        self._lines = len(lines)
        self._file = self._path.open("ab")


def _line_of(entry: Entry) -> dict[str, object]:
    return {"s": entry.sequence, "t": entry.message_type, "d": base64.b64encode(entry.frame).decode()}
