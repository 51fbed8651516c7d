"""uvicorn's HTTP protocol with bounds on what a request may hold. Room: streaming.wire.

uvicorn waits for ever for the end of a request's headers and, with httptools, takes any number of them; Django stores a
whole body, of any size, before a view sees the request.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# Bytes: of a body where its path has no bound of its own, and what is read and dropped of one that is too large, so
# that its sender comes to read the answer.
BODY_MAX_SIZE = 1_048_576
DROP_MAX_SIZE = 16_777_216
# Seconds for a body, and those that are left to a peer that was refused in the middle of it.
BODY_TIMEOUT = 30.0
_LINGER = 5.0
# Seconds for which a peer may leave its answer unread.
STALL_TIMEOUT = 10.0
_HEAD_END = b"\r\n\r\n"
# True in the scope of a request whose body is not whole; there before the application has the end of it.
TRIMMED = "body_trimmed"


@dataclass(frozen=True, slots=True)
class BodyBound:
    """What the application behind a path gets of a body.

    ``size``: bytes. ``is_trimmed``: more is dropped, ``scope[TRIMMED]`` is set, and the application says so itself.
    Otherwise the request ends with 413 here.
    """

    size: int = BODY_MAX_SIZE
    is_trimmed: bool = False


_USUAL = BodyBound()


def bare_answer(status: bytes, text: str = "") -> bytes:
    """The last answer on a connection; ``status``: code and phrase, ``text``: a line for a person, "" for none."""
    body = text.encode()
    kind = b"content-type: text/plain; charset=utf-8\r\n" if body else b""
    size = str(len(body)).encode()
    return b"HTTP/1.1 %b\r\nconnection: close\r\n%bcontent-length: %b\r\n\r\n%b" % (status, kind, size, body)


class BoundedHttpProtocol(HttpToolsProtocol):
    """Ends a connection whose request's headers or body are not complete in time, or too large."""

    # Seconds and bytes; set once by the server before it listens.
    handshake_timeout = 5.0
    handshake_max_size = 32_768
    # Path, without slashes at its end -> the bound of a body that is sent there, where it is not the usual one.
    body_bounds: ClassVar[Mapping[str, BodyBound]] = {}
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
        self._body_bound = _USUAL
        # Headers are over: what comes by their name now stands behind the body, where anybody may have put it.
        self._is_head_over = False
        # Bytes of a body since the last that were content.
        self._framing_size = 0
        # Bytes that nobody gets any more.
        self._dropped_size = 0

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
        if not self._is_cut and self._is_between_requests():
            # Empty lines before a request are none of it (RFC 9112, 2.2): who sends them has nothing to ask.
            data = data.lstrip(b"\r\n")
        if self._is_cut:
            self._drop(len(data))
        elif data and not self.transport.is_closing():
            protocol = cast(asyncio.Protocol, self.transport.get_protocol())
            if protocol is self:
                self._read_on(data)
            else:
                protocol.data_received(data)

    def _read_on(self, data: bytes) -> None:
        """What comes after a head. The parser gathers a trailer of any size, and takes any number of them."""
        self._framing_size += len(data)
        super().data_received(data)
        is_ours = self.transport.get_protocol() is self
        if is_ours and self._is_head_over and self._framing_size > self.handshake_max_size:
            self._cut(b"431 Request Header Fields Too Large")

    def _drop(self, size: int) -> None:
        self._dropped_size += size
        if self._dropped_size > DROP_MAX_SIZE and not self.transport.is_closing():
            self.transport.pause_reading()

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

    def _is_between_requests(self) -> bool:
        return self._handshake_timer is None and not self._is_head_over and self.transport.get_protocol() is self

    def _is_head_due(self) -> bool:
        return self._handshake_timer is not None

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer is never a header (RFC 9110, 6.5.1): proxies set and remove headers, and let trailers pass.
        if not self._is_head_over:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._is_head_over = True
        self._framing_size = 0
        self._body_timer = self.loop.call_later(BODY_TIMEOUT, self._too_slow)
        super().on_headers_complete()
        # An upgrade has no path yet, and no body.
        self._body_bound = self.body_bounds.get(self.scope.get("path", "").rstrip("/"), _USUAL)

    def on_chunk_header(self) -> None:
        """From the parser: the size of the next chunk."""
        self._framing_size = 0

    def on_message_complete(self) -> None:
        self._is_head_over = False
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        self._framing_size = 0
        if self._is_cut:
            return
        room = max(self._body_bound.size - self._body_size, 0)
        self._body_size += len(body)
        if len(body) <= room:
            super().on_body(body)
        elif self._body_bound.is_trimmed and self._body_size <= self._body_bound.size + DROP_MAX_SIZE:
            cast(dict[str, Any], self.scope)[TRIMMED] = True
            if room:
                super().on_body(body[:room])
        else:
            self._cut(
                b"413 Content Too Large",
                f"The body of this request is too large: at most {self._body_bound.size} bytes are taken here.\n",
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_head_over = False
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

    def _cut(self, status: bytes, text: str = "") -> None:
        if self._is_cut:
            return
        self._is_cut = True
        self.cut[int(status[:3])] += 1
        if self.transport.is_closing():
            return
        # None before the first request, although uvicorn says otherwise.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        is_answering = cycle is not None and not cycle.response_complete
        if is_answering and cycle is not None:
            # The application hears that its client has gone, and what it says is dropped.
            cycle.disconnected = True
            cycle.message_event.set()
        if is_answering and cycle is not None and cycle.response_started:
            # Two answers to one request would be read as answers to two.
            self.transport.close()
        else:
            self.transport.write(bare_answer(status, text))
            if not self.transport.can_write_eof():
                self.transport.close()
            else:
                # Closing a socket with unread bytes in it sends a reset, which can overtake the answer.
                self.transport.write_eof()
                if self._is_head_over:
                    self.flow.resume_reading()
                else:
                    self.transport.pause_reading()
        # close() waits for a flush that a peer which does not read never allows.
        self.loop.call_later(_LINGER if self._is_head_over else 1.0, self.transport.abort)
