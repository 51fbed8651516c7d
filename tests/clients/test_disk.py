"""A journal outlives its program, and says so when its file was spoilt."""

import logging
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import pytest

from trading_gateway_client import disk
from trading_gateway_client.disk import DiskJournal
from trading_gateway_client.errors import JournalCorrupt, JournalFull, JournalInUse
from trading_gateway_client.journal import Entry

WRITER = """
import sys
from pathlib import Path
from trading_gateway_client.disk import DiskJournal
from trading_gateway_client.journal import Entry
journal = DiskJournal(Path(sys.argv[1]))
journal.open_stream("ea-1", "protobuf")
sequence = 0
while True:
    sequence += 1
    journal.add(Entry(sequence, "tick_data", b"%d" % sequence * 20))
    journal.settle(sequence - 100)
    print(sequence, flush=True)
"""


def entry(sequence: int) -> Entry:
    return Entry(sequence, "tick_data", f"message {sequence}".encode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def write(path: Path, count: int, acknowledged: int = 0, stream_id: str = "ea-1") -> None:
    """Leaves a journal as a program that ended has left it."""
    journal = DiskJournal(path)
    journal.open_stream(stream_id, "protobuf")
    for sequence in range(1, count + 1):
        journal.add(entry(sequence))
    if acknowledged:
        journal.settle(acknowledged)
    journal.close()


def read(path: Path) -> tuple[str, int, list[tuple[int, str, bytes]]]:
    """Opens a journal and tells its stream, its last sequence, and what it still owes."""
    journal = DiskJournal(path)
    owed = [(kept.sequence, kept.message_type, kept.frame) for kept in journal.unsent]
    journal.close()
    return journal.stream_id, journal.last_sequence, owed


def owed(first: int, last: int) -> list[tuple[int, str, bytes]]:
    return [(sequence, "tick_data", entry(sequence).frame) for sequence in range(first, last + 1)]


def test_reopened_journal_owes_what_was_not_acknowledged(path: Path) -> None:
    write(path, 5, acknowledged=2)
    assert read(path) == ("ea-1", 5, owed(3, 5))
    assert read(path) == ("ea-1", 5, owed(3, 5))


def test_reopened_journal_counts_on_though_all_is_settled(path: Path) -> None:
    write(path, 5, acknowledged=5)
    assert read(path) == ("ea-1", 5, [])


def test_reopened_journal_knows_its_size_and_limits(path: Path) -> None:
    write(path, 3)
    journal = DiskJournal(path, count_limit=3)
    assert journal.size == sum(len(entry(sequence).frame) for sequence in (1, 2, 3))
    with pytest.raises(JournalFull):
        journal.add(entry(4))
    journal.close()
    assert read(path) == ("ea-1", 3, owed(1, 3))


def test_second_opener_is_refused_until_the_first_closes(path: Path) -> None:
    first = DiskJournal(path)
    with pytest.raises(JournalInUse):
        DiskJournal(path)
    first.close()
    DiskJournal(path).close()


def test_killed_program_has_lost_nothing_that_add_returned_for(path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(path)]
    library = Path(disk.__file__).parents[1]
    with subprocess.Popen(command, cwd=library, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = 0
        for line in writer.stdout:
            told = int(line)
            if told == 2_500:
                writer.send_signal(signal.SIGKILL)
    _, last, kept = read(path)
    assert told >= 2_500
    assert last >= told
    assert [sequence for sequence, _, _ in kept] == list(range(kept[0][0], last + 1))
    assert len(kept) in (100, 101), "what it had settled stays settled"
    assert all(frame == b"%d" % sequence * 20 for sequence, _, frame in kept)


def test_file_torn_anywhere_in_its_last_line_loses_that_line_alone(path: Path) -> None:
    write(path, 4)
    whole = path.read_bytes()
    for cut in range(whole[:-1].rindex(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:cut])
        assert read(path) == ("ea-1", 3, owed(1, 3)), f"cut after {cut} bytes"
    # What is written next does not join the half line.
    path.write_bytes(whole[:-5])
    journal = DiskJournal(path)
    journal.add(entry(4))
    journal.close()
    assert read(path) == ("ea-1", 4, owed(1, 4))


def test_every_flipped_bit_is_noticed(path: Path) -> None:
    write(path, 3, acknowledged=1)
    whole = path.read_bytes()
    # The last line break is left out: without it, the last line is one that was never finished.
    for place in range(len(whole) - 1):
        for bit in range(8):
            spoilt = bytearray(whole)
            spoilt[place] ^= 1 << bit
            path.write_bytes(spoilt)
            with pytest.raises(JournalCorrupt):
                read(path)
                pytest.fail(f"byte {place}, bit {bit}: {bytes(spoilt)!r}")
            assert path.read_bytes() == spoilt, "it is left for whoever can repair it"


@pytest.mark.parametrize("is_checked", [False, True])
@pytest.mark.parametrize(
    "line", [b"", b"null", b"[]", b"7", b'{"s":2}', b'{"s":[2],"t":"","d":""}', b"\xff\xfe", b'{"a":"x"}', b"{"]
)
def test_line_that_is_none_is_noticed(path: Path, line: bytes, is_checked: bool) -> None:
    if is_checked:
        line = b"%08x %b" % (zlib.crc32(line), line)
    write(path, 2)
    first, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(first + b"\n" + line + b"\n" + rest)
    with pytest.raises(JournalCorrupt, match="line 2"):
        DiskJournal(path)


def test_lost_line_is_noticed(path: Path) -> None:
    write(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2] + lines[-1:]))
    with pytest.raises(JournalCorrupt, match="between 1 and 3 is missing"):
        DiskJournal(path)


def test_corrupt_journal_is_not_left_locked(path: Path) -> None:
    path.write_bytes(b"nonsense\n")
    # The first error is still held, with all that its traceback holds, while the second comes.
    with pytest.raises(JournalCorrupt) as first:
        DiskJournal(path)
    with pytest.raises(JournalCorrupt):
        DiskJournal(path)
    assert first.value.retryable is False
    path.unlink()
    DiskJournal(path).close()


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A disk that takes as many bytes as the one number in the list says."""
    room = [1_000_000]

    class SmallFile(FileIO):
        def write(self, data: object) -> int:
            assert isinstance(data, bytes)
            if not room[0] and data:
                raise OSError(28, "No space left on device")
            taken = super().write(data[: room[0]])
            room[0] -= taken
            return taken

    monkeypatch.setattr(disk, "FileIO", SmallFile)
    yield room


def test_message_that_found_the_disk_full_is_not_kept(path: Path, small_disk: list[int]) -> None:
    journal = DiskJournal(path)
    journal.open_stream("ea-1", "protobuf")
    journal.add(entry(1))
    small_disk[0] = 20
    with pytest.raises(OSError, match="No space left"):
        journal.add(entry(2))
    assert (len(journal), journal.last_sequence) == (1, 1)
    small_disk[0] = 1_000_000
    journal.add(entry(2))
    journal.close()
    assert read(path) == ("ea-1", 2, owed(1, 2))


def test_acknowledgement_that_found_the_disk_full_costs_no_message(
    path: Path, small_disk: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    write(path, 3)
    journal = DiskJournal(path)
    small_disk[0] = 5
    with caplog.at_level(logging.WARNING):
        assert [kept.sequence for kept in journal.settle(2)] == [1, 2]
    assert "could not be noted" in caplog.text
    journal.close()
    assert read(path) == ("ea-1", 3, owed(1, 3))


def test_file_is_written_anew_when_most_of_it_is_settled(path: Path) -> None:
    journal = DiskJournal(path)
    journal.open_stream("ea-1", "protobuf")
    largest = 0
    for sequence in range(1, 12_001):
        journal.add(entry(sequence))
        journal.settle(sequence - 3)
        largest = max(largest, path.stat().st_size)
    journal.close()
    assert largest < 500_000
    assert read(path) == ("ea-1", 12_000, owed(11_998, 12_000))


def test_crash_while_the_file_is_written_anew_leaves_the_old_one(path: Path) -> None:
    write(path, 4, acknowledged=1)
    path.with_name("journal.tmp").write_bytes(path.read_bytes()[:30])
    assert read(path) == ("ea-1", 4, owed(2, 4))
    assert not path.with_name("journal.tmp").exists()
