"""What was given to librdkafka, and which of it has been told: each receipt once. Room: streaming.sinks."""

from streaming.core.ports import Headers, Receipt
from streaming.sinks.health import IllPartition

# Topic, key, value, receipt, headers.
Entry = tuple[str, bytes, bytes, Receipt, Headers | None]

# What most hand-overs have, made once.
_NO_ENTRIES: list[Entry] = []
_NO_RECEIPTS: list[Receipt] = []
_NONE_GIVEN_UP: dict[int, IllPartition] = {}


class Handover:
    """The messages that were given to librdkafka together, and what has become of them.

    For each message the hot path only adds its receipt to ``fresh``; everything else is worked out from that, most of
    it only when something fails.
    """

    __slots__ = ("_indexes", "at", "closed", "entries", "fresh", "given_up", "left", "number")

    def __init__(self, number: int, at: float, entries: list[Entry]) -> None:
        self.number = number
        self.at = at
        self.entries = entries
        # Messages that have no report and were not given up.
        self.left = len(entries)
        # Receipts that were delivered in this turn, and those of which everything was told before.
        self.fresh: list[Receipt] = []
        self.closed: list[Receipt] = _NO_RECEIPTS
        # Indexes of entries that were given up before their report came.
        self.given_up: dict[int, IllPartition] = _NONE_GIVEN_UP
        self._indexes: dict[int, int] | None = None

    def index_of(self, receipt: Receipt) -> int:
        """Where its message is; a receipt is one object for one message."""
        if self._indexes is None:
            self._indexes = {id(entry[3]): index for index, entry in enumerate(self.entries)}
        return self._indexes[id(receipt)]

    def collect(self) -> list[Receipt]:
        """Those of ``fresh`` that are to be told."""
        fresh = self.fresh
        if len(fresh) == self.left and not self.given_up:
            # All the rest of it at once, as nearly always.
            self.forget()
            return fresh
        self.fresh = []
        if self.given_up:
            fresh = [receipt for receipt in fresh if not self.was_given_up(receipt)]
        elif not self.left:
            return []
        self.left -= len(fresh)
        self._own_closed().extend(fresh)
        return fresh

    def forget(self) -> None:
        """Nothing of it is to be told any more; a hand-over that still waits behind others holds no messages."""
        self.left = 0
        self.entries = _NO_ENTRIES
        self.fresh = []
        self.given_up = _NONE_GIVEN_UP

    def give_up(self, index: int, illness: IllPartition) -> None:
        if not self.given_up:
            self.given_up = {}
        self.given_up[index] = illness
        self.left -= 1
        illness.held += 1

    def was_given_up(self, receipt: Receipt) -> bool:
        """Notes its late report then."""
        illness = self.given_up.pop(self.index_of(receipt), None) if self.given_up else None
        if illness is None:
            return False
        illness.held -= 1
        self._own_closed().append(receipt)
        return True

    def close(self, receipt: Receipt) -> None:
        """It came back without being delivered."""
        self.left -= 1
        self._own_closed().append(receipt)

    def _own_closed(self) -> list[Receipt]:
        if self.closed is _NO_RECEIPTS:
            self.closed = []
        return self.closed

    def open_entries(self) -> list[tuple[int, Entry]]:
        """Those without a report that were not given up, each with its index."""
        if not self.left:
            return []
        closed = {id(receipt) for receipt in self.closed}
        return [
            (index, entry)
            for index, entry in enumerate(self.entries)
            if id(entry[3]) not in closed and index not in self.given_up
        ]


class Failure:
    """One entry that came back: ``is_unknown`` when it may have been recorded all the same."""

    __slots__ = ("code", "entry", "is_unknown", "order")

    def __init__(self, order: tuple[int, int], entry: Entry, code: int, *, is_unknown: bool) -> None:
        self.order = order
        self.entry = entry
        self.code = code
        self.is_unknown = is_unknown
