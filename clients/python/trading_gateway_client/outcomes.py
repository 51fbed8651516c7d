"""What became of the messages of a client. Pure."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Outcomes:
    """``sent = acknowledged + refused + dropped + unknown + unanswered``; each message counts once, however often it
    went over the wire or was offered.
    """

    sent: int = 0
    acknowledged: int = 0
    # For good: by a refusal that is final, or by any where this client offers nothing anew.
    refused: int = 0
    # Ticks that were refused and let go, since newer ones of their symbols stand for them.
    dropped: int = 0
    # The gateway has settled them and cannot say any more how; Kafka may have them or not.
    unknown: int = 0
    # Nacks by code; those that settle nothing (backend_unavailable, sequence_gap) are told here too.
    refusals: Counter[str] = field(default_factory=Counter)
    # Sendings of a sequence after its first, and new sequences for the content of a refused one.
    resent: int = 0
    reoffered: int = 0
    connects: int = 0
    # Close codes of connections that ended, and statuses of handshakes that were refused.
    closes: Counter[int] = field(default_factory=Counter)
    handshakes_refused: Counter[int] = field(default_factory=Counter)

    @property
    def unanswered(self) -> int:
        return self.sent - self.acknowledged - self.refused - self.dropped - self.unknown
