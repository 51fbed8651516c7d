"""Keeps a client under the rate of its plan, so that a resend after an outage is not refused. Pure."""

# The gateway's own bucket holds a second's worth; what is on the way at once needs some of it.
_SHARE = 0.97
_BURST_SHARE = 0.5
# Of a token. What rounding leaves missing must not become a wait too short for the clock to show.
_ROUNDING = 1e-6


class Pace:
    """A token bucket; times in seconds of any monotonic clock."""

    def __init__(self, rate: float, now: float) -> None:
        """``rate``: messages a second that the plan allows."""
        self._rate = max(0.1, rate * _SHARE)
        self._burst = max(1.0, rate * _BURST_SHARE)
        self._tokens = self._burst
        self._updated = now

    def take(self, now: float) -> float:
        """0 when one more message may go now, else the seconds to wait."""
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        if self._tokens >= 1.0 - _ROUNDING:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate
