"""Keeps a client under the rate of its plan, and under what is left of it when others of its user send too. Pure."""

# The gateway's own bucket holds a second's worth; what is on the way at once needs some of it.
_SHARE = 0.97
_BURST_SHARE = 0.5
# Of a token. What rounding leaves missing must not become a wait too short for the clock to show.
_ROUNDING = 1e-6
# What is left of the rate after a refusal, and which part of the whole comes back a second.
_FALL = 0.7
_RECOVERY = 0.05
_FLOOR = 0.02
# Seconds in which all refusals count as one: what was on the way already is no further news.
_ONE_REFUSAL = 0.5


class Pace:
    """A token bucket whose rate falls with each refusal and comes back slowly.

    Times in seconds of any monotonic clock.
    """

    def __init__(self, rate: float, now: float) -> None:
        """``rate``: messages a second that the plan allows."""
        self._full, self._burst = _limits(rate)
        self._tokens = self._burst
        self._updated = now
        self._part = 1.0
        self._stopped_until = now
        self._refused_at = now - _ONE_REFUSAL

    def take(self, now: float) -> float:
        """0 when one more message may go now, else the seconds to wait."""
        if now < self._stopped_until:
            return self._stopped_until - now
        seconds = now - self._updated
        self._updated = now
        if self._part < 1.0:
            self._part = min(1.0, self._part + seconds * _RECOVERY)
        rate = self._full * self._part
        self._tokens = min(max(1.0, self._burst * self._part), self._tokens + seconds * rate)
        if self._tokens >= 1.0 - _ROUNDING:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / rate

    def refused(self, now: float, wait: float) -> None:
        """A message was over the rate: none goes for ``wait`` seconds, and then fewer a second."""
        self._stopped_until = max(self._stopped_until, now + wait)
        if now - self._refused_at >= _ONE_REFUSAL:
            self._refused_at = now
            self._part = max(_FLOOR, self._part * _FALL)
        self._tokens = min(self._tokens, 1.0)
        self._updated = max(self._updated, now)

    def change(self, rate: float) -> None:
        """Another plan: keeps what has been used, and what was learnt of the others."""
        self._full, self._burst = _limits(rate)
        self._tokens = min(self._tokens, self._burst)


def _limits(rate: float) -> tuple[float, float]:
    return max(0.1, rate * _SHARE), max(1.0, rate * _BURST_SHARE)
