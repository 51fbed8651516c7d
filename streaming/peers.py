"""The client's end of a connection, behind the core's Peer port. Room: streaming (shell)."""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from streaming.core.codes import CloseCode
from streaming.wire.websocket import GatewayWebSocketProtocol

# Seconds that one write may take before its peer counts as stuck.
_STUCK_AFTER = 3.0
Send = Callable[[dict[str, Any]], Awaitable[None]]


class ConnectionPeer(Protocol):
    """What the runtime asks of a peer beyond the core's port."""

    def send(self, data: bytes | str) -> None: ...
    def close(self, code: CloseCode, reason: str) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...

    def check(self, ping_interval: float, pong_timeout: float, outbound_timeout: float) -> CloseCode | None:
        """Called each second: pings when it is time; the code to end with when the peer is gone or does not read."""

    def abort(self) -> None:
        """Ends the connection without waiting for a peer that does not take what is sent."""


class WirePeer:
    """A connection of our own server: every call acts at once."""

    __slots__ = ("_pinged_at", "_wire", "pause", "resume", "send")

    def __init__(self, wire: GatewayWebSocketProtocol) -> None:
        self._wire = wire
        # Never: the first look, within a second of accept, pings, and a client that says nothing at all is found soon.
        self._pinged_at = -math.inf
        self.send = wire.send_now
        self.pause = wire.pause
        self.resume = wire.resume

    def close(self, code: CloseCode, reason: str) -> None:
        self._wire.end(code, reason)
        if self._wire.stalled_at:
            # The close frame cannot get through to a peer that does not read; nothing is gained by waiting.
            self._wire.transport.abort()

    def abort(self) -> None:
        self._wire.transport.abort()

    def check(self, ping_interval: float, pong_timeout: float, outbound_timeout: float) -> CloseCode | None:
        wire = self._wire
        now = wire.loop.time()
        if wire.stalled_at and now - wire.stalled_at > outbound_timeout:
            return CloseCode.SLOW_CONSUMER
        if wire.ping_sent_at:
            if not wire.is_paused and now - wire.ping_sent_at > pong_timeout:
                # Data but no pong, or answers that it does not take: the peer is there and does not read.
                is_slow = wire.stalled_at or wire.heard_at > wire.ping_sent_at
                return CloseCode.SLOW_CONSUMER if is_slow else CloseCode.IDLE_TIMEOUT
        elif now - self._pinged_at >= ping_interval:
            self._pinged_at = now
            wire.ping_now()
        return None


class AsgiPeer:
    """A connection of any other ASGI server: a queue and a task write to it, its own keep-alive finds it dead."""

    def __init__(self, send: Send, outbound_max_size: int, on_slow: Callable[[], None]) -> None:
        self._send = send
        self._outbound_max_size = outbound_max_size
        # Called once.
        self._on_slow: Callable[[], None] | None = on_slow
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._end: dict[str, Any] | None = None
        self._size = 0
        self._writing_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._reading = asyncio.Event()
        self._reading.set()
        self._task = self._loop.create_task(self._write())

    def send(self, data: bytes | str) -> None:
        self._size += len(data)
        if self._size > self._outbound_max_size:
            on_slow, self._on_slow = self._on_slow, None
            if on_slow is not None:
                on_slow()
            return
        self._queue.put_nowait({"type": "websocket.send", "bytes" if isinstance(data, bytes) else "text": data})

    def close(self, code: CloseCode, reason: str) -> None:
        # At most 123 bytes after the code (RFC 6455, 5.5 and 5.5.1).
        reason = reason.encode()[:123].decode(errors="ignore")
        self._end = {"type": "websocket.close", "code": int(code), "reason": reason}
        if self._writing_since and self._loop.time() - self._writing_since > _STUCK_AFTER:
            # The close would wait behind a message that never gets through.
            self.abort()
            return
        self._queue.put_nowait(self._end)
        self._queue.put_nowait(None)
        # Whoever waits to read must see the end of the connection.
        self._reading.set()

    def abort(self) -> None:
        """Drops what waits, so that the close is the next thing the server is given."""
        self._task.cancel()
        self._queue = asyncio.Queue()
        self._queue.put_nowait(self._end or {"type": "websocket.close", "code": int(CloseCode.INTERNAL_ERROR)})
        self._queue.put_nowait(None)
        self._task = self._loop.create_task(self._write())
        self._reading.set()

    def pause(self) -> None:
        if self._end is None:
            self._reading.clear()

    def resume(self) -> None:
        self._reading.set()

    async def may_read(self) -> None:
        """Returns when the session wants another message."""
        await self._reading.wait()

    def check(self, _ping_interval: float, _pong_timeout: float, outbound_timeout: float) -> CloseCode | None:
        stuck = self._writing_since and self._loop.time() - self._writing_since > outbound_timeout
        return CloseCode.SLOW_CONSUMER if stuck else None

    async def drain(self) -> None:
        """Returns when all that was sent is written, the close included; call it after ``close``."""
        await self._task

    async def finish(self) -> None:
        """Ends the writer; what it still has goes nowhere, since the connection is gone."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _write(self) -> None:
        with contextlib.suppress(OSError):
            while (message := await self._queue.get()) is not None:
                self._writing_since = self._loop.time()
                await self._send(message)
                self._writing_since = 0.0
                self._size -= len(message.get("bytes") or message.get("text") or b"")
