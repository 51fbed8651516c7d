"""Hears what other processes have changed: Redis at once, Kafka in case Redis is away. Room: streaming."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from events.feed import TopicFeed
from events.listener import ChangeListener
from proto.gateway.v1 import events_pb2
from streaming.access import AccessDirectory
from streaming.bans import read_note
from streaming.cluster.shares import Shares
from streaming.cutoff import Cutoff
from streaming.taps import Taps

log = structlog.get_logger(__name__)


class News:
    """Turns messages into calls; what cannot be read is logged and skipped by those who carry it."""

    def __init__(
        self,
        *,
        redis_url: str,
        kafka: Mapping[str, Any],
        topic: str,
        directory: AccessDirectory,
        cutoff: Cutoff,
        taps: Taps,
        shares: Shares,
        process_id: str,
        on_gap: Callable[[], None],
    ) -> None:
        """``kafka``: librdkafka's settings of a client; ``topic``: of subscription-status."""
        self._directory = directory
        self._cutoff = cutoff
        self._taps = taps
        self._shares = shares
        self._process_id = process_id
        self._on_gap = on_gap
        self._listener = ChangeListener(redis_url, self.heard, self._gap)
        self._feed = TopicFeed(kafka, topic, self._from_kafka) if kafka.get("bootstrap.servers") else None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Hears which stream of which user a connection of any process has claimed, and under which fence.
        self.on_stream_claimed: Callable[[str, str, int], None] = _ignore

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener.start()
        if self._feed is not None:
            self._feed.start()

    async def stop(self) -> None:
        await self._listener.stop()
        if self._feed is not None:
            # Its consumer closes in a thread of its own, with a bound.
            await asyncio.to_thread(self._feed.stop)

    def heard(self, message: dict[str, Any]) -> None:
        """One message of the channel; raises KeyError, TypeError or ValueError for one that is not whole."""
        kind = message["kind"]
        if kind == "access":
            self._directory.company_changed(str(message["company_id"]), int(message["version"]))
        elif kind == "token":
            self._directory.revoke(self._cutoff, str(message["jti"]), float(message["expires_at"]))
        elif kind == "kick":
            at = float(message["at"])
            self._directory.kick(
                self._cutoff, int(message["id"]), str(message["user_id"]), str(message["session_id"]), at
            )
        elif kind == "ban":
            self._cutoff.heard_ban(str(message["user_id"]), read_note(message))
        elif kind == "unban":
            self._cutoff.heard_unban(str(message["user_id"]), float(message["at"]))
        elif kind == "shared":
            others = frozenset(map(str, message["processes"])) - {self._process_id}
            if message["from"] != self._process_id:
                self._shares.note_others(str(message["user_id"]), others)
        elif kind == "stream_claimed":
            self.on_stream_claimed(str(message["user_id"]), str(message["stream_id"]), int(message["fence"]))
        elif kind == "everything":
            self._directory.look_at_everything()
        elif kind == "follow":
            self._taps.follow(str(message["user_id"]), with_payload=bool(message["with_payload"]))

    def _gap(self) -> None:
        self._directory.look_at_everything()
        self._on_gap()

    def _from_kafka(self, _key: bytes, value: bytes) -> None:
        """In the feed's thread."""
        try:
            status = events_pb2.SubscriptionStatus.FromString(value)
        except DecodeError:
            log.warning("subscription_status_unreadable", size=len(value))
            return
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._directory.company_changed, status.company_id, status.access_version)


def _ignore(_user_id: str, _stream_id: str, _fence: int) -> None:
    """Nobody carries streams here."""
