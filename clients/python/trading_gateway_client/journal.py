"""Messages from ``send`` until the gateway has settled them. Pure.

A message has a *number* from ``send`` on, which never changes, and a *sequence* each time it is offered to the gateway.
Sequences that may have been on the wire are never given to another message: ``owed`` holds those messages, without a
hole. The rest waits in two lanes, one for messages whose order counts and one for ticks.
"""

import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from trading_gateway_client.errors import JournalFull

COUNT_LIMIT = 10_000
SIZE_LIMIT = 16 * 1024 * 1024
TICKS = "tick_data"


@dataclass(slots=True)
class Entry:
    """One message; ``frame`` is what goes over the wire under ``sequence``."""

    sequence: int
    message_type: str
    frame: bytes
    # Seconds of the event loop's clock when it was given to this client; 0.0: by an earlier run of the program.
    offered_at: float = 0.0
    # How often it went over the wire.
    attempts: int = 0
    # The code of the last nack for the present sequence, "" while there is none.
    refusal: str = ""
    # What ``send`` has returned for it; 0: the same as its first sequence.
    number: int = 0
    # How often it was offered anew under another sequence.
    reoffers: int = 0
    # What its answer says: acknowledged, refused, again (not final: to be offered anew), dropped (let go in favour of
    # newer ticks), unknown; "" while only a cumulative acknowledgement can settle it.
    outcome: str = ""
    # An earlier sending stayed without an answer before a later one was refused: Kafka may have it twice if it is
    # offered anew.
    is_doubtful: bool = False
    # Outcome and code of a refusal of the same sequence that was heard on an earlier connection.
    earlier: tuple[str, str] | None = None
    # Its frame stands for a message that the gateway cannot take: only to use up the sequence.
    is_void: bool = False

    @property
    def is_ordered(self) -> bool:
        """Whether its place among the other messages counts."""
        return self.message_type != TICKS


class Journal:
    """Keeps the messages of one stream; sequences are given to them by ``assign`` alone."""

    def __init__(self, *, count_limit: int = COUNT_LIMIT, size_limit: int = SIZE_LIMIT) -> None:
        """Limits in messages and in bytes."""
        self._count_limit = count_limit
        self._size_limit = size_limit
        # Sequences heard + 1 to next_sequence - 1, each of which may have been on the wire.
        self.owed: deque[Entry] = deque()
        # Not on the wire under their present sequence, in order of their numbers.
        self.ordered: deque[Entry] = deque()
        self.ticks: deque[Entry] = deque()
        # The answers to all sequences up to this one have been heard.
        self.heard = 0
        self.next_sequence = 1
        self.last_number = 0
        self.size = 0
        self.stream_id = ""
        self.form = ""
        # Which incarnation of the stream this journal writes.
        self.writer = new_writer()

    def __len__(self) -> int:
        return len(self.owed) + len(self.ordered) + len(self.ticks)

    @property
    def is_full(self) -> bool:
        return len(self) >= self._count_limit or self.size >= self._size_limit

    @property
    def noted(self) -> int:
        """Like ``heard``, as far as a restart of the program would know it."""
        return self.heard

    @property
    def expected_sequence(self) -> int:
        """The sequence of the next message that is added, if nothing is offered anew before its turn."""
        return self.next_sequence + len(self.ordered) + len(self.ticks)

    def open_stream(self, stream_id: str, form: str) -> None:
        """Notes whose messages these are. Raises ValueError when it holds another stream, or frames of another form."""
        if self.stream_id and self.stream_id != stream_id:
            raise ValueError(f"this journal belongs to the stream {self.stream_id}, not to {stream_id}")
        if self.form and self.form != form and len(self):
            raise ValueError(f"this journal holds messages in the form {self.form}: settle them before {form} is used")
        self.stream_id, self.form = stream_id, form

    def add(self, entry: Entry) -> None:
        """Takes a message that is framed under ``expected_sequence``. Raises JournalFull and keeps nothing then."""
        self.check_room()
        self.last_number += 1
        entry.number = self.last_number
        self.lane_of(entry).append(entry)
        self.size += len(entry.frame)

    def check_room(self) -> None:
        """Raises JournalFull."""
        if self.is_full:
            raise JournalFull("too many messages wait for their acknowledgement")

    def lane_of(self, entry: Entry) -> deque[Entry]:
        return self.ordered if entry.is_ordered else self.ticks

    def assign(self, batch: Sequence[Entry]) -> None:
        """Moves the first ones of the lanes to ``owed``; each is framed under ``next_sequence`` and its successors.

        Raises OSError, and moves nothing then.
        """
        for entry in batch:
            (self.ticks if entry.message_type == TICKS else self.ordered).popleft()
        self.owed.extend(batch)
        self.next_sequence += len(batch)

    def settle(self, heard: int, again: Sequence[Entry] = ()) -> list[Entry]:
        """Takes everything up to and including ``heard`` out of ``owed``; those of ``again`` wait for a new sequence.

        The entries that are done with, in order.
        """
        settled: list[Entry] = []
        kept = {entry.number for entry in again}
        owed = self.owed
        while owed and owed[0].sequence <= heard:
            entry = owed.popleft()
            if entry.number not in kept:
                self.size -= len(entry.frame)
                settled.append(entry)
        for entry in reversed(again):
            _put_back(self.lane_of(entry), entry)
        self.heard = max(self.heard, heard)
        return settled

    def replace(self, entry: Entry, frame: bytes) -> None:
        """Gives an entry another frame."""
        self.size += len(frame) - len(entry.frame)
        entry.frame = frame

    def begin_anew(self) -> None:
        """Another incarnation of the stream, from sequence 1 on, for everything that is not settled."""
        for entry in reversed(self.owed):
            _put_back(self.lane_of(entry), entry)
        self.owed.clear()
        self.writer, self.heard, self.next_sequence = new_writer(), 0, 1

    def close(self) -> None:
        """Ends the use of whatever holds the entries."""


def new_writer() -> str:
    return secrets.token_hex(8)


def _put_back(lane: deque[Entry], entry: Entry) -> None:
    """To its place by number: what comes back is older than most that waits."""
    older: list[Entry] = []
    while lane and lane[0].number < entry.number:
        older.append(lane.popleft())
    lane.appendleft(entry)
    lane.extendleft(reversed(older))
