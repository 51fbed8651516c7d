"""A journal on disk. No sockets.

The lines of its file, after ``{"v": 2, "stream": id, "form": name, "writer": name}``:
``{"n": number, "s": sequence, "t": type, "d": base64}`` for a message; without ``n``: the same as ``s``; without ``s``:
it has no sequence yet. ``{"n": number, "d": base64}`` for another frame of the same message.
``{"a": sequence}``: everything up to it is settled, but for the numbers in ``k``, which wait for a new sequence; Kafka
may have those in ``q`` already, and a message line with ``q``.
``{"w": numbers, "c": sequence}``: these messages have the sequences from ``c`` on. In any line, ``c`` says that no
other message has one from there on.

A message line names the sequence that the message will get if nothing is offered anew before its turn, so that sending
it needs no line of its own. The file is written anew when most of it is settled, and when the disk is full.
"""

import base64
import errno
import heapq
import logging
import sys
import time
from collections.abc import Sequence
from io import FileIO
from itertools import islice
from pathlib import Path

from trading_gateway_client.errors import JournalCorrupt, JournalInUse
from trading_gateway_client.forms import FORMS
from trading_gateway_client.journal import COUNT_LIMIT, SIZE_LIMIT, Entry, Journal
from trading_gateway_client.linefile import VERSION, Line, LineFile

log = logging.getLogger("trading_gateway_client")

_REWRITE_AFTER_LINES = 5_000
_REWRITE_AFTER_BYTES = 64 * 1024 * 1024
# Seconds between two rewrites that may fail.
_RETRY_PAUSE = 1.0
# Bytes of a line beside its frame, at most.
_LINE_SIZE = 120


class DiskJournal(Journal):
    """A journal that survives a crash of this program; its stream and its sequences go on where they were.

    A message is with the operating system when ``send`` returns; ``sync`` adds an fsync, which survives a power cut.
    """

    def __init__(
        self, path: Path, *, count_limit: int = COUNT_LIMIT, size_limit: int = SIZE_LIMIT, sync: bool = False
    ) -> None:
        """Raises JournalInUse and JournalCorrupt; OSError when the file cannot be read or locked."""
        super().__init__(count_limit=count_limit, size_limit=size_limit)
        self._path = Path(path)
        self._noted = 0
        # Whether the file lags behind what is held here: it is written anew before anything is added to it.
        self._is_stale = False
        # Seconds of the monotonic clock from which a rewrite may be tried again that has failed.
        self._retry_at = 0.0
        # Messages that wait and whose number is not above it have no sequence in the file.
        self._loose_upto = 0
        self._lock = _lock(self._path.with_name(self._path.name + ".lock"))
        self._file = LineFile(self._path, sync=sync)
        try:
            self._load()
            self._file.make_spare()
            try:
                self._rewrite()
            except OSError as error:
                self._is_stale = not self._file.lines
                log.warning("%s is not written anew: %s", self._path, error)
        except BaseException:
            self._file.close()
            self._lock.close()
            raise

    @property
    def noted(self) -> int:
        return self._noted

    def open_stream(self, stream_id: str, form: str) -> None:
        before = (self.stream_id, self.form)
        super().open_stream(stream_id, form)
        if before != (stream_id, form):
            self._rewrite_or_lag()

    def add(self, entry: Entry) -> None:
        """Raises OSError when it cannot be written; it is not kept then."""
        self.check_room()
        number = self.last_number + 1
        is_loose = self._has_loose
        line = _line_of(entry, number, 0 if is_loose else entry.sequence)
        self._write(line)
        if is_loose:
            self._loose_upto = number
        super().add(entry)

    def assign(self, batch: Sequence[Entry]) -> None:
        self._catch_up()
        if batch and not self._is_implied(batch):
            self._write({"w": [entry.number for entry in batch], "c": self.next_sequence})
            self._loose_upto = self.last_number
        super().assign(batch)

    def settle(self, heard: int, again: Sequence[Entry] = ()) -> list[Entry]:
        line: Line = {"a": heard}
        if again:
            line |= {"k": [entry.number for entry in again], "c": self.next_sequence}
            line["q"] = [entry.number for entry in again if entry.is_doubtful]
        settled = super().settle(heard, again)
        if again:
            self._loose_upto = self.last_number
        self._note(line)
        if not self._is_stale:
            self._noted = self.heard
            self._rewrite_if_worth()
        return settled

    def replace(self, entry: Entry, frame: bytes) -> None:
        super().replace(entry, frame)
        self._note({"n": entry.number, "d": base64.b64encode(frame).decode()})

    def begin_anew(self) -> None:
        super().begin_anew()
        self._loose_upto = self.last_number
        self._noted = 0
        self._rewrite_or_lag()

    def close(self) -> None:
        if self._is_stale:
            self._rewrite_or_lag()
        self._file.close()
        self._lock.close()

    # --- Writing -----------------------------------------------------------------------------------------------------

    @property
    def _has_loose(self) -> bool:
        """Whether a message waits whose sequence the file does not say."""
        upto = self._loose_upto
        return any(lane and lane[0].number <= upto for lane in (self.ordered, self.ticks))

    def _is_implied(self, batch: Sequence[Entry]) -> bool:
        """Whether the file says these sequences already: nothing is loose, and nothing older stays behind."""
        if self._has_loose:
            return False
        ordered = sum(entry.is_ordered for entry in batch)
        ticks = len(batch) - ordered
        rest = (*islice(self.ordered, ordered, ordered + 1), *islice(self.ticks, ticks, ticks + 1))
        return all(entry.number > batch[-1].number for entry in rest)

    def _write(self, line: Line) -> None:
        """One more line, after making room for it if need be. Raises OSError, and the file is as it was then."""
        self._catch_up()
        try:
            self._file.append(line)
        except OSError:
            if not self._may_rewrite():
                raise
            self._rewrite()
            self._file.append(line)

    def _catch_up(self) -> None:
        """Raises OSError while the file lags behind."""
        if self._is_stale and not self._may_rewrite():
            raise OSError(errno.ENOSPC, "the journal could not be written before", str(self._path))
        if self._is_stale:
            self._rewrite()

    def _note(self, line: Line) -> None:
        """Writes what is true already. Failing costs no message: what is settled would be sent once more, under the
        same sequence; the gateway is not told of it, and what has lost its sequence is not sent, before it is written.
        """
        if self._is_stale:
            if self._may_rewrite():
                self._rewrite_or_lag()
            return
        try:
            self._file.append(line)
        except OSError as error:
            log.warning("an acknowledgement could not be noted in %s: %s", self._path, error)
            self._rewrite_or_lag()

    def _rewrite_or_lag(self) -> None:
        try:
            self._rewrite()
        except OSError as error:
            if not self._is_stale:
                log.warning("%s lags behind: %s", self._path, error)
            self._is_stale = True

    def _may_rewrite(self) -> bool:
        """Whether a rewrite is worth a try: each costs as much as there are messages."""
        live = self.size * 4 // 3 + len(self) * _LINE_SIZE
        return live <= self._file.spare_size or time.monotonic() >= self._retry_at

    def _rewrite(self) -> None:
        """Raises OSError; the file is as it was then."""
        self._retry_at = time.monotonic() + _RETRY_PAUSE
        self._file.replace(self._all_lines())
        self._is_stale = False
        self._noted = self.heard
        self._retry_at = 0.0

    def _rewrite_if_worth(self) -> None:
        too_many = self._file.lines > _REWRITE_AFTER_LINES + 2 * len(self)
        if (too_many or self._file.size > _REWRITE_AFTER_BYTES + 3 * self.size) and self._may_rewrite():
            try:
                self._rewrite()
            except OSError as error:
                log.warning("%s is not written anew: %s", self._path, error)

    def _all_lines(self) -> list[Line]:
        waiting = list(heapq.merge(self.ordered, self.ticks, key=lambda entry: entry.number))
        implied = enumerate(waiting, start=self.next_sequence)
        if self._has_loose or any(entry.sequence != sequence for sequence, entry in implied):
            self._loose_upto = self.last_number
        has_loose = self._has_loose
        return [
            {"v": VERSION, "stream": self.stream_id, "form": self.form, "writer": self.writer},
            {"a": self.heard, "n": self.last_number},
            *(_line_of(entry, entry.number, entry.sequence) for entry in self.owed),
            *(_line_of(entry, entry.number, 0 if has_loose else entry.sequence) for entry in waiting),
        ]

    # --- Reading -----------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        reader = _Reader(self)
        for number, line in enumerate(self._file.load(), start=1):
            try:
                reader.take(line)
            except (ValueError, KeyError, TypeError) as error:
                raise JournalCorrupt(f"{self._path}, line {number}: {type(error).__name__} {error}") from None
        entries = reader.entries
        self._noted = self.heard
        owed = sorted((e for e in entries.values() if e.sequence > self.heard), key=lambda entry: entry.sequence)
        for expected, entry in enumerate(owed, start=self.heard + 1):
            if entry.sequence != expected:
                raise JournalCorrupt(f"{self._path}: the message with sequence {expected} is missing")
            if entry.number in reader.reframed:
                entry.frame = FORMS[self.form].reframed(entry.frame, entry.sequence)
        self.owed.extend(owed)
        self.next_sequence = self.heard + len(owed) + 1
        waiting = sorted((e for e in entries.values() if not e.sequence), key=lambda entry: entry.number)
        for entry in waiting:
            self.lane_of(entry).append(entry)
        self.last_number = max([self.last_number, self.heard, *entries])
        self._loose_upto = self.last_number
        self.size = sum(len(entry.frame) for entry in (*owed, *waiting))


class _Reader:
    """Follows the lines of a file from the first on."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        # By number; what is settled stays in here.
        self.entries: dict[int, Entry] = {}
        # Numbers whose frames may hold another sequence than their entries.
        self.reframed: set[int] = set()
        self._by_sequence: dict[int, Entry] = {}
        self._last = 0

    def take(self, line: Line) -> None:
        """Raises ValueError, KeyError or TypeError for a line that is none."""
        if "stream" in line:
            journal = self._journal
            journal.stream_id, journal.form = str(line["stream"]), str(line["form"])
            journal.writer = str(line.get("writer", journal.writer))
        elif "t" in line:
            sequence = int(line.get("s", 0))
            number = int(line.get("n", sequence))
            frame = base64.b64decode(line["d"], validate=True)
            self.entries[number] = Entry(0, str(line["t"]), frame, number=number, is_doubtful="q" in line)
            if sequence:
                self._give(self.entries[number], sequence)
        elif "d" in line:
            self.entries[int(line["n"])].frame = base64.b64decode(line["d"], validate=True)
            self.reframed.add(int(line["n"]))
        elif "a" in line or "w" in line:
            self._take_sequences(line)
        else:
            raise ValueError("a line of no known kind")

    def _take_sequences(self, line: Line) -> None:
        if "c" in line:
            for sequence in range(int(line["c"]), self._last + 1):
                self._by_sequence[sequence].sequence = 0
            self._last = int(line["c"]) - 1
        for number in line.get("k", ()):
            self.entries[number].sequence = 0
        for number in line.get("q", ()):
            self.entries[number].is_doubtful = True
        for sequence, number in enumerate(line.get("w", ()), start=int(line.get("c", 0))):
            self._give(self.entries[number], sequence)
            self.reframed.add(number)
        self._journal.heard = max(self._journal.heard, int(line.get("a", 0)))
        self._journal.last_number = max(self._journal.last_number, int(line.get("n", 0)))

    def _give(self, entry: Entry, sequence: int) -> None:
        entry.sequence = sequence
        self._by_sequence[sequence] = entry
        self._last = max(self._last, sequence)


def _lock(path: Path) -> FileIO:
    """Held as long as it is open, by this process alone; gone with the process."""
    file = FileIO(path, "ab")
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise JournalInUse(f"another client has {path} locked") from None
    return file


def _line_of(entry: Entry, number: int, sequence: int) -> Line:
    line: Line = {} if number == sequence else {"n": number}
    if sequence:
        line["s"] = sequence
    if entry.is_doubtful:
        line["q"] = 1
    return {**line, "t": entry.message_type, "d": base64.b64encode(entry.frame).decode()}
