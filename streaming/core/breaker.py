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
    """What one source sent within the last minute, over all its connections to the process.

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


class UserConduct:
    """What all connections of a user have sent here, by source: the MT5 account or API key that they were opened for.

    Whoever is found out is a source, so that the user's other terminals go on: its own messages, or most of what the
    user as a whole is blamed for, are its doing. Only what no source stands out in is the whole user's.
    """

    __slots__ = ("_sources", "_together")

    def __init__(self, now: float) -> None:
        self._sources: dict[str, Conduct] = {}
        self._together = Conduct(now)

    def of(self, source: str, now: float) -> Conduct:
        """Shared by all sessions of the source. There are never more than the user has accounts and keys, and one."""
        conduct = self._sources.get(source)
        if conduct is None:
            conduct = self._sources[source] = Conduct(now)
        return conduct

    @property
    def messages(self) -> int:
        return sum(conduct.messages for conduct in self._sources.values())

    @property
    def is_quiet(self) -> bool:
        return self._together.is_quiet and all(conduct.is_quiet for conduct in self._sources.values())

    def window(self, source: str | None) -> tuple[int, int, int]:
        """As that of ``Conduct``; None: of all together, as of the last look."""
        return self._together.window() if source is None else self._sources[source].window()

    def look(self, now: float, rate_limit: float) -> list[tuple[Verdict, str | None]]:
        """Moves all windows on; who is to be let go, and why. None: the whole user.

        ``rate_limit``: messages a second of all together, since the rate is the user's.
        """
        self._add_up()
        verdict = self._together.look(now, rate_limit)
        found: list[tuple[Verdict, str | None]] = [
            (own, source)
            for source, conduct in self._sources.items()
            if not conduct.is_quiet and (own := conduct.look(now, math.inf)) is not None
        ]
        if verdict is not None and not found:
            found.append((verdict, self._blamed(verdict)))
        return found

    def _add_up(self) -> None:
        together = self._together
        together.messages = together.errors = together.over_rate = 0
        for conduct in self._sources.values():
            together.messages += conduct.messages
            together.errors += conduct.errors
            together.over_rate += conduct.over_rate

    def _blamed(self, verdict: Verdict) -> str | None:
        """The source that more than half of it came from, if any."""
        place = 1 if verdict is Verdict.ERRORS else 2
        counts = {source: conduct.window()[place] for source, conduct in self._sources.items()}
        worst = max(counts, key=lambda source: counts[source])
        return worst if counts[worst] * 2 > sum(counts.values()) else None

    def forgive(self, now: float, source: str | None) -> None:
        """Begins anew for a source, or for all, as after a ban; what it did is no longer the whole user's either."""
        self._add_up()
        self._together.forgive(now)
        for name, conduct in self._sources.items():
            if source is None or name == source:
                conduct.forgive(now)
