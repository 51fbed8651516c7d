"""What the session core needs of the world, as protocols. Room: streaming.core (pure)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from streaming.core.codes import CloseCode

if TYPE_CHECKING:
    from streaming.core.routing import Route
    from streaming.core.session import Session

Headers = Sequence[tuple[str, bytes]]


# Travels with a published message and comes back with its delivery report. A plain tuple, made once a message:
# the session; the message's sequence (0: the client wants no acknowledgement; below 0: the token of a frame without one
# that is kept in failed-messages); the monotonic seconds at which the frame was received; the route (None for a record
# of failed-messages); the bytes of the record's value; and the bytes of the frame as it was received.
Receipt = tuple["Session", int, float, "Route | None", int, int]


# Hears of each message of a session that somebody follows: the session, message type, sequence, size in bytes as
# received, "accepted" or the nack code, the record's value (empty when refused), Unix microseconds.
Tap = Callable[["Session", str, int, int, str, bytes, int], None]


class Sink(Protocol):
    """Takes messages and reports later, through its callbacks, what became of each: every receipt comes back once, as
    delivered (Kafka has it), as failed (Kafka may have it: to be sent again) or as refused (Kafka does not have it)."""

    # False while the broker is known to be away.
    available: bool
    # Whether readers should stop until reports have come back.
    is_full: bool
    # Whether some topic or partition, not all of Kafka, takes nothing now: ``takes`` says which.
    is_ill: bool

    def takes(self, topic: str, key: bytes) -> bool:
        """False while this topic, or the partition of this key in it, takes nothing. To be asked while ``is_ill``."""

    def publish(self, topic: str, key: bytes, value: bytes, receipt: Receipt, headers: Headers | None = None) -> None:
        """Queues one record without waiting; order is kept for each key within a topic. What the sink does not take is
        told through its callbacks, never from within this call."""


class Peer(Protocol):
    """The client's end of one connection; no call waits."""

    def send(self, data: bytes | str) -> None:
        """Queues one message; a peer that does not read is cut off by the peer's own bound."""

    def close(self, code: CloseCode, reason: str) -> None:
        """Sends what is queued, then the close frame. Messages sent after it are dropped."""

    def pause(self) -> None:
        """Stops reading from the client until ``resume``."""

    def resume(self) -> None: ...
