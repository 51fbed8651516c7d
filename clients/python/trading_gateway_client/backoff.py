"""When to connect again: by the gateway's hint, or with full jitter. Pure."""

import random

BASE = 0.5
CAP = 30.0
# Seconds of a connection after which the next failure counts as the first again.
STABLE_AFTER = 60.0


class Backoff:
    """Delays in seconds. Without a hint: random(0, min(cap, base * 2^n)), so that a crowd spreads itself."""

    def __init__(
        self,
        base: float = BASE,
        cap: float = CAP,
        source: random.Random | None = None,
        *,
        stable_after: float = STABLE_AFTER,
        least: float = 0.0,
    ) -> None:
        """``least``: the part of each delay that is not random."""
        self._base = base
        self._cap = cap
        self._random = source or random.Random()
        self._stable_after = stable_after
        self._least = least
        self._failures = 0

    def after_hint(self, retry_after_ms: int, jitter_ms: int) -> float:
        """The gateway knows why it closed: its hint plus a random part of its jitter."""
        return (retry_after_ms + self._random.uniform(0, jitter_ms)) / 1000

    def after_failure(self) -> float:
        ceiling = min(self._cap, self._base * 2.0**self._failures)
        self._failures = min(self._failures + 1, 30)
        return self._random.uniform(ceiling * self._least, ceiling)

    def connected_for(self, seconds: float) -> None:
        """Call it when a connection ends: a stable one clears the count."""
        if seconds >= self._stable_after:
            self._failures = 0

    def reset(self) -> None:
        self._failures = 0
