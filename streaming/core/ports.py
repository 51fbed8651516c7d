"""What the session core needs of the world, as protocols. Room: streaming.core (pure)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from streaming.core.codes import CloseCode

if TYPE_CHECKING:
    from streaming.core.routing import Route
    from streaming.core.session import Session

Headers = Sequence[tuple[str, bytes]]


class Receipt(NamedTuple):
    """Travels with a published message and comes back with its delivery report."""

    session: "Session"
    # 0: the client wants no acknowledgement.
    sequence: int
    # Monotonic seconds at which the frame was received.
    received: float
    # None for a record of the failed-messages topic.
    route: "Route | None"
    # Bytes of the record's value.
    size: int


class Sink(Protocol):
    """Takes messages and reports later, through its callbacks, what became of each: every receipt comes back once."""

    # False while the broker is known to be away.
    available: bool

    def publish(self, topic: str, key: bytes, value: bytes, receipt: Receipt, headers: Headers | None = None) -> None:
        """Queues one record without waiting; order is kept for each key within a topic."""

    @property
    def is_full(self) -> bool:
        """Whether readers should stop until reports have come back."""


class Peer(Protocol):
    """The client's end of one connection; no call waits."""

    def send(self, data: bytes | str) -> None:
        """Queues one message; a peer that does not read is cut off by the peer's own bound."""

    def close(self, code: CloseCode, reason: str) -> None:
        """Sends what is queued, then the close frame. Messages sent after it are dropped."""

    def pause(self) -> None:
        """Stops reading from the client until ``resume``."""

    def resume(self) -> None: ...
