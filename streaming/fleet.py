"""This process among the others: what they share, what they hear of each other. Room: streaming."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from events.broadcast import CHANNEL
from streaming.access import AccessDirectory
from streaming.background import repeat
from streaming.bans import Bans
from streaming.cluster.link import Link
from streaming.cluster.live import LiveList
from streaming.cluster.places import Places
from streaming.cluster.shares import Shares
from streaming.core.session import Session
from streaming.core.shares import Mirror
from streaming.cutoff import Cutoff
from streaming.news import News
from streaming.quotas import Quotas, tell
from streaming.registry import Connection, Registry
from streaming.taps import Taps
from tenants.access import TerminalAccess

# Seconds.
_BEAT_INTERVAL = 3.0
_SYNC_INTERVAL = 1.0
_SHARE_INTERVAL = 0.1
_NEWS_PAUSE = 0.005
_TAP_INTERVAL = 0.25
_STOP_TIMEOUT = 5.0
# Every so many syncs all numbers are written, whatever has changed.
_FULL_SYNC = 15
_REPEATS = 6


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """``kafka``: librdkafka's settings of a client; ``subscription_topic``: where changes of companies are told."""

    redis_url: str
    kafka: Mapping[str, Any]
    subscription_topic: str
    # Seconds between two reports of the companies' use.
    usage_interval: float


class Fleet:
    """Everything of a process that concerns other processes, wired; one event loop."""

    def __init__(self, link: Link, registry: Registry, directory: AccessDirectory, settings: FleetSettings) -> None:
        self.link = link
        self.registry = registry
        self.directory = directory
        self.places = Places(link, registry.held_by_user, registry.held_by_company, self._others)
        self.shares = Shares(link, self._mirror_of, self._is_live)
        self.bans = Bans(link, directory)
        self.live = LiveList(link, registry)
        self.taps = Taps(link, registry)
        self.quotas = Quotas(registry, directory, interval=settings.usage_interval)
        self.cutoff = Cutoff(registry, directory, self.bans, self.shares, self.places)
        self._news = News(
            redis_url=settings.redis_url,
            kafka=settings.kafka,
            topic=settings.subscription_topic,
            directory=directory,
            cutoff=self.cutoff,
            taps=self.taps,
            shares=self.shares,
            process_id=link.process_id,
            on_gap=self._resynchronise,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._syncs = 0
        # Syncs still to come that write everything.
        self._repeats = 0
        link.on_return.append(self._resynchronise)
        self.places.on_lapse.append(self._resynchronise)

    def start(self) -> None:
        self._news.start()
        self._tasks = [
            repeat("access", lambda: self.directory.poll(self.cutoff), self.directory.poll_interval),
            repeat("news", lambda: self.directory.follow(self.cutoff), _NEWS_PAUSE),
            repeat("beat", self.places.beat, _BEAT_INTERVAL),
            repeat("sync", self._sync, _SYNC_INTERVAL),
            repeat("shares", self.shares.report, _SHARE_INTERVAL),
            repeat("taps", self.taps.flush, _TAP_INTERVAL),
            repeat("usage", self.quotas.flush, self.quotas.interval),
            repeat("bans", self.bans.write_down, _SYNC_INTERVAL),
        ]

    async def stop(self) -> None:
        """Ends the background work with a last report."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._news.stop()
        with contextlib.suppress(TimeoutError):
            # A ban that the database does not have yet: nobody but this process will write it.
            async with asyncio.timeout(_STOP_TIMEOUT):
                await self.bans.write_down()
        await self.quotas.flush()
        # What the users who have just left have sent here.
        await self.shares.report()
        await self.live.flush()
        await self.places.leave()
        await self.link.close()

    def on_stream_claimed(self, hear: Callable[[str, str, int], None]) -> None:
        """``hear``: of each stream that a connection of any process claims: user id, stream id, fence."""
        self._news.on_stream_claimed = hear

    # --- Connections -------------------------------------------------------------------------------------------------

    async def found_others(self, user_id: str, others: frozenset[str] | None) -> None:
        """What the shared store has said of a user who connects; None: it could not be asked."""
        self.shares.came(user_id, others)
        if others:
            processes = [self.link.process_id, *others]
            news = {"kind": "shared", "from": self.link.process_id, "user_id": user_id, "processes": processes}

            async def question(redis: Redis) -> int:
                return int(await redis.publish(CHANNEL, json.dumps(news)))

            await self.link.ask(question)

    def opened(self, connection: Connection, access: TerminalAccess) -> None:
        """A connection is in the registry."""
        self.cutoff.adopt(connection.entry, access)
        self.live.opened(connection)
        self.places.mark(access.user_id, access.company_id)
        self.taps.attach(connection.session)
        tell(connection)
        self.cutoff.check_new(connection, access)

    def closed(self, connection: Connection) -> None:
        """A connection is in the registry no more."""
        self.live.closed(connection)
        self._left(connection.user_id, connection.entry.company.company_id)

    def released(self, user_id: str, company_id: str) -> None:
        """A reserved place was given back."""
        self._left(user_id, company_id)

    def _left(self, user_id: str, company_id: str) -> None:
        self.places.mark(user_id, company_id)
        if not self._is_live(user_id):
            self.shares.left(user_id)

    def on_abuse(self, session: Session) -> None:
        self.cutoff.on_abuse(session)

    # --- What the shared parts ask -----------------------------------------------------------------------------------

    def _mirror_of(self, user_id: str) -> Mirror | None:
        entry = self.registry.users.get(user_id)
        return None if entry is None else entry.mirror

    def _is_live(self, user_id: str) -> bool:
        return self.registry.held_by_user(user_id) > 0

    def _others(self, user_id: str, others: dict[str, int]) -> None:
        self.cutoff.others(user_id, others, self.link.process_id)

    async def _sync(self) -> None:
        self._syncs += 1
        if self._repeats:
            self._repeats -= 1
            # The hearts first: the numbers of a process without one are thrown away.
            await self.places.beat()
        if self._repeats or self._syncs % _FULL_SYNC == 0:
            self._mark_all()
        await self.places.sync()
        await self.live.flush()

    def _mark_all(self) -> None:
        self.places.mark_all((user_id, e.company.company_id) for user_id, e in self.registry.users.items() if e.held)

    def _resynchronise(self) -> None:
        """Redis may have forgotten everything; the other processes find that out in their own time."""
        self._repeats = _REPEATS
        self.live.repeat_all()
        self.shares.resume()

    def judge(self) -> None:
        """Once a second."""
        self.cutoff.judge(time.monotonic())
