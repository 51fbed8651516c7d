"""Where one stream of messages stands: what was received, what is settled. Room: streaming.core (pure)."""

from enum import Enum

# JSON clients and Redis' Lua count in doubles: above this, integers are no longer exact (IEEE 754).
SEQUENCE_LIMIT = 2**53 - 1
STREAM_ID_LIMIT = 64
_STREAM_ID_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-")


def is_stream_id(text: str) -> bool:
    """1 to 64 of ``A-Z a-z 0-9 . _ : -``."""
    return 0 < len(text) <= STREAM_ID_LIMIT and _STREAM_ID_ALPHABET.issuperset(text)


class Arrival(Enum):
    """What a sequence number says about the message that carries it."""

    NEXT = "next"
    # Received before and not settled yet: its acknowledgement is on the way.
    PENDING = "pending"
    # Settled before.
    DUPLICATE = "duplicate"
    GAP = "gap"


class StreamPosition:
    """Follows one stream over its connections.

    A sequence is *settled* when Kafka has the message, or when it was refused and the refusal needs no more work.
    ``acknowledged`` is the largest sequence up to which all are settled; it never falls.
    """

    __slots__ = ("_settled_ahead", "acknowledged", "expected")

    def __init__(self, acknowledged: int = 0) -> None:
        self.acknowledged = acknowledged
        self.expected = acknowledged + 1
        self._settled_ahead: set[int] = set()

    def arrive(self, sequence: int, *, first: bool, unread: int) -> Arrival:
        """Classifies a sequence and moves on when it is the next one.

        ``first``: the connection has sent no sequence yet, so its client decides where the stream goes on: it knows of
        acknowledgements that this process may not know of. ``unread``: frames of this connection that could not be
        parsed and may have used up the sequences that seem to be missing.
        """
        expected = self.expected
        if sequence == expected:
            self.expected = expected + 1
            return Arrival.NEXT
        if sequence < expected:
            if sequence <= self.acknowledged or sequence in self._settled_ahead:
                return Arrival.DUPLICATE
            return Arrival.PENDING
        if first:
            self.acknowledged = sequence - 1
            self._settled_ahead.clear()
        elif sequence - expected <= unread:
            for missing in range(expected, sequence):
                self.settle(missing)
        else:
            return Arrival.GAP
        self.expected = sequence + 1
        return Arrival.NEXT

    def settle(self, sequence: int) -> None:
        """Notes that a received sequence is done; the order of calls does not matter."""
        acknowledged = self.acknowledged
        if sequence == acknowledged + 1:
            ahead = self._settled_ahead
            while ahead and sequence + 1 in ahead:
                sequence += 1
                ahead.remove(sequence)
            self.acknowledged = sequence
        elif sequence > acknowledged:
            self._settled_ahead.add(sequence)

    def catch_up(self, acknowledged: int) -> None:
        """Takes over what another process has seen settled."""
        if acknowledged > self.acknowledged:
            self.acknowledged = acknowledged
            self._settled_ahead = {sequence for sequence in self._settled_ahead if sequence > acknowledged}
            # What was settled here right behind it counts too: nobody will settle it again.
            while self.acknowledged + 1 in self._settled_ahead:
                self.acknowledged += 1
                self._settled_ahead.remove(self.acknowledged)
            self.expected = max(self.expected, self.acknowledged + 1)

    def unsettled(self) -> list[int]:
        """Sequences received and not settled, ascending."""
        return [s for s in range(self.acknowledged + 1, self.expected) if s not in self._settled_ahead]

    def rewind(self) -> None:
        """Forgets what was received and not settled: the client sends it again."""
        self.expected = self.acknowledged + 1
        self._settled_ahead.clear()
