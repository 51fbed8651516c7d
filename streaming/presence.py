"""The worker's look at who is online, by what the gateways write into Redis. Room: streaming."""

import datetime
import time

import structlog
from django.conf import settings

from streaming.live import LiveUnavailable, live_connections
from tenants import access

log = structlog.get_logger(__name__)


class PresenceWatch:
    """One round each time it is called; a periodic job of the worker."""

    def __init__(self) -> None:
        # Seconds of the monotonic clock since when it has looked without a gap.
        self._looking_since: float | None = None
        # What the last look has seen, through times without one: (user id, MT5 login).
        self._before: set[tuple[str, str]] | None = None

    def __call__(self) -> int:
        """How many accounts went online or offline."""
        try:
            found = live_connections()
        except LiveUnavailable as error:
            if self._looking_since is not None:
                log.warning("presence_blind", reason=str(error))
            self._looking_since = None
            return 0
        now = time.monotonic()
        if self._looking_since is None:
            self._looking_since = now
        grace = settings.GATEWAY_PRESENCE_GRACE
        # The gateways write again what a Redis that was away has lost; until they had the time for it, whoever is not
        # seen is not gone.
        seen = {(one.user_id, account) for one in found for account in one.accounts}
        may_end = now - self._looking_since >= grace
        changed = access.observe(seen, before=self._before, may_end=may_end, grace=datetime.timedelta(seconds=grace))
        # Not before it is written: what a database that is away has not taken is news again at the next look.
        self._before = seen
        return changed
