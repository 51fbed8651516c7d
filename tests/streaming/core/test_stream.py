"""The rules of sequences, on their own."""

from hypothesis import given
from hypothesis import strategies as st

from streaming.core.stream import Arrival, StreamPosition, is_stream_id


def arrive(position: StreamPosition, sequence: int, *, first: bool = False, unread: int = 0) -> Arrival:
    return position.arrive(sequence, first=first, unread=unread)


def test_new_stream_begins_at_one() -> None:
    position = StreamPosition()
    assert arrive(position, 1, first=True) is Arrival.NEXT
    assert (position.acknowledged, position.expected) == (0, 2)


@given(st.permutations(range(1, 9)))
def test_settling_in_any_order_acknowledges_all(order: list[int]) -> None:
    position = StreamPosition()
    for sequence in range(1, 9):
        arrive(position, sequence)
    seen = [0]
    for settled, sequence in enumerate(order, start=1):
        position.settle(sequence)
        expected = next(s for s in range(9) if s + 1 not in order[:settled])
        assert position.acknowledged == expected
        seen.append(position.acknowledged)
    assert seen == sorted(seen)
    assert position.acknowledged == 8


def test_settling_twice_changes_nothing() -> None:
    position = StreamPosition()
    arrive(position, 1)
    position.settle(1)
    position.settle(1)
    assert position.acknowledged == 1


def test_settled_ahead_of_a_hole_counts_as_duplicate_when_it_comes_again() -> None:
    position = StreamPosition()
    arrive(position, 1)
    arrive(position, 2)
    position.settle(2)
    assert arrive(position, 2) is Arrival.DUPLICATE
    assert arrive(position, 1) is Arrival.PENDING


def test_jump_after_the_first_is_a_gap_and_moves_nothing() -> None:
    position = StreamPosition()
    arrive(position, 1)
    assert arrive(position, 3) is Arrival.GAP
    assert position.expected == 2


def test_jump_is_explained_by_as_many_unread_frames_and_no_more() -> None:
    position = StreamPosition()
    arrive(position, 1)
    assert arrive(position, 4, unread=1) is Arrival.GAP
    assert arrive(position, 4, unread=2) is Arrival.NEXT
    position.settle(1)
    assert position.acknowledged == 3


def test_rewound_stream_expects_what_is_not_acknowledged() -> None:
    position = StreamPosition(5)
    for sequence in (6, 7, 8):
        arrive(position, sequence)
    position.settle(6)
    position.settle(8)
    assert position.unsettled() == [7]
    position.rewind()
    assert (position.acknowledged, position.expected) == (6, 7)
    assert arrive(position, 7) is Arrival.NEXT


def test_position_of_another_process_only_raises() -> None:
    position = StreamPosition(5)
    arrive(position, 6)
    position.catch_up(3)
    assert (position.acknowledged, position.expected) == (5, 7)
    position.catch_up(9)
    assert (position.acknowledged, position.expected) == (9, 10)


def test_late_report_from_before_a_jump_does_not_disturb() -> None:
    position = StreamPosition()
    arrive(position, 1)
    assert arrive(position, 100, first=True) is Arrival.NEXT
    position.settle(1)
    assert position.acknowledged == 99
    position.settle(100)
    assert position.acknowledged == 100


def test_stream_ids_at_the_limit_and_above() -> None:
    assert is_stream_id("a" * 64)
    assert is_stream_id("EA-1.demo:42_x")
    for wrong in ("", "a" * 65, "a b", "a/b", "é"):
        assert not is_stream_id(wrong)


def test_stream_that_comes_back_goes_on_over_what_was_settled_out_of_order() -> None:
    position = StreamPosition(3)
    for sequence in (4, 5, 6):
        position.arrive(sequence, first=False, unread=0)
    position.settle(5)
    position.catch_up(4)
    assert (position.acknowledged, position.unsettled()) == (5, [6])
    position.settle(4)
    position.settle(6)
    assert (position.acknowledged, position.expected) == (6, 7)
