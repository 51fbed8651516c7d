"""Messages from ``send`` until the gateway has settled them. Pure."""

from collections import deque
from dataclasses import dataclass

from trading_gateway_client.errors import JournalFull

COUNT_LIMIT = 10_000
SIZE_LIMIT = 16 * 1024 * 1024


@dataclass(slots=True)
class Entry:
    """One message; ``frame`` is what goes over the wire, again and again until it is settled."""

    sequence: int
    message_type: str
    frame: bytes
    # Seconds of the event loop's clock when it was given to this client; 0.0: by an earlier run of the program.
    offered_at: float = 0.0
    # How often it went over the wire.
    attempts: int = 0
    # The code of its nack, once it was refused.
    refusal: str = ""
    # The refusal of an earlier sending that a new one may be spared.
    earlier_refusal: str = ""


class Journal:
    """Keeps entries in order of their sequence; those before ``unsent`` are on the way on the present connection."""

    def __init__(self, *, count_limit: int = COUNT_LIMIT, size_limit: int = SIZE_LIMIT) -> None:
        """Limits in messages and in bytes."""
        self._count_limit = count_limit
        self._size_limit = size_limit
        self.on_way: deque[Entry] = deque()
        self.unsent: deque[Entry] = deque()
        self.size = 0
        self.last_sequence = 0
        self.stream_id = ""
        self.form = ""

    def __len__(self) -> int:
        return len(self.on_way) + len(self.unsent)

    @property
    def is_full(self) -> bool:
        return len(self) >= self._count_limit or self.size >= self._size_limit

    def open_stream(self, stream_id: str, form: str) -> None:
        """Notes whose messages these are. Raises ValueError when it holds another stream, or frames of another form."""
        if self.stream_id and self.stream_id != stream_id:
            raise ValueError(f"this journal belongs to the stream {self.stream_id}, not to {stream_id}")
        if self.form and self.form != form and len(self):
            raise ValueError(f"this journal holds messages in the form {self.form}: settle them before {form} is used")
        self.stream_id, self.form = stream_id, form

    def add(self, entry: Entry) -> None:
        """Raises JournalFull and keeps nothing then."""
        self.check_room()
        self.unsent.append(entry)
        self.size += len(entry.frame)
        self.last_sequence = entry.sequence

    def check_room(self) -> None:
        """Raises JournalFull."""
        if self.is_full:
            raise JournalFull("too many messages wait for their acknowledgement")

    def settle(self, sequence: int) -> list[Entry]:
        """Takes out everything up to and including ``sequence``; the entries, in order."""
        settled = []
        for waiting in (self.on_way, self.unsent):
            while waiting and waiting[0].sequence <= sequence:
                entry = waiting.popleft()
                self.size -= len(entry.frame)
                settled.append(entry)
        return settled

    def find_on_way(self, sequence: int) -> Entry | None:
        if self.on_way and self.on_way[0].sequence <= sequence <= self.on_way[-1].sequence:
            return self.on_way[sequence - self.on_way[0].sequence]
        return None

    def rewind(self) -> None:
        """Everything that is not settled is to be sent again, in order, before anything new."""
        self.unsent.extendleft(reversed(self.on_way))
        self.on_way.clear()

    def close(self) -> None:
        """Ends the use of whatever holds the entries."""
