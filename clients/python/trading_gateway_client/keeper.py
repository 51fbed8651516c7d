"""When a connection needs a ping, a new token, or is given up: timers that follow what was last told. Pure."""

from trading_gateway_client.backoff import Backoff

PING_INTERVAL = 15.0
# Seconds without any answer, pings being sent, after which the other side is given up.
SILENCE_LIMIT = 60.0
# A new token is fetched when this part of the present one's time is over.
_REFRESH_AT = 0.8
# Seconds between two requests of a token, whatever its life: the gateway takes one in five seconds for long.
_SHORTEST = 1.0
_RETRY_BASE = 2.0
_RETRY_CAP = 60.0
# Seconds after which a refresh without an answer counts as refused.
_ANSWER_LIMIT = 10.0


class Keeper:
    """The timers of one connection. Times in seconds of one monotonic clock; the gateway's in Unix milliseconds."""

    def __init__(self, now: float, expires_at_ms: int, server_time_ms: int, retries: Backoff | None = None) -> None:
        self._retries = retries or Backoff(base=_RETRY_BASE, cap=_RETRY_CAP)
        self._ping_at = now
        self._refresh_at = now
        self._ends_at = now
        self._life = 0.0
        # Whether a token is being fetched or was sent and not answered.
        self._is_waiting = False
        self.told(now, expires_at_ms, server_time_ms)

    @property
    def next_at(self) -> float:
        return min(self._ping_at, self._refresh_at)

    def told(self, now: float, expires_at_ms: int, server_time_ms: int) -> None:
        """How long the present token lasts: both times are the gateway's, as the clock here may be wrong."""
        life = self._life = (expires_at_ms - server_time_ms) / 1000
        self._ends_at = now + life
        self._refresh_at = now + max(_SHORTEST, life * _REFRESH_AT)
        self._is_waiting = False
        self._retries.reset()

    def taken(self, now: float) -> None:
        """The new token was taken by a gateway that does not say how long it lasts: as long as the last, then."""
        self.told(now, int(self._life * 1000), 0)

    def refused(self, now: float, retry_after: float = 0.0) -> None:
        """No token could be had, or the gateway did not take it: once more, before the old one ends if time is left."""
        self._is_waiting = False
        wait = _SHORTEST + self._retries.after_failure()
        left = self._ends_at - now
        if left > 2 * _SHORTEST:
            wait = min(wait, left / 2)
        self._refresh_at = now + max(retry_after, wait)

    @property
    def is_waiting(self) -> bool:
        return self._is_waiting

    def must_ping(self, now: float) -> bool:
        """Whether a ping is due; it counts as sent then."""
        if now < self._ping_at:
            return False
        self._ping_at = now + PING_INTERVAL
        return True

    def must_refresh(self, now: float) -> bool:
        """Whether a new token is to be fetched; it counts as asked for then."""
        if now < self._refresh_at:
            return False
        if self._is_waiting:
            self.refused(now)
            return False
        self._is_waiting = True
        self._refresh_at = now + _ANSWER_LIMIT
        return True

    def sent(self, now: float) -> None:
        """The new token is on its way to the gateway."""
        self._refresh_at = now + _ANSWER_LIMIT
