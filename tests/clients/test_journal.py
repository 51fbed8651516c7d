"""Messages from send until they are settled."""

from collections.abc import Iterable

import pytest

from trading_gateway_client.errors import JournalFull
from trading_gateway_client.journal import Entry, Journal


def add(journal: Journal, kinds: str, size: int = 10) -> None:
    """One message for each letter: t for ticks, s for a signal."""
    for kind in kinds:
        name = "tick_data" if kind == "t" else "trading_signal"
        journal.add(Entry(journal.expected_sequence, name, bytes(size)))


def send(journal: Journal, count: int) -> None:
    """The oldest messages that wait go out."""
    for _ in range(count):
        entry = min((*list(journal.ordered)[:1], *list(journal.ticks)[:1]), key=lambda entry: entry.number)
        entry.sequence = journal.next_sequence
        journal.assign([entry])


def filled(count: int, on_way: int = 0) -> Journal:
    journal = Journal()
    add(journal, "t" * count)
    send(journal, on_way)
    return journal


def sequences(found: Iterable[Entry]) -> list[int]:
    return [entry.sequence for entry in found]


def numbers(found: Iterable[Entry]) -> list[int]:
    return [entry.number for entry in found]


def test_new_journal_is_empty() -> None:
    journal = Journal()
    assert (len(journal), journal.size, journal.last_number, journal.expected_sequence) == (0, 0, 0, 1)
    assert not journal.is_full


def test_journal_settles_everything_up_to_a_sequence() -> None:
    journal = filled(6, on_way=4)
    assert sequences(journal.settle(3)) == [1, 2, 3]
    assert (sequences(journal.owed), numbers(journal.ticks), journal.size, journal.heard) == ([4], [5, 6], 30, 3)


def test_journal_settles_nothing_twice() -> None:
    journal = filled(3, on_way=3)
    journal.settle(2)
    assert journal.settle(2) == journal.settle(1) == journal.settle(0) == []
    assert sequences(journal.settle(3)) == [3]
    assert (len(journal), journal.size) == (0, 0)


def test_refused_message_waits_before_what_was_offered_later() -> None:
    journal = Journal()
    add(journal, "sstssts")
    send(journal, 5)
    first, third, fourth = journal.owed[0], journal.owed[2], journal.owed[3]
    assert numbers(journal.settle(4, [third, first, fourth])) == [2]
    assert (numbers(journal.owed), numbers(journal.ordered), numbers(journal.ticks)) == ([5], [1, 4, 7], [3, 6])
    assert (len(journal), journal.size, journal.expected_sequence) == (6, 60, 11)


def test_other_incarnation_owes_the_same_messages_from_sequence_one() -> None:
    journal = filled(5, on_way=3)
    writer = journal.writer
    journal.settle(1)
    journal.begin_anew()
    assert (numbers(journal.ticks), list(journal.owed)) == ([2, 3, 4, 5], [])
    assert (journal.next_sequence, journal.heard, journal.last_number) == (1, 0, 5)
    assert journal.writer != writer


def test_writer_is_of_the_characters_that_the_protocol_takes() -> None:
    writers = {Journal().writer for _ in range(100)}
    assert len(writers) == 100
    assert all(0 < len(writer) <= 32 and writer.isascii() and writer.isalnum() for writer in writers)


def test_journal_full_of_messages_takes_no_more_until_some_are_settled() -> None:
    journal = Journal(count_limit=3)
    add(journal, "tts")
    with pytest.raises(JournalFull) as raised:
        add(journal, "t")
    assert raised.value.retryable
    assert (len(journal), journal.size, journal.last_number) == (3, 30, 3)
    send(journal, 1)
    assert journal.is_full, "what is on the way counts as well"
    journal.settle(1)
    add(journal, "t")
    assert journal.last_number == 4


def test_journal_full_of_bytes_takes_no_more() -> None:
    journal = Journal(size_limit=25)
    add(journal, "ttt")
    assert journal.is_full
    with pytest.raises(JournalFull):
        add(journal, "t")


def test_journal_keeps_to_its_stream() -> None:
    journal = Journal()
    journal.open_stream("ea-1", "protobuf")
    journal.open_stream("ea-1", "protobuf")
    with pytest.raises(ValueError, match="ea-1, not to ea-2"):
        journal.open_stream("ea-2", "protobuf")
    assert journal.stream_id == "ea-1"


def test_journal_changes_its_form_only_while_it_is_empty() -> None:
    journal = Journal()
    journal.open_stream("ea-1", "protobuf")
    journal.open_stream("ea-1", "json")
    add(journal, "t")
    with pytest.raises(ValueError, match="form json"):
        journal.open_stream("ea-1", "protobuf")
    send(journal, 1)
    journal.settle(1)
    journal.open_stream("ea-1", "protobuf")
    assert journal.form == "protobuf"
