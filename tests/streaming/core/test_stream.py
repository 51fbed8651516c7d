"""The rules of sequences, on their own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.core.codes import ACTIONS, NackCode
from streaming.core.refused import REFUSED_LIMIT, Refusal
from streaming.core.stream import SEQUENCE_LIMIT, Arrival, StreamPosition, is_stream_id, is_writer

MALFORMED = Refusal(NackCode.MALFORMED, ACTIONS[NackCode.MALFORMED], kept=True)


def arrive(position: StreamPosition, sequence: int, *, first: bool = False, unread: int = 0) -> Arrival:
    """As a session does: moves on for every message that is to be looked at."""
    arrival = position.arrive(sequence, first=first, unread=unread)
    if arrival is Arrival.EXPLAINED:
        position.pass_over(sequence)
    elif arrival is Arrival.JUMP:
        position.jump(sequence)
    return arrival


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
    assert position.arrive(4, unread=1) is Arrival.GAP
    assert position.arrive(4, unread=2) is Arrival.EXPLAINED
    assert position.pass_over(4) == [2, 3]
    position.settle(1)
    position.settle(4)
    # They are received, and nothing passes over them before they are settled.
    assert (position.acknowledged, position.unsettled()) == (1, [2, 3])
    position.settle(3)
    position.refuse(2, MALFORMED)
    assert position.acknowledged == 4


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
    position.catch_up(StreamPosition(3))
    assert (position.acknowledged, position.expected) == (5, 7)
    position.catch_up(StreamPosition(9))
    assert (position.acknowledged, position.expected) == (9, 10)


def test_first_sequence_above_what_is_in_flight_never_skips_it() -> None:
    position = StreamPosition()
    for sequence in range(1, 6):
        arrive(position, sequence)
    assert arrive(position, 9, first=True) is Arrival.JUMP
    position.settle(9)
    assert (position.acknowledged, position.unsettled()) == (0, [1, 2, 3, 4, 5])
    for sequence in range(1, 5):
        position.settle(sequence)
    assert position.acknowledged == 4
    position.settle(5)
    assert (position.acknowledged, position.expected) == (9, 10)


def test_what_was_in_flight_before_a_jump_is_owed_again_when_it_fails() -> None:
    position = StreamPosition()
    for sequence in (1, 2):
        arrive(position, sequence)
    arrive(position, 2**50, first=True)
    assert position.unsettled() == [1, 2, 2**50]
    position.rewind()
    assert [arrive(position, sequence) for sequence in (1, 2, 2**50)] == [Arrival.NEXT] * 3


@pytest.mark.parametrize("sequence", [2, 3, 4])
def test_what_was_jumped_over_and_comes_after_all_is_waited_for(sequence: int) -> None:
    """1 was in flight when 5 came first, then both failed; another program of the same name goes on lower down."""
    position = StreamPosition()
    position.arrive(1)
    assert arrive(position, 5, first=True) is Arrival.JUMP
    position.rewind()
    assert position.arrive(sequence, unread=1) is Arrival.EXPLAINED
    assert position.pass_over(sequence) == [1]
    position.settle(1)
    assert position.acknowledged == sequence - 1, "it is nowhere"
    assert position.unsettled() == [sequence]
    position.settle(sequence)
    assert (position.acknowledged, position.expected) == (4, 5)


def test_late_report_from_before_a_jump_does_not_disturb() -> None:
    position = StreamPosition()
    arrive(position, 1)
    arrive(position, 100, first=True)
    position.settle(100)
    position.settle(1)
    assert position.acknowledged == 100
    position.settle(1)
    assert (position.acknowledged, position.expected) == (100, 101)


@pytest.mark.parametrize(("sequence", "unread"), [(1, 0), (1, 3), (2, 1), (4, 3)])
def test_client_that_counts_from_one_again_is_told_from_one_that_repeats(sequence: int, unread: int) -> None:
    position = StreamPosition(40)
    assert arrive(position, sequence, first=True, unread=unread) is Arrival.RESTART
    assert arrive(position, sequence, unread=unread) is Arrival.DUPLICATE
    assert arrive(position, 5, first=True, unread=3) is Arrival.DUPLICATE
    assert (position.acknowledged, position.expected) == (40, 41)


def test_refused_sequence_that_comes_again_is_known_as_refused_until_the_client_has_heard() -> None:
    position = StreamPosition()
    for sequence in (1, 2, 3):
        arrive(position, sequence)
    position.settle(1)
    position.refuse(2, MALFORMED)
    assert [arrive(position, sequence) for sequence in (1, 2, 3)] == [
        Arrival.DUPLICATE, Arrival.REFUSED, Arrival.PENDING,
    ]  # fmt: skip
    position.forget(3)
    assert arrive(position, 2) is Arrival.DUPLICATE
    assert position.refused.complete_from == 3, "3 is not settled: nobody can have heard of it"


def test_refused_sequences_behind_one_that_failed_are_passed_over() -> None:
    position = StreamPosition()
    for sequence in (1, 2, 3, 4):
        arrive(position, sequence)
    position.refuse(2, MALFORMED)
    position.refuse(3, MALFORMED)
    position.rewind()
    # A client that has heard of both sends neither again.
    assert [arrive(position, sequence) for sequence in (1, 4)] == [Arrival.NEXT, Arrival.NEXT]
    position.settle(1)
    assert position.acknowledged == 3


def test_newest_refused_sequences_are_kept_and_it_is_said_from_where_on() -> None:
    position = StreamPosition()
    for sequence in range(1, REFUSED_LIMIT + 3):
        arrive(position, sequence)
        position.refuse(sequence, MALFORMED)
    assert len(position.refused) == REFUSED_LIMIT
    assert (position.refused.complete_from, position.refused.runs()[0].first) == (3, 3)
    assert arrive(position, 2) is Arrival.DUPLICATE


def test_stream_ids_at_the_limit_and_above() -> None:
    assert is_stream_id("a" * 64)
    assert is_stream_id("EA-1.demo:42_x")
    for wrong in ("", "a" * 65, "a b", "a/b", "é"):
        assert not is_stream_id(wrong)


def test_writers_at_the_limit_and_above() -> None:
    assert is_writer("w" * 32)
    for wrong in ("", "w" * 33, "~c0ffee", "a/b", "a b"):
        assert not is_writer(wrong)


def test_stream_that_comes_back_goes_on_over_what_was_settled_out_of_order() -> None:
    position = StreamPosition(3)
    for sequence in (4, 5, 6):
        position.arrive(sequence, first=False, unread=0)
    position.settle(5)
    position.catch_up(StreamPosition(4))
    assert (position.acknowledged, position.unsettled()) == (5, [6])
    position.settle(4)
    position.settle(6)
    assert (position.acknowledged, position.expected) == (6, 7)


# --- As it is written down --------------------------------------------------------------------------------------------

REFUSALS = st.sampled_from(
    [Refusal(code, ACTIONS[code], kept) for code in NackCode for kept in (False, True)],
)


@given(
    acknowledged=st.integers(0, SEQUENCE_LIMIT - 100),
    writer=st.sampled_from(["", "w-1", "~c0ffee"]),
    refusals=st.dictionaries(st.integers(1, 60), REFUSALS, max_size=40),
)
def test_what_is_written_is_read_as_it_was(acknowledged: int, writer: str, refusals: dict[int, Refusal]) -> None:
    position = StreamPosition(acknowledged, writer=writer)
    for offset in range(1, 61):
        arrive(position, acknowledged + offset)
        if offset in refusals:
            position.refuse(acknowledged + offset, refusals[offset])
        elif offset <= 10:
            position.settle(acknowledged + offset)
    again = StreamPosition.from_text(position.to_text())
    assert (again.acknowledged, again.writer) == (position.acknowledged, writer)
    assert {s: again.refused.get(s) for s in again.refused} == {s: position.refused.get(s) for s in position.refused}
    assert again.refused.complete_from == position.refused.complete_from
    assert again.to_text() == position.to_text()


def test_position_of_an_earlier_version_says_nothing_of_refusals() -> None:
    position = StreamPosition.from_text("41")
    assert (position.acknowledged, position.writer, position.refused.complete_from) == (41, "", 42)


@pytest.mark.parametrize(
    "text",
    ["", "x", "-1", "1 w", "1 w 1", "1  1 malformed", "1  1 malformed/3:", "1  1 nonsense/3:1", "1  1 malformed/9:1",
     "9007199254740992  1 ", "1  1 malformed/3:1-9007199254740991", "1  x ", "\u0661  1 "],
)  # fmt: skip
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        StreamPosition.from_text(text)
