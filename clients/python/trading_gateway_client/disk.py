"""A journal on disk. No sockets.

The file is append-only, one JSON object a line behind its CRC-32 in hex: ``{"stream": id, "form": name}`` once,
``{"s": sequence, "t": type, "d": base64}`` for a message, ``{"a": sequence}`` for an acknowledgement. It is written
anew when most of it is settled.
"""

import base64
import json
import logging
import os
import sys
import zlib
from io import FileIO
from pathlib import Path
from typing import Any

from trading_gateway_client.errors import JournalCorrupt, JournalInUse
from trading_gateway_client.journal import COUNT_LIMIT, SIZE_LIMIT, Entry, Journal

log = logging.getLogger("trading_gateway_client")

_REWRITE_AFTER_LINES = 5_000
_REWRITE_AFTER_BYTES = 64 * 1024 * 1024


class DiskJournal(Journal):
    """A journal that survives a crash of this program; its stream and its sequences go on where they were.

    A message is with the operating system when ``send`` returns; ``sync`` adds an fsync, which survives a power cut.
    """

    def __init__(
        self, path: Path, *, count_limit: int = COUNT_LIMIT, size_limit: int = SIZE_LIMIT, sync: bool = False
    ) -> None:
        """Raises JournalInUse, JournalCorrupt, and OSError when the file cannot be written."""
        super().__init__(count_limit=count_limit, size_limit=size_limit)
        self._path = Path(path)
        self._sync = sync
        self._acknowledged = 0
        self._lines = 0
        self._end = 0
        self._file: FileIO
        self._lock = _lock(self._path.with_name(self._path.name + ".lock"))
        try:
            if self._path.exists():
                self._load()
            self._replace(self._draft())
        except BaseException:
            self._lock.close()
            raise

    def open_stream(self, stream_id: str, form: str) -> None:
        before = (self.stream_id, self.form)
        super().open_stream(stream_id, form)
        if before != (stream_id, form):
            self._write(self._head())

    def add(self, entry: Entry) -> None:
        """Raises OSError when it cannot be written; it is not kept then."""
        self.check_room()
        self._write(_line_of(entry))
        super().add(entry)

    def settle(self, sequence: int) -> list[Entry]:
        settled = super().settle(sequence)
        if sequence > self._acknowledged:
            self._acknowledged = sequence
            try:
                self._write({"a": sequence})
                self._rewrite_if_worth()
            except OSError as error:
                # Costs no message: after a restart they are sent once more, under the same sequences.
                log.warning("an acknowledgement could not be noted in %s: %s", self._path, error)
        return settled

    def close(self) -> None:
        self._file.close()
        self._lock.close()

    # --- The file ----------------------------------------------------------------------------------------------------

    def _head(self) -> dict[str, object]:
        return {"stream": self.stream_id, "form": self.form}

    def _write(self, line: dict[str, object]) -> None:
        data = _encoded(line)
        try:
            written = 0
            while written < len(data):
                written += self._file.write(data[written:]) or 0
            if self._sync:
                os.fsync(self._file.fileno())
        except OSError:
            # Half a line (a full disk) would spoil the next one.
            self._file.truncate(self._end)
            raise
        self._end += len(data)
        self._lines += 1

    def _rewrite_if_worth(self) -> None:
        too_many = self._lines > _REWRITE_AFTER_LINES + 2 * len(self)
        if not too_many and self._end <= _REWRITE_AFTER_BYTES + 3 * self.size:
            return
        # Whether it succeeds or not, the next one is due only after as many lines again.
        self._lines = 0
        draft = self._draft()
        # Windows replaces no file that is open.
        self._file.close()
        try:
            self._replace(draft)
        finally:
            if self._file.closed:
                self._open()

    def _draft(self) -> Path:
        """Writes what is still of use beside the file."""
        draft = self._path.with_name(self._path.name + ".tmp")
        lines: list[dict[str, object]] = [self._head(), {"a": self._acknowledged}]
        lines += [_line_of(entry) for entry in (*self.on_way, *self.unsent)]
        with draft.open("wb") as file:
            file.writelines(_encoded(line) for line in lines)
            file.flush()
            os.fsync(file.fileno())
        return draft

    def _replace(self, draft: Path) -> None:
        draft.replace(self._path)
        self._open()
        self._lines = len(self) + 2

    def _open(self) -> None:
        self._file = FileIO(self._path, "ab")
        self._end = self._path.stat().st_size

    def _load(self) -> None:
        # What follows the last line break is half a line: the crash came while it was written, before it was sent.
        *lines, _ = self._path.read_bytes().split(b"\n")
        entries: dict[int, Entry] = {}
        for number, text in enumerate(lines, start=1):
            try:
                self._take(_decoded(text), entries)
            except (ValueError, KeyError, TypeError) as error:
                raise JournalCorrupt(f"{self._path}, line {number}: {error}") from None
        self.last_sequence = max([self._acknowledged, *entries])
        owed = sorted(sequence for sequence in entries if sequence > self._acknowledged)
        if owed and owed[-1] - owed[0] + 1 != len(owed):
            raise JournalCorrupt(f"{self._path}: a message between {owed[0]} and {owed[-1]} is missing")
        self.unsent.extend(entries[sequence] for sequence in owed)
        self.size = sum(len(entry.frame) for entry in self.unsent)

    def _take(self, line: dict[str, Any], entries: dict[int, Entry]) -> None:
        if "stream" in line:
            self.stream_id, self.form = str(line["stream"]), str(line["form"])
        elif "a" in line:
            self._acknowledged = max(self._acknowledged, int(line["a"]))
        else:
            frame = base64.b64decode(line["d"], validate=True)
            entries[int(line["s"])] = Entry(int(line["s"]), str(line["t"]), frame)


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


def _encoded(line: dict[str, object]) -> bytes:
    text = json.dumps(line, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _decoded(line: bytes) -> Any:
    check, _, text = line.partition(b" ")
    if check != b"%08x" % zlib.crc32(text):
        raise ValueError("its checksum does not fit")
    return json.loads(text)


def _line_of(entry: Entry) -> dict[str, object]:
    return {"s": entry.sequence, "t": entry.message_type, "d": base64.b64encode(entry.frame).decode()}
