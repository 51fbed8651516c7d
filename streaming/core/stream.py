"""Where one stream of messages stands: what was received, settled and refused. Room: streaming.core (pure)."""

from enum import Enum

from streaming.core.refused import Refusal, Refused

# JSON clients and Redis' Lua count in doubles: above this, integers are no longer exact (IEEE 754).
SEQUENCE_LIMIT = 2**53 - 1
STREAM_ID_LIMIT = 64
WRITER_LIMIT = 32
_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-")


def is_stream_id(text: str) -> bool:
    """1 to 64 of ``A-Z a-z 0-9 . _ : -``."""
    return 0 < len(text) <= STREAM_ID_LIMIT and _ALPHABET.issuperset(text)


def is_writer(text: str) -> bool:
    """1 to 32 of the same characters; the names that the gateway gives begin with ``~``, which is none of them."""
    return 0 < len(text) <= WRITER_LIMIT and _ALPHABET.issuperset(text)


class Arrival(Enum):
    """What a sequence number says about the message that carries it."""

    NEXT = "next"
    # To be looked at, since all that is missing before it came in frames that could not be read.
    EXPLAINED = "explained"
    # The first one of a connection, above what was expected: its client goes on from here.
    JUMP = "jump"
    # The first one of a connection that counts from 1 again on a stream that is further: nothing has moved.
    RESTART = "restart"
    # Received before and not settled yet: its answer is on the way.
    PENDING = "pending"
    # Settled before.
    DUPLICATE = "duplicate"
    # Settled before by a refusal that is remembered.
    REFUSED = "refused"
    GAP = "gap"

    @property
    def is_new(self) -> bool:
        """Whether the message is to be looked at."""
        return self in (Arrival.NEXT, Arrival.EXPLAINED, Arrival.JUMP)


class StreamPosition:
    """Follows one incarnation of a stream over its connections.

    A sequence is *settled* when Kafka has the message, or when it was refused and the refusal needs no more work.
    ``acknowledged`` is the largest sequence up to which all are settled; it never falls. ``expected`` is never settled.
    ``writer`` names the incarnation in the records.
    """

    __slots__ = ("_ahead", "_has_islands", "_jumps", "acknowledged", "expected", "refused", "writer")

    def __init__(self, acknowledged: int = 0, *, writer: str = "", refused: Refused | None = None) -> None:
        """``refused`` (default: nothing is known of what was refused so far) becomes this position's own."""
        self.writer = writer
        self.acknowledged = acknowledged
        self.expected = acknowledged + 1
        self.refused = Refused(acknowledged + 1) if refused is None else refused
        # Settled behind one that is not.
        self._ahead: set[int] = set()
        # First to last of the sequences that a client has jumped over while earlier ones were in flight.
        self._jumps: dict[int, int] = {}
        # Whether anything at or above ``expected`` is settled.
        self._has_islands = False
        self._settle_refused()

    # --- What comes in -----------------------------------------------------------------------------------------------

    def arrive(self, sequence: int, *, first: bool = False, told: int = SEQUENCE_LIMIT, unread: int = 0) -> Arrival:
        """Classifies a sequence, and moves on when it is the next one; ``pass_over`` and ``jump`` do so for others.

        ``first``: the connection has sent no sequence yet and has not said how far it has heard, so its client decides
        where the stream goes on. ``told``: up to where it was told at connect that all is settled; what was settled
        since then may be sent again by a client that goes on. ``unread``: frames of this connection that could not be
        read and may have used up the sequences that seem to be missing.
        """
        expected = self.expected
        if sequence == expected:
            self.expected = expected + 1
            if self._has_islands:
                self._cross()
            return Arrival.NEXT
        if sequence < expected:
            if first and sequence <= min(self.acknowledged, told) and sequence <= 1 + unread:
                return Arrival.RESTART
            if sequence in self.refused:
                return Arrival.REFUSED
            if sequence <= self.acknowledged or self._is_settled(sequence):
                return Arrival.DUPLICATE
            return Arrival.PENDING
        if sequence in self._ahead:
            return Arrival.REFUSED if sequence in self.refused else Arrival.DUPLICATE
        if unread:
            jumped = sum(min(last, sequence - 1) - first + 1 for first, last in self._jumps.items() if first < sequence)
            is_near = sequence - expected <= unread + len(self._ahead) + jumped
            if is_near and len(self.unsettled(expected, sequence)) <= unread:
                return Arrival.EXPLAINED
        return Arrival.JUMP if first else Arrival.GAP

    def pass_over(self, sequence: int) -> list[int]:
        """Moves on behind an EXPLAINED sequence; the missing ones, which are received now and not settled."""
        missing = self.unsettled(self.expected, sequence)
        self._unskip(sequence)
        self.expected = sequence + 1
        if self._has_islands or self._jumps:
            self._cross()
        return missing

    def _unskip(self, sequence: int) -> None:
        """One that was jumped over before and comes now is new, and nothing passes over it any more."""
        for first, last in list(self._jumps.items()):
            if first <= sequence <= last:
                del self._jumps[first]
                if first < sequence:
                    self._jumps[first] = sequence - 1
                if sequence < last:
                    self._jumps[sequence + 1] = last

    def jump(self, sequence: int, *, unread: int = 0) -> list[int]:
        """Moves on behind a JUMP; what is in flight before it is waited for all the same.

        The sequences right before it that came in ``unread`` frames, which are received now and not settled.
        """
        if unread:
            # Not explained by them, so there are more of them than that.
            missing = self._unsettled_before(sequence, unread)
            self.jump(missing[0])
            self.pass_over(sequence)
            return missing
        self._unskip(sequence)
        if self.acknowledged + 1 == self.expected:
            self.acknowledged = sequence - 1
            self._prune()
        else:
            expected = self.expected
            self._jumps = {f: last for f, last in self._jumps.items() if not expected <= f < sequence}
            self._jumps[expected] = sequence - 1
        # Of what was never sent nobody can say that it is recorded.
        self.refused.complete_from = max(self.refused.complete_from, sequence)
        self.expected = sequence + 1
        self._cross()
        return []

    def _cross(self) -> None:
        """Moves ``expected`` over what is settled already."""
        while True:
            if self.expected in self._ahead:
                self.expected += 1
            elif self.expected in self._jumps:
                self.expected = self._jumps[self.expected] + 1
            else:
                break
        above = max(self._ahead, default=0), max(self._jumps, default=0)
        self._has_islands = max(above) > self.expected

    # --- What is settled ---------------------------------------------------------------------------------------------

    def settle(self, sequence: int) -> None:
        """Notes that a received sequence is done; the order of calls does not matter."""
        acknowledged = self.acknowledged
        if sequence == acknowledged + 1:
            ahead = self._ahead
            while ahead and sequence + 1 in ahead:
                sequence += 1
                ahead.remove(sequence)
            self.acknowledged = sequence
            if self._jumps:
                self._advance()
            if sequence >= self.expected:
                # A report of what was given up already.
                self.expected = self.acknowledged + 1
                self._cross()
        elif sequence > acknowledged:
            self._ahead.add(sequence)
            if sequence >= self.expected:
                self._has_islands = True
                self._cross()

    def refuse(self, sequence: int, refusal: Refusal) -> None:
        """Settles a received sequence that is not recorded."""
        if sequence > self.acknowledged and sequence not in self._ahead:
            self.refused.add(sequence, refusal)
            self.settle(sequence)

    def _advance(self) -> None:
        """Takes what is settled right behind ``acknowledged`` along, jumps included."""
        while True:
            following = self.acknowledged + 1
            if following in self._ahead:
                self._ahead.remove(following)
                self.acknowledged = following
            elif following in self._jumps:
                self.acknowledged = self._jumps[following]
                self._prune()
            else:
                return

    def _prune(self) -> None:
        """Drops what is not above ``acknowledged`` any more."""
        done = self.acknowledged
        self._ahead = {sequence for sequence in self._ahead if sequence > done}
        self._jumps = {max(first, done + 1): last for first, last in self._jumps.items() if last > done}

    def _is_settled(self, sequence: int) -> bool:
        return sequence in self._ahead or any(first <= sequence <= last for first, last in self._jumps.items())

    def unsettled(self, first: int = 0, behind: int = 0) -> list[int]:
        """Sequences received and not settled, ascending; or those from ``first`` to before ``behind``."""
        found, sequence = [], max(first, self.acknowledged + 1)
        behind = behind or self.expected
        while sequence < behind:
            if sequence in self._jumps:
                sequence = self._jumps[sequence]
            elif sequence not in self._ahead:
                found.append(sequence)
            sequence += 1
        return found

    def _unsettled_before(self, sequence: int, count: int) -> list[int]:
        """The last ones before a sequence that would be missing if it came, ascending."""
        found: list[int] = []
        starts = {min(last, sequence - 1): first for first, last in self._jumps.items() if first < sequence}
        sequence -= 1
        while len(found) < count and sequence >= self.expected:
            if sequence in starts:
                sequence = starts[sequence]
            elif sequence not in self._ahead:
                found.append(sequence)
            sequence -= 1
        return found[::-1]

    def rewind(self) -> None:
        """Forgets what was received and not settled: the client sends it again."""
        self.expected = self.acknowledged + 1
        self._has_islands = bool(self._ahead or self._jumps)

    # --- What others know --------------------------------------------------------------------------------------------

    def catch_up(self, other: "StreamPosition") -> None:
        """Takes over what another process has seen of the same incarnation; one that is behind says nothing new."""
        if other.acknowledged >= self.acknowledged:
            self.refused.take_over(other.refused, other.acknowledged)
            self._raise(other.acknowledged)
            self._settle_refused()

    def hear(self, upto: int) -> None:
        """The client of a new connection has heard every answer up to and including ``upto``."""
        self._raise(upto)
        self.refused.forget(upto)

    def forget(self, upto: int) -> None:
        """The same, from a connection that goes on: it cannot have heard of what is not settled."""
        self.refused.forget(min(upto, self.acknowledged))

    def _raise(self, acknowledged: int) -> None:
        if acknowledged <= self.acknowledged:
            return
        self.acknowledged = acknowledged
        self._prune()
        # What was settled here right behind it counts too: nobody will settle it again.
        self._advance()
        self.expected = max(self.expected, self.acknowledged + 1)
        self._cross()

    def _settle_refused(self) -> None:
        """A refused sequence above ``acknowledged`` is settled, wherever that was decided."""
        ahead = {sequence for sequence in self.refused if sequence > self.acknowledged}
        if not ahead <= self._ahead:
            self._ahead |= ahead
            self._advance()
            self.expected = max(self.expected, self.acknowledged + 1)
            self._cross()

    # --- As it is written down ---------------------------------------------------------------------------------------

    def to_text(self) -> str:
        """Numbers and names separated by spaces: acknowledged, writer, complete_from, refused sequences."""
        return f"{self.acknowledged} {self.writer} {self.refused.complete_from} {self.refused.to_text()}"

    @classmethod
    def from_text(cls, text: str) -> "StreamPosition":
        """Raises ValueError for what ``to_text`` has not written. A bare number is a position of which nothing more is
        known."""
        if text.isascii() and text.isdigit():
            return cls(_sequence(text))
        acknowledged, writer, complete_from, refused = text.split(" ")
        # One above the last sequence, when nothing is known of all of them.
        known = Refused.from_text(refused, max(1, _sequence(complete_from, SEQUENCE_LIMIT + 1)))
        return cls(_sequence(acknowledged), writer=writer, refused=known)


def _sequence(text: str, limit: int = SEQUENCE_LIMIT) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(limit)) else -1
    if not 0 <= number <= limit:
        raise ValueError("not a sequence")
    return number
