"""What all sessions of a process share. Room: streaming.core (pure)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streaming.core.policy import ConnectionLimits
from streaming.core.ports import Sink
from streaming.core.routing import Route

if TYPE_CHECKING:
    from streaming.core.session import Session


class Counts:
    """What a process counts on the way, as plain integers."""

    __slots__ = ("bytes_received", "bytes_sent", "duplicates", "failed_messages", "not_kept", "refusals")

    def __init__(self) -> None:
        self.bytes_received = 0
        self.bytes_sent = 0
        self.duplicates = 0
        # (message type or "", nack code) -> messages
        self.refusals: dict[tuple[str, str], int] = {}
        # nack code -> records written to failed-messages
        self.failed_messages: dict[str, int] = {}
        # nack code -> frames that should be in failed-messages and are not
        self.not_kept: dict[str, int] = {}


def _itself(session: "Session") -> "Session":
    return session


def _nobody(_session: "Session") -> None:
    """Nobody keeps positions."""


@dataclass(slots=True)
class SessionContext:
    """What all sessions of a process share."""

    routes: Mapping[str, Route]
    failed_topic: str
    sink: Sink
    limits: ConnectionLimits
    # Puts a session in line for its next acknowledgement; True when it should not wait for the timer.
    schedule_ack: "Callable[[Session, bool], None]"
    # Lets the user of a session go, whose messages are invalid for certain.
    on_abuse: "Callable[[Session], None]"
    # Checks a token offered by the client of a session and notes its end and the new deadline; raises RefreshRefused.
    refresh: "Callable[[Session, str], None]"
    # The session that carries the stream of this one now: itself, or the one that took its place.
    current: "Callable[[Session], Session]" = _itself
    # The client of a session has begun its stream anew: the session's position is another one now.
    on_restart: "Callable[[Session], None]" = _nobody
    counts: Counts = field(default_factory=Counts)
