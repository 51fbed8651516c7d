"""Messages from send until they are settled."""

import pytest

from trading_gateway_client.errors import JournalFull
from trading_gateway_client.journal import Entry, Journal


def entries(first: int, last: int, size: int = 10) -> list[Entry]:
    return [Entry(sequence, "tick_data", bytes([sequence % 256]) * size) for sequence in range(first, last + 1)]


def filled(count: int, on_way: int = 0) -> Journal:
    """A journal with ``count`` messages, the first ``on_way`` of them sent."""
    journal = Journal()
    for entry in entries(1, count):
        journal.add(entry)
    send(journal, on_way)
    return journal


def send(journal: Journal, count: int) -> None:
    for _ in range(count):
        journal.on_way.append(journal.unsent.popleft())


def sequences(found: object) -> list[int]:
    assert hasattr(found, "__iter__")
    return [entry.sequence for entry in found]


def test_new_journal_is_empty() -> None:
    journal = Journal()
    assert (len(journal), journal.size, journal.last_sequence, journal.is_full) == (0, 0, 0, False)


def test_journal_settles_everything_up_to_a_sequence() -> None:
    journal = filled(6, on_way=4)
    assert sequences(journal.settle(3)) == [1, 2, 3]
    assert (sequences(journal.on_way), sequences(journal.unsent), journal.size) == ([4], [5, 6], 30)


def test_journal_settles_what_was_not_sent_on_this_connection() -> None:
    journal = filled(6, on_way=2)
    assert sequences(journal.settle(4)) == [1, 2, 3, 4]
    assert (sequences(journal.on_way), sequences(journal.unsent)) == ([], [5, 6])


def test_journal_settles_nothing_twice() -> None:
    journal = filled(3, on_way=3)
    journal.settle(2)
    assert journal.settle(2) == journal.settle(1) == journal.settle(0) == []
    assert sequences(journal.settle(10**6)) == [3]
    assert (len(journal), journal.size) == (0, 0)


def test_journal_rewinds_to_the_oldest_unsettled_message() -> None:
    journal = filled(6, on_way=4)
    journal.settle(1)
    journal.rewind()
    assert (sequences(journal.on_way), sequences(journal.unsent)) == ([], [2, 3, 4, 5, 6])
    journal.rewind()
    assert sequences(journal.unsent) == [2, 3, 4, 5, 6]


def test_journal_finds_only_what_is_on_the_way() -> None:
    journal = filled(6, on_way=4)
    journal.settle(1)
    found = [journal.find_on_way(sequence) for sequence in range(8)]
    assert [entry.sequence if entry else 0 for entry in found] == [0, 0, 2, 3, 4, 0, 0, 0]
    journal.settle(4)
    assert journal.find_on_way(4) is None


def test_journal_full_of_messages_takes_no_more_until_some_are_settled() -> None:
    journal = Journal(count_limit=3)
    *fit, extra = entries(1, 4)
    for entry in fit:
        journal.add(entry)
    with pytest.raises(JournalFull) as raised:
        journal.add(extra)
    assert raised.value.retryable
    assert (len(journal), journal.size, journal.last_sequence) == (3, 30, 3)
    send(journal, 1)
    assert journal.is_full, "what is on the way counts as well"
    journal.settle(1)
    journal.add(extra)
    assert journal.last_sequence == 4


def test_journal_full_of_bytes_takes_no_more() -> None:
    journal = Journal(size_limit=25)
    *fit, extra = entries(1, 4)
    for entry in fit:
        journal.add(entry)
    assert journal.is_full
    with pytest.raises(JournalFull):
        journal.add(extra)


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
    journal.add(entries(1, 1)[0])
    with pytest.raises(ValueError, match="form json"):
        journal.open_stream("ea-1", "protobuf")
    journal.settle(1)
    journal.open_stream("ea-1", "protobuf")
    assert journal.form == "protobuf"
