"""uvicorn's HTTP protocol with bounds on what a request may hold. Room: streaming.wire.

uvicorn waits for ever for the end of a request's headers and, with httptools, takes any number of them; Django stores a
whole body, of any size, before a view sees the request.
"""

import asyncio
import time
from collections import Counter
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# Bytes and seconds; what the API and the admin's forms take is far below.
BODY_MAX_SIZE = 1_048_576
BODY_TIMEOUT = 30.0
# Seconds for which a peer may leave its answer unread.
STALL_TIMEOUT = 10.0
_HEAD_END = b"\r\n\r\n"


def bare_answer(status: bytes) -> bytes:
    """The last answer on a connection, without a body; ``status``: code and phrase."""
    return b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedHttpProtocol(HttpToolsProtocol):
    """Ends a connection whose request's headers or body are not complete in time, or too large."""

    # Seconds and bytes; set once by the server before it listens.
    handshake_timeout = 5.0
    handshake_max_size = 32_768
    # Seconds of the monotonic clock: when the last connection of this process came.
    connected_at: ClassVar[float] = 0.0
    # Status -> requests of this process that were cut off.
    cut: ClassVar[Counter[int]] = Counter()

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._handshake_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        # The last bytes of a head that has not ended, in which its end may have begun.
        self._head_tail = b""
        self._is_cut = False
        self._head_size = 0
        self._body_size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        BoundedHttpProtocol.connected_at = time.monotonic()
        self._handshake_timer = self.loop.call_later(self.handshake_timeout, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        for timer in (self._body_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        while data and self._is_head_due() and not self._is_cut:
            # Up to the head's end and no further: uvicorn drops what follows an upgrade in the same piece.
            seen = self._head_tail + data
            blank_line = seen.find(_HEAD_END)
            end = len(data) if blank_line < 0 else blank_line + len(_HEAD_END) - len(self._head_tail)
            head, data = data[:end], data[end:]
            self._head_tail = seen[: len(self._head_tail) + end][1 - len(_HEAD_END) :]
            self._head_size += len(head)
            if self._head_size > self.handshake_max_size:
                self._stop_timer()
                self._cut(b"431 Request Header Fields Too Large")
                return
            super().data_received(head)
        if data and not self._is_cut and not self.transport.is_closing():
            protocol = cast(asyncio.Protocol, self.transport.get_protocol())
            if protocol is self:
                super().data_received(data)
            else:
                protocol.data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALL_TIMEOUT, self._give_up)

    def resume_writing(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        super().resume_writing()

    def _give_up(self) -> None:
        """The peer has not read its answer for too long; close() would wait for it as well."""
        if self.transport.get_protocol() is self:
            self.transport.abort()

    def _is_head_due(self) -> bool:
        return self._handshake_timer is not None

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._body_timer = self.loop.call_later(BODY_TIMEOUT, self._too_slow)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self._body_size <= BODY_MAX_SIZE:
            super().on_body(body)
        elif not self.transport.is_closing():
            self._cut(b"413 Content Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._body_size = 0
        if self._handshake_timer is None:
            # A later request on a connection that is kept alive.
            self._head_size, self._head_tail = 0, b""
            self._handshake_timer = self.loop.call_later(self.handshake_timeout, self._too_slow)

    def _stop_timer(self) -> None:
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None

    def _too_slow(self) -> None:
        self._handshake_timer = None
        self._cut(b"408 Request Timeout")

    def _cut(self, status: bytes) -> None:
        if self._is_cut:
            return
        self._is_cut = True
        self.cut[int(status[:3])] += 1
        if not self.transport.is_closing():
            self.transport.write(bare_answer(status))
            # None before the first request, although uvicorn says otherwise.
            cycle = cast("RequestResponseCycle | None", self.cycle)
            if (cycle is not None and not cycle.response_complete) or not self.transport.can_write_eof():
                self.transport.close()
            else:
                # Closing a socket with unread bytes in it sends a reset, which can overtake the answer.
                self.transport.write_eof()
                self.transport.pause_reading()
            # close() waits for a flush that a peer which does not read never allows.
            self.loop.call_later(1.0, self.transport.abort)
