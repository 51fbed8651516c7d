"""Delays of many messages in bounded memory. Pure. Room: streaming.tools."""

import math

# Each bucket is 2 % wider than the one before: a quantile is right to that.
_STEP = math.log(1.02)
_SMALLEST = 1e-5


class Latencies:
    """Counts by logarithmic bucket; seconds in, milliseconds out."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._count = 0
        self._longest = 0.0

    def add(self, seconds: float) -> None:
        bucket = int(math.log(max(seconds, _SMALLEST) / _SMALLEST) / _STEP)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self._count += 1
        self._longest = max(self._longest, seconds)

    def quantile(self, share: float) -> float:
        """Milliseconds under which ``share`` of all lie; 0.0 when there are none."""
        wanted, seen = share * self._count, 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= wanted:
                return min(self._longest, _SMALLEST * math.exp((bucket + 0.5) * _STEP)) * 1000
        return 0.0

    def summary(self) -> dict[str, float]:
        return {
            "p50": round(self.quantile(0.5), 3),
            "p99": round(self.quantile(0.99), 3),
            "max": round(self._longest * 1000, 3),
        }
