"""A journal outlives its program, and says so when its file was spoilt."""

import base64
import json
import signal
import subprocess
import sys
import zlib
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
    entry = Entry(sequence, "tick_data", b"%d" % sequence * 20)
    journal.add(entry)
    journal.assign([entry])
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
        settle(journal, acknowledged)
    journal.close()


def settle(journal: DiskJournal, upto: int) -> list[int]:
    """The gateway has everything up to this sequence; the sequences that are done with."""
    journal.assign([*journal.ticks][: upto - journal.next_sequence + 1])
    return [done.sequence for done in journal.settle(upto)]


def read(path: Path) -> tuple[str, int, list[tuple[int, str, bytes]]]:
    """Opens a journal and tells its stream, its last sequence, and what it still owes."""
    journal = DiskJournal(path)
    owed = [(kept.sequence, kept.message_type, kept.frame) for kept in journal.owed]
    assert not journal.ordered
    assert not journal.ticks
    journal.close()
    return journal.stream_id, journal.next_sequence - 1, owed


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
        for bit in (0, 2, 7):
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


@pytest.mark.parametrize("place", range(2, 6))
def test_lost_line_is_noticed_wherever_it_was(path: Path, place: int) -> None:
    write(path, 5)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:place] + lines[place + 1 :]))
    with pytest.raises(JournalCorrupt, match="a line before it is missing"):
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


def test_file_of_zeros_is_noticed(path: Path) -> None:
    write(path, 3)
    whole = path.read_bytes()
    for spoilt in (bytes(len(whole)), b"", whole[:20], whole + bytes(100), whole[:-1] + bytes(4096)):
        path.write_bytes(spoilt)
        with pytest.raises(JournalCorrupt):
            read(path)
        assert path.read_bytes() == spoilt


def old_file(path: Path, count: int, acknowledged: int) -> None:
    """A journal as version 1 of this library has written it."""
    lines: list[dict[str, object]] = [{"stream": "ea-1", "form": "protobuf"}, {"a": 0}]
    for sequence in range(1, count + 1):
        data = base64.b64encode(entry(sequence).frame).decode()
        lines.append({"s": sequence, "t": "tick_data", "d": data})
    lines.append({"a": acknowledged})
    texts = [json.dumps(line, separators=(",", ":")).encode() for line in lines]
    path.write_bytes(b"".join(b"%08x %b\n" % (zlib.crc32(text), text) for text in texts))


def test_journal_of_the_older_format_opens_and_gets_a_writer(path: Path) -> None:
    old_file(path, 5, 2)
    journal = DiskJournal(path)
    assert (journal.stream_id, journal.heard, journal.last_number, len(journal)) == ("ea-1", 2, 5, 3)
    writer = journal.writer
    journal.close()
    assert read(path) == ("ea-1", 5, owed(3, 5))
    journal = DiskJournal(path)
    assert journal.writer == writer
    journal.close()


def test_first_owed_line_that_is_missing_from_the_older_format_is_noticed(path: Path) -> None:
    old_file(path, 5, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    for place in (4, 5):
        path.write_bytes(b"".join(lines[:place] + lines[place + 1 :]))
        with pytest.raises(JournalCorrupt, match="is missing"):
            read(path)


def test_file_is_written_anew_when_most_of_it_is_settled(path: Path) -> None:
    journal = DiskJournal(path)
    journal.open_stream("ea-1", "protobuf")
    largest = 0
    for sequence in range(1, 12_001):
        journal.add(entry(sequence))
        journal.assign([*journal.ticks])
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
