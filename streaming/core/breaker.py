"""The circuit breaker: whose messages are mostly invalid, or who floods, is let go for a while. Room: streaming.core.

Pure: time comes from the caller, in seconds of a monotonic clock.
"""

import math
from collections import deque
from enum import StrEnum

WINDOW = 60.0
# Fewer messages in the window prove nothing, whatever they were.
MINIMUM_VOLUME = 20
# For how long a share of errors that is not overwhelming must stay above a half. A mixture that is just below it
# wanders above now and then: at 49 % every few seconds, in a short window.
PATIENCE = 5.0
# Standard deviations of a fair coin beyond which nobody waits: (errors - n/2) / (sqrt(n)/2).
_CERTAIN = 3.0
# A minute's allowance times this, refused for its rate within a minute, is flooding: ten times the rate for a minute.
FLOOD_FACTOR = 9.0
BAN_BASE = 30.0
BAN_LIMIT = 3600.0
_BAN_JITTER = 0.2


class Verdict(StrEnum):
    """Why somebody is let go; the value is what is written down."""

    ERRORS = "errors"
    FLOODING = "flooding"


def ban_seconds(repeat: int, chance: float) -> float:
    """How long the ``repeat``-th ban within a day lasts: 30 s, doubled each time, up to an hour.

    ``chance``: 0.0 to 1.0; spreads the ends by a fifth each way, so that those banned together do not return together.
    """
    base = BAN_BASE * 2.0 ** min(max(0, repeat - 1), 16)
    return float(min(BAN_LIMIT, base * (1.0 - _BAN_JITTER + 2.0 * _BAN_JITTER * chance)))


class Conduct:
    """What one user sent within the last minute, over all connections of the process.

    The hot path adds to ``messages``; ``error`` and ``over_rate`` are for the exceptions. ``look`` comes once a second.
    """

    __slots__ = ("_above_since", "_snapshots", "errors", "messages", "over_rate")

    def __init__(self, now: float) -> None:
        self.messages = 0
        self.errors = 0
        self.over_rate = 0
        self._above_since = math.inf
        # (time, messages, errors, over_rate, rate limit) as they were then; the oldest one is where the window begins.
        self._snapshots = deque([(now, 0, 0, 0, 0.0)])

    def error(self) -> bool:
        """Notes one invalid message; True when it is certain that most are."""
        self.errors += 1
        messages, errors, over_rate = self.window()
        judged = messages - over_rate
        return judged >= MINIMUM_VOLUME and errors - judged / 2 >= _CERTAIN * math.sqrt(judged) / 2

    def window(self) -> tuple[int, int, int]:
        """Messages, errors and messages over the rate within the window."""
        _, messages, errors, over_rate, _ = self._snapshots[0]
        return self.messages - messages, self.errors - errors, self.over_rate - over_rate

    def look(self, now: float, rate_limit: float) -> Verdict | None:
        """Moves the window on; why the user is to be let go, if so. ``rate_limit``: messages a second, which may change
        from look to look; floods are measured against the largest one within the window."""
        snapshots = self._snapshots
        snapshots.append((now, self.messages, self.errors, self.over_rate, rate_limit))
        while len(snapshots) > 1 and snapshots[1][0] <= now - WINDOW:
            snapshots.popleft()
        messages, errors, over_rate = self.window()
        if not messages:
            self.forgive(now)
            return None
        if over_rate > FLOOD_FACTOR * rate_limit * WINDOW and over_rate > FLOOD_FACTOR * WINDOW * max(
            limit for *_, limit in snapshots
        ):
            return Verdict.FLOODING
        # What is over the rate is not looked into, so it is neither good nor bad.
        judged = messages - over_rate
        if judged < MINIMUM_VOLUME or errors * 2 <= judged:
            self._above_since = math.inf
        elif self._above_since == math.inf:
            self._above_since = now
        return Verdict.ERRORS if now - self._above_since >= PATIENCE else None

    @property
    def is_quiet(self) -> bool:
        """Whether a look would find nothing new: no message since the last one, and none in the window."""
        return len(self._snapshots) == 1 and self._snapshots[0][1] == self.messages

    def forgive(self, now: float) -> None:
        """Begins anew, as after a ban."""
        self._snapshots = deque([(now, self.messages, self.errors, self.over_rate, 0.0)])
        self._above_since = math.inf
