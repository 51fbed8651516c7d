"""The token bucket that holds a user to the plan's rate. Room: streaming.core (pure)."""

import math


class TokenBucket:
    """Lets ``rate`` events a second pass, and ``burst`` at once after a rest.

    Time comes from the caller: seconds of a monotonic clock.
    """

    __slots__ = ("_burst", "_rate", "_tokens", "_updated")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = max(1.0, burst)
        self._tokens = self._burst
        self._updated = now

    def take(self, now: float) -> bool:
        """Whether one more event may pass now; takes it from the bucket when so."""
        tokens = self._tokens + (now - self._updated) * self._rate
        self._updated = now
        if tokens > self._burst:
            tokens = self._burst
        if tokens >= 1.0:
            self._tokens = tokens - 1.0
            return True
        self._tokens = tokens
        return False

    def retry_after_ms(self) -> int:
        """Milliseconds, from the last ``take``, until one more event may pass; at least 1."""
        if self._rate <= 0.0:
            # All of the rate is let pass elsewhere at this moment; that changes within a second of new demand here.
            return 1_000
        return max(1, math.ceil((1.0 - self._tokens) / self._rate * 1000))

    def shrink(self, fraction: float) -> None:
        """Leaves at most this fraction of the burst: somebody else has given it."""
        self._tokens = min(self._tokens, max(1.0, self._burst * fraction))

    def change(self, rate: float, burst: float) -> None:
        """Applies new limits and keeps what has been used: a change of plan is no free burst."""
        self._rate = rate
        self._burst = max(1.0, burst)
        self._tokens = min(self._tokens, self._burst)
