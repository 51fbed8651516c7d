"""The token buckets that hold a user, or an address, to a rate. Room: streaming.core (pure).

Time comes from the caller: seconds of a monotonic clock.
"""

import math

# Of the burst: a bucket that holds this much again belongs to a user who is back within the plan.
_RECOVERED = 0.25


class TokenBucket:
    """Lets ``rate`` events a second (more than 0) pass, and ``burst`` at once after a rest."""

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

    def retry_after_ms(self, count: int = 1) -> int:
        """Milliseconds, from the last ``take``, until ``count`` more events may pass, or a whole burst; at least 1."""
        return _milliseconds((min(count, self._burst) - self._tokens) / self._rate)

    def change(self, rate: float, burst: float) -> None:
        """Applies new limits and keeps what has been used: a change of plan is no free burst."""
        self._rate = rate
        self._burst = max(1.0, burst)
        self._tokens = min(self._tokens, self._burst)


def _milliseconds(seconds: float) -> int:
    """Rounded up; at least 1."""
    return max(1, math.ceil(seconds * 1000))


class MirroredBucket(TokenBucket):
    """One process's copy of the bucket that a user has over all processes (``core.shares`` keeps the copies together).

    The copy is whole: ``take`` never waits for a report, and what other processes have let pass is charged afterwards,
    so the tokens may go below zero. Since it hears of everything late, it never holds less than the one true bucket
    would; the first refusal therefore proves that the user is over the plan. From then on, until a quarter of the burst
    is back, the copy refills at its own share only, so that the copies do not each give away the same token.
    """

    __slots__ = ("_is_sharing", "_share", "_withheld", "overflow", "passed", "refused")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        super().__init__(rate, burst, now)
        # Events since the bucket was made.
        self.passed = 0
        self.refused = 0
        # Refill that found the bucket full, since it was made: what is charged late would have left room for it.
        self.overflow = 0.0
        # Refill a second while the user is over the plan, and whether that is so.
        self._share = rate
        self._is_sharing = False
        # Refill that was left to the other processes and has not been set against their reports yet.
        self._withheld = 0.0

    @property
    def rate(self) -> float:
        return self._rate

    def take(self, now: float) -> bool:
        if self._is_sharing:
            self._refill_share(now)
            tokens = self._tokens
        else:
            tokens = self._tokens + (now - self._updated) * self._rate
            self._updated = now
        if tokens > self._burst:
            self.overflow += tokens - self._burst
            tokens = self._burst
        if tokens >= 1.0:
            self._tokens = tokens - 1.0
            self.passed += 1
            return True
        self._tokens = tokens
        self.refused += 1
        self._is_sharing = self._share < self._rate
        return False

    def advance(self, now: float) -> None:
        """Brings the bucket up to ``now``, and back to the whole refill when the user is within the plan again."""
        if self._is_sharing:
            self._refill_share(now)
            self._is_sharing = self._share < self._rate and self._tokens < self._burst * _RECOVERED
        else:
            self._tokens += (now - self._updated) * self._rate
            self._updated = now
        self._spill()

    def charge(self, amount: float) -> None:
        """Takes what other processes have let pass; what was withheld for them pays first."""
        paid = min(amount, self._withheld)
        self._withheld -= paid
        self._tokens -= amount - paid

    def release(self) -> None:
        """Takes back what was withheld for the others: they have said what they needed of it."""
        self._tokens += self._withheld
        self._withheld = 0.0
        self._spill()

    def share(self, share: float) -> None:
        """How much a second is this process's while the user is over the plan; the rate or more: all of it."""
        self._share = min(share, self._rate)

    def retry_after_ms(self, count: int = 1) -> int:
        share = self._share if self._is_sharing else self._rate
        return _milliseconds(
            max(0.0, -self._tokens) / self._rate + (min(count, self._burst) - max(0.0, self._tokens)) / share
        )

    def change(self, rate: float, burst: float) -> None:
        # In proportion, until the next report says it anew.
        self._share *= rate / self._rate
        super().change(rate, burst)

    def _refill_share(self, now: float) -> None:
        """The others are in the same debt, so all of the refill is there to pay it off; only then it is divided."""
        elapsed = now - self._updated
        self._updated = now
        if self._tokens < 0.0:
            paid = min(elapsed, -self._tokens / self._rate)
            self._tokens += paid * self._rate
            elapsed -= paid
        self._tokens += elapsed * self._share
        self._withheld += elapsed * (self._rate - self._share)

    def _spill(self) -> None:
        if self._tokens > self._burst:
            self.overflow += self._tokens - self._burst
            self._tokens = self._burst
