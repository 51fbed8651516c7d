"""Fast news from any process to all gateways through Redis pub/sub. Room: events.

Contract: best effort and never the only way; whoever listens also has the events of Kafka and asks the database. A
request never waits for Redis: one thread of the process sends, and what Redis does not take within a second is dropped,
counted and logged. Where more has changed than is worth naming, one message says so (``EVERYTHING``).
"""

import atexit
import os
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from django.conf import settings
from django.db import transaction
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

log = structlog.get_logger(__name__)

CHANNEL = "gateway:changes"
# Messages of one transaction, and those that may wait for the thread. Above it listeners look at everything, which
# costs them less than so many single looks.
QUEUE_LIMIT = 1_000
EVERYTHING = {"kind": "everything"}
# Seconds.
_CONNECT_TIMEOUT = 0.5
_SOCKET_TIMEOUT = 1.0
_EXIT_TIMEOUT = 1.0

_EVERYTHING = msgspec.json.encode(EVERYTHING)

_lock = threading.Lock()
_sender: "Sender | None" = None


@dataclass(frozen=True)
class _Announcement:
    """Equal ones of a transaction are one."""

    url: str
    payload: bytes

    def __call__(self) -> None:
        _sender_of(self.url).put(self.payload)


class _Announced(threading.local):
    """What the thread's transaction is going to announce, so that each announcement costs the same however many there
    were. Kept beside Django's list of what to do on commit, which is another list after a rollback, even of a part."""

    def __init__(self) -> None:
        self._hooks: list[Any] | None = None
        self._known: set[_Announcement] = set()

    def of(self, hooks: list[Any]) -> set[_Announcement]:
        if self._hooks is not hooks:
            self._hooks = hooks
            self._known = {hook for _, hook, _ in hooks if isinstance(hook, _Announcement)}
        return self._known


_announced = _Announced()


def announce(message: dict[str, Any]) -> None:
    """Sends ``message`` as JSON when the transaction has committed, at once outside of one; equal messages of one
    transaction go once, and above QUEUE_LIMIT different ones ``EVERYTHING`` stands for the rest. Without REDIS_URL
    nothing happens."""
    if not settings.REDIS_URL:
        return
    announcement = _Announcement(settings.REDIS_URL, msgspec.json.encode(message))
    connection = transaction.get_connection()
    if not connection.in_atomic_block:
        announcement()
        return
    known = _announced.of(connection.run_on_commit)
    if announcement in known:
        return
    if len(known) >= QUEUE_LIMIT:
        announcement = _Announcement(settings.REDIS_URL, _EVERYTHING)
        if announcement in known:
            return
    known.add(announcement)
    # Robust: the change is committed, its caller must not see an error.
    transaction.on_commit(announcement, robust=True)


def flush(timeout: float) -> bool:
    """Waits at most ``timeout`` seconds for all announced messages to be sent or dropped; whether they are."""
    return _sender is None or _sender.flush(timeout)


class Sender:
    """A bounded queue and the daemon thread that empties it; the thread starts with the first message."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._redis: Redis | None = None
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._is_sending = False
        self._thread: threading.Thread | None = None
        self._is_down = False
        # Messages since Redis was last there.
        self._dropped = 0

    def put(self, payload: bytes) -> None:
        """Never waits; above QUEUE_LIMIT all that waits becomes one ``EVERYTHING``."""
        with self._changed:
            if len(self._waiting) >= QUEUE_LIMIT:
                self._waiting.clear()
                self._waiting.append(_EVERYTHING)
                log.info("broadcast_of_everything", instead_of=QUEUE_LIMIT)
            self._waiting.append(payload)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="broadcast", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._is_sending, timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                batch = list(self._waiting)
                self._waiting.clear()
                self._is_sending = True
            try:
                self._send(batch)
            except Exception:
                log.exception("broadcast_crashed")
            with self._changed:
                self._is_sending = False
                self._changed.notify_all()

    def _send(self, batch: list[bytes]) -> None:
        try:
            if self._redis is None:
                # The one retry is for a connection that Redis has closed since the last message.
                self._redis = Redis.from_url(
                    self.url,
                    socket_connect_timeout=_CONNECT_TIMEOUT,
                    socket_timeout=_SOCKET_TIMEOUT,
                    retry=Retry(NoBackoff(), 1),
                )
            pipeline = self._redis.pipeline(transaction=False)
            for payload in batch:
                pipeline.publish(CHANNEL, payload)
            pipeline.execute()
        except (RedisError, OSError, ValueError) as error:
            with self._changed:
                # What has gathered meanwhile would wait as long again, and be no news by then.
                self._dropped += len(batch) + len(self._waiting)
                self._waiting.clear()
                if not self._is_down:
                    self._is_down = True
                    log.warning("broadcast_down", reason=type(error).__name__, dropped=self._dropped)
        else:
            if self._is_down:
                self._is_down = False
                log.info("broadcast_back", dropped=self._dropped)
                self._dropped = 0


def _sender_of(url: str) -> Sender:
    global _sender
    with _lock:
        if _sender is None or _sender.url != url:
            _sender = Sender(url)
        return _sender


def _forget_sender() -> None:
    """A forked child has neither the thread nor, for certain, a free lock."""
    global _lock, _sender
    _lock, _sender = threading.Lock(), None


os.register_at_fork(after_in_child=_forget_sender)
# A command that ends right after its change still gets its message out.
atexit.register(flush, _EXIT_TIMEOUT)
