"""Holds back who asks too often, in this process. Room: tenants."""

import math
import threading
import time
from collections import OrderedDict


class AttemptLimiter:
    """A token bucket for each name, for a bounded number of names; threads may share it."""

    def __init__(self, rate: float, burst: float, *, names_limit: int = 10_000) -> None:
        """``rate``: attempts a second; ``burst``: attempts at once after a rest."""
        self._rate = rate
        self._burst = burst
        self._names_limit = names_limit
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_for(self, name: str) -> float:
        """0 when one more attempt may go on, else the seconds until then."""
        now = time.monotonic()
        with self._lock:
            tokens, updated = self._buckets.pop(name, (self._burst, now))
            tokens = min(self._burst, tokens + (now - updated) * self._rate)
            allowed = tokens >= 1.0
            self._buckets[name] = (tokens - 1.0 if allowed else tokens, now)
            while len(self._buckets) > self._names_limit:
                self._buckets.popitem(last=False)
        return 0.0 if allowed else max(0.001, math.ceil((1.0 - tokens) / self._rate * 1000) / 1000)
