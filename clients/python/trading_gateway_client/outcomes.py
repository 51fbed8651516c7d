"""What became of the messages of a client. Pure."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Outcomes:
    """``sent = acknowledged + refused + unanswered``; each message counts once, however often it went over the wire."""

    sent: int = 0
    acknowledged: int = 0
    refused: int = 0
    # Nacks by code; those that settle nothing (backend_unavailable, sequence_gap) are told here too.
    refusals: Counter[str] = field(default_factory=Counter)
    resent: int = 0
    connects: int = 0
    # Close codes of connections that ended, and statuses of handshakes that were refused.
    closes: Counter[int] = field(default_factory=Counter)
    handshakes_refused: Counter[int] = field(default_factory=Counter)

    @property
    def unanswered(self) -> int:
        return self.sent - self.acknowledged - self.refused
