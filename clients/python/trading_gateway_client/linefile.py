"""A file of checked lines that can be written anew on a full disk. No knowledge of what the lines mean.

Each line is one JSON object behind its CRC-32 in hex. From version 2 on, which the first line names, the checksum of a
line begins with that of the line before: a line that is missing, doubled or moved is noticed like one that was spoilt.
"""

import json
import logging
import os
import zlib
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Any

from trading_gateway_client.errors import JournalCorrupt

log = logging.getLogger("trading_gateway_client")

VERSION = 2
Line = dict[str, Any]
# Bytes that are held ready for the day on which the disk is full; as many of them as it has.
_SPARE_SIZE = 65_536
_SMALLEST_SPARE = 4_096


class LineFile:
    """Appends lines, or replaces all of them at once; never leaves half a line behind what it has written."""

    def __init__(self, path: Path, *, sync: bool) -> None:
        self._path = path
        self._sync = sync
        self._spare = path.with_name(path.name + ".spare")
        self._draft = path.with_name(path.name + ".tmp")
        self._file: FileIO | None = None
        # None: the lines are of a version whose checksums stand alone.
        self._chain: int | None = 0
        self.size = 0
        self.lines = 0
        self.spare_size = 0

    def load(self) -> list[Line]:
        """The lines of the file, none when there is no file. Raises JournalCorrupt, and leaves it as it is then."""
        if not self._path.exists():
            return []
        data = self._path.read_bytes()
        # What follows the last line break is half a line: the crash came while it was written, before it was sent.
        *texts, torn = data.split(b"\n")
        if not texts:
            raise JournalCorrupt(f"{self._path}: it does not even hold the first line of a journal")
        if b"\0" in torn:
            raise JournalCorrupt(f"{self._path}: it ends in zeros, as after a power cut: what was there is unknown")
        lines: list[Line] = []
        for number, text in enumerate(texts, start=1):
            try:
                lines.append(self._decoded(text, is_first=number == 1))
            except (ValueError, KeyError, TypeError) as error:
                raise JournalCorrupt(f"{self._path}, line {number}: {error}") from None
        self.size = len(data) - len(torn)
        self.lines = len(lines)
        return lines

    def open(self) -> None:
        """Goes on with the file as it is; raises OSError."""
        if self._file is None:
            self._file = FileIO(self._path, "ab")
            self._file.truncate(self.size)

    def append(self, line: Line) -> None:
        """Raises OSError, and leaves the file as it was then."""
        self.open()
        assert self._file is not None  # noqa: S101 (open has raised otherwise)
        data, chain = _encoded(line, self._chain)
        try:
            written = 0
            while written < len(data):
                written += self._file.write(data[written:]) or 0
            if self._sync:
                os.fsync(self._file.fileno())
        except OSError:
            # Half a line (a full disk) would spoil the next one: cut off now, or else when the file is opened again.
            try:
                self._file.truncate(self.size)
            except OSError:
                self.close()
            raise
        self._chain = chain
        self.size += len(data)
        self.lines += 1

    def replace(self, lines: Iterable[Line]) -> None:
        """Writes these lines instead of what the file holds; raises OSError, and the file is as it was then."""
        chain: int | None = 0
        parts: list[bytes] = []
        for line in lines:
            part, chain = _encoded(line, chain)
            parts.append(part)
        data = b"".join(parts)
        try:
            _write_through(self._draft, data, "w")
        except OSError:
            self._draft.unlink(missing_ok=True)
            if len(data) > self.spare_size:
                raise
            # The blocks of the spare file are ours already.
            _write_through(self._spare, data, "r+")
            self.spare_size = 0
            self._take(self._spare)
        else:
            self._take(self._draft)
        self._chain = chain
        self.size = len(data)
        self.lines = len(parts)
        self.open()
        self.make_spare()

    def make_spare(self) -> None:
        """Holds some bytes ready, if there are any."""
        size = _SPARE_SIZE
        if self._spare.exists():
            self.spare_size = self._spare.stat().st_size
        while self.spare_size < _SPARE_SIZE and size >= _SMALLEST_SPARE and size > self.spare_size:
            try:
                _write_through(self._spare, bytes(size), "w")
                self.spare_size = size
            except OSError:
                self._spare.unlink(missing_ok=True)
                self.spare_size = 0
                size //= 2

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, source: Path) -> None:
        # Windows replaces no file that is open.
        self.close()
        source.replace(self._path)

    def _decoded(self, text: bytes, *, is_first: bool) -> Line:
        check, _, body = text.partition(b" ")
        found = zlib.crc32(body, self._chain or 0)
        if check != b"%08x" % found:
            raise ValueError("its checksum does not fit, or a line before it is missing")
        line = json.loads(body)
        if not isinstance(line, dict):
            raise TypeError("it is no object")
        if is_first:
            if "stream" not in line:
                raise ValueError("it is not the first line of a journal")
            version = line.get("v", 1)
            if version > VERSION:
                raise ValueError(f"version {version} is newer than this library")
            self._chain = None if version < VERSION else found
        elif self._chain is not None:
            self._chain = found
        return line


def _encoded(line: Line, chain: int | None) -> tuple[bytes, int | None]:
    """The bytes of a line, and what the checksum of the next one begins with."""
    text = json.dumps(line, separators=(",", ":")).encode()
    check = zlib.crc32(text, chain or 0)
    return b"%08x %b\n" % (check, text), None if chain is None else check


def _write_through(path: Path, data: bytes, mode: str) -> None:
    with FileIO(path, mode) as file:
        written = 0
        while written < len(data):
            written += file.write(data[written:]) or 0
        file.truncate(len(data))
        os.fsync(file.fileno())
