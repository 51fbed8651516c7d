"""A journal on a disk that is full or fails: nothing is lost, no sequence is used twice, and it recovers by itself."""

import errno
import itertools
import logging
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trading_gateway_client import disk as disk_module
from trading_gateway_client import linefile
from trading_gateway_client.disk import DiskJournal
from trading_gateway_client.forms import FORMS
from trading_gateway_client.journal import Entry
from trading_gateway_client.pb import envelope_pb2, payloads_pb2


@dataclass
class Disk:
    """The folder of a journal with room for ``capacity`` bytes; ``fails`` says which call does not succeed."""

    folder: Path
    capacity: int = 1_000_000_000
    fails: Callable[[str], bool] = lambda _: False
    calls: list[str] = field(default_factory=list)

    @property
    def free(self) -> int:
        return self.capacity - sum(file.stat().st_size for file in self.folder.iterdir())

    def fill(self) -> None:
        """Somebody else takes what is left."""
        self.capacity -= max(0, self.free)

    def call(self, name: str) -> None:
        self.calls.append(name)
        if self.fails(name):
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    small = Disk(tmp_path)

    class SmallFile(FileIO):
        def __init__(self, path: Path, mode: str) -> None:
            small.call("open")
            super().__init__(path, mode)
            self._path = path

        def write(self, data: Any) -> int:
            small.call("write")
            size = self._path.stat().st_size
            place = size if "a" in self.mode else self.tell()
            missing = place + len(data) - size - max(0, small.free)
            room = len(data) - max(0, missing)
            if data and room <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[:room])

        def truncate(self, size: int | None = None) -> int:
            small.call("truncate")
            return super().truncate(size)

    def fsync(_: int) -> None:
        small.call("fsync")

    def replace(source: Path, target: Path) -> Path:
        small.call("replace")
        source.rename(target)
        return target

    # Each question takes a second: what failed may be tried again.
    seconds = itertools.count()
    monkeypatch.setattr(disk_module, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    monkeypatch.setattr(linefile, "FileIO", SmallFile)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    yield small


def entry(journal: DiskJournal, kind: str = "tick_data") -> Entry:
    payload = payloads_pb2.UserEvent(event_type="x" * 60)
    frame = FORMS["protobuf"].frame(kind, payload, sequence=journal.expected_sequence, stream_id="ea-1")
    return Entry(journal.expected_sequence, kind, frame)


def opened(disk: Disk, **options: Any) -> DiskJournal:
    journal = DiskJournal(disk.folder / "journal", **options)
    journal.open_stream("ea-1", "protobuf")
    return journal


def fill(journal: DiskJournal) -> int:
    """Messages until the disk is full; how many it took."""
    count = 0
    while True:
        try:
            journal.add(entry(journal))
        except OSError as error:
            assert error.errno == errno.ENOSPC
            return count
        count += 1


def settle(journal: DiskJournal, count: int) -> None:
    """The oldest messages are sent and acknowledged."""
    batch = [*journal.ticks][: max(0, count - len(journal.owed))]
    for place, one in enumerate(batch, start=journal.next_sequence):
        one.sequence = place
    journal.assign(batch)
    journal.settle(journal.owed[count - 1].sequence)


def numbers(journal: DiskJournal) -> list[int]:
    return sorted(entry.number for entry in (*journal.owed, *journal.ordered, *journal.ticks))


@pytest.mark.parametrize("capacity", [90_000, 150_000, 250_000])
@pytest.mark.parametrize("sync", [False, True])
def test_sender_on_a_full_disk_goes_on_once_its_messages_are_settled(disk: Disk, capacity: int, sync: bool) -> None:
    disk.capacity = capacity
    journal = opened(disk, sync=sync)
    for _ in range(3):
        count = fill(journal)
        assert count > 50
        settle(journal, len(journal))
        assert len(journal) == 0
    for _ in range(50):
        journal.add(entry(journal))
    expected = numbers(journal)
    journal.close()
    again = opened(disk)
    assert numbers(again) == expected


def test_sender_on_a_full_disk_goes_on_while_others_are_still_owed(disk: Disk) -> None:
    disk.capacity = 400_000
    journal = opened(disk)
    count = fill(journal)
    settle(journal, count - 100)
    for _ in range(100):
        journal.add(entry(journal))
    assert len(journal) == 200


def test_message_that_found_the_disk_full_is_not_kept(disk: Disk) -> None:
    disk.capacity = 100_000
    journal = opened(disk)
    count = fill(journal)
    assert (len(journal), journal.last_number) == (count, count)
    journal.close()
    disk.capacity = 200_000
    again = opened(disk)
    assert numbers(again) == list(range(1, count + 1))
    assert again.next_sequence == count + 1


def test_journal_opens_on_a_full_disk_and_settles_what_it_owes(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    disk.capacity = 150_000
    journal = opened(disk)
    count = fill(journal)
    journal.close()
    disk.fill()
    with caplog.at_level(logging.WARNING):
        again = opened(disk)
    assert "is not written anew" in caplog.text
    assert numbers(again) == list(range(1, count + 1))
    settle(again, count)
    again.add(entry(again))
    again.close()
    assert numbers(opened(disk)) == [count + 1]


def test_new_journal_on_a_full_disk_waits_for_room(disk: Disk) -> None:
    disk.capacity = 0
    journal = opened(disk)
    with pytest.raises(OSError, match=r"could not be written|No space"):
        journal.add(entry(journal))
    disk.capacity = 100_000
    journal.add(entry(journal))
    writer = journal.writer
    journal.close()
    again = opened(disk)
    assert (numbers(again), again.writer) == ([1], writer)


def test_gateway_is_not_told_of_what_is_not_written(disk: Disk) -> None:
    journal = opened(disk)
    for _ in range(300):
        journal.add(entry(journal))
    settle(journal, 2)
    disk.fails = lambda _: True
    settle(journal, 3)
    assert (journal.heard, journal.noted) == (5, 2)
    disk.fails = lambda _: False
    settle(journal, 200)
    assert journal.noted == journal.heard == 205


class Script:
    """Runs a journal through generated calls on a disk that fails now and then, and kills it between any two."""

    def __init__(self, disk: Disk, seed: int) -> None:
        self._random = random.Random(seed)
        self._disk = disk
        self._failing = 0
        disk.fails = self._fails
        self.journal = opened(disk)
        # By number: what add has taken and settle has not given back. By sequence: what may have been on the wire.
        self.live: dict[int, Entry] = {}
        self.wire: dict[tuple[str, int], int] = {}

    def _fails(self, _: str) -> bool:
        if self._failing:
            self._failing -= 1
            return True
        if self._random.random() < 0.02:
            self._failing = self._random.choice([0, 0, 1, 5, 40])
            return True
        return False

    def step(self) -> None:
        random.Random.choice(self._random, [self.add, self.add, self.assign, self.assign, self.settle, self.end])()

    def add(self) -> None:
        one = entry(self.journal, self._random.choice(["tick_data", "trading_signal"]))
        try:
            self.journal.add(one)
        except OSError:
            return
        self.live[one.number] = one

    def assign(self) -> None:
        journal = self.journal
        lanes = [*self._random.choice([[*journal.ordered, *journal.ticks], [*journal.ticks], [*journal.ordered]])]
        batch = sorted(lanes, key=lambda one: one.number)[: self._random.randint(1, 4)]
        for place, one in enumerate(batch, start=journal.next_sequence):
            if one.sequence != place:
                one.frame, one.sequence = FORMS["protobuf"].reframed(one.frame, place), place
        try:
            journal.assign(batch)
        except OSError:
            return
        for one in batch:
            assert self.wire.setdefault((journal.writer, one.sequence), one.number) == one.number

    def settle(self) -> None:
        journal = self.journal
        answered = [*journal.owed][: self._random.randint(0, 5)]
        if answered:
            again = [one for one in answered if self._random.random() < 0.3]
            for one in journal.settle(answered[-1].sequence, again):
                del self.live[one.number]

    def end(self) -> None:
        """Killed, or the journal's end is lost and it begins anew; mostly neither."""
        if self._random.random() < 0.1:
            self.journal.begin_anew()
        if self._random.random() < 0.3:
            self.reopen()

    def reopen(self) -> None:
        before, disk = self.journal, self._disk
        disk.fails = lambda _: False
        before._lock.close()
        self.journal = after = opened(disk)
        disk.fails = self._fails
        assert self.live.keys() <= set(numbers(after)), "a message is lost"
        assert before.noted <= after.heard <= before.heard or before.writer != after.writer
        for one in after.owed:
            known = self.wire.setdefault((after.writer, one.sequence), one.number)
            assert known == one.number, "a sequence stands for two messages"
            assert envelope_pb2.MessageEnvelope.FromString(one.frame).sequence == one.sequence
        taken = [sequence for writer, sequence in self.wire if writer == after.writer]
        assert after.next_sequence > max(taken, default=0), "a sequence would be used again"
        # What was settled and could not be noted is owed once more.
        self.live = {one.number: one for one in (*after.owed, *after.ordered, *after.ticks)}


@pytest.mark.parametrize("seed", range(60))
def test_disk_that_fails_at_any_call_loses_nothing_and_doubles_no_sequence(
    disk: Disk, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    script = Script(disk, seed)
    for _ in range(120):
        script.step()
    script.reopen()
    assert {"open", "write", "truncate", "fsync", "replace"} <= set(disk.calls)
