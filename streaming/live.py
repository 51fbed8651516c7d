"""What administrators see of live connections, read from Redis. Room: streaming.

Plain functions that wait: call them from a thread. Who may see what is the caller's: a company's admin asks for that
company only.
"""

import time
from collections.abc import Iterable
from functools import cache

import msgspec
from django.conf import settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from streaming.cluster.live import COMPANIES_KEY, LiveConnection, decode, heart_key, live_key

# Seconds: a living process writes every connection anew several times within this.
_FORGET_AFTER = 60.0


class LiveUnavailable(Exception):
    """Redis does not answer; connections go on, only the list of them cannot be read. Trying again helps."""

    retryable = True


@cache
def _redis(url: str) -> Redis:
    # One more try is for a connection that Redis has closed since the last question: nobody waits longer for a page.
    return Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=1.0, retry=Retry(NoBackoff(), 1))


def live_connections(company_ids: Iterable[str] | None = None) -> list[LiveConnection]:
    """Of these companies, of all for None; the newest first. Raises LiveUnavailable.

    What belongs to a gateway process that has died is left out, and removed later.
    """
    if not settings.REDIS_URL:
        raise LiveUnavailable("REDIS_URL is not set: without Redis each gateway knows only its own connections")
    redis = _redis(settings.REDIS_URL)
    try:
        if company_ids is None:
            company_ids = sorted(str(one, "ascii") for one in redis.smembers(COMPANIES_KEY) if isinstance(one, bytes))
        pipe = redis.pipeline(transaction=False)
        for company_id in company_ids:
            pipe.hvals(live_key(company_id))
        found: list[LiveConnection] = []
        for values in pipe.execute():
            for value in values:
                try:
                    found.append(decode(value))
                except msgspec.MsgspecError:
                    # Written by another version of the product.
                    continue
        return sorted(_living(redis, found), key=lambda one: -one.opened_at)
    except (RedisError, OSError) as error:
        raise LiveUnavailable("Redis does not answer: the list of live connections comes back with it") from error


def _living(redis: Redis, found: list[LiveConnection]) -> list[LiveConnection]:
    processes = sorted({one.process for one in found})
    if not processes:
        return []
    beats = redis.mget([heart_key(process) for process in processes])
    alive = {process for process, beat in zip(processes, beats, strict=True) if beat}
    # Not at once: after an absence of Redis a process may have written its connections and not its heart yet, and would
    # not write them again for a while.
    oldest = time.time() - _FORGET_AFTER
    gone = [one for one in found if one.process not in alive and one.seen_at < oldest]
    if gone:
        pipe = redis.pipeline(transaction=False)
        for one in gone:
            pipe.hdel(live_key(one.company_id), one.session_id)
        pipe.execute()
    return [one for one in found if one.process in alive]


def connections_of(company_id: str) -> int | None:
    """How many connections a company has now; None when that cannot be read."""
    try:
        return len(live_connections([company_id]))
    except LiveUnavailable:
        return None
