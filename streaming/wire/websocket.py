"""uvicorn's WebSocket protocol with frames by callback and an end that always comes. Room: streaming.wire.

An application finds the connection in its scope, ``scope["extensions"]["gateway.connection"]["connection"]``, and may
``attach`` to it after accept: messages then come by callback, without a queue and a task switch each, and ``send_now``,
``end``, ``pause`` and ``resume`` act at once. Any other ASGI application gets the usual receive and send.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

try:
    from websockets.speedups import apply_mask
except ImportError:  # a build without its C part
    from websockets.utils import apply_mask

EXTENSION = "gateway.connection"
_PING = b"\x89\x00"
_WHOLE = (0x82, 0x81)
_BINARY = 0x82


class GatewayWebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection; all times are seconds of the loop's clock."""

    # Set once by the server before it listens; bytes and seconds.
    outbound_max_size = 1_048_576
    # After a close frame the peer has this long to answer it; then the connection is aborted.
    close_grace = 3.0

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._on_message: Callable[[bytes | str], None] | None = None
        self._on_slow: Callable[[], None] | None = None
        self._held: deque[bytes | str] = deque()
        self._paused = False
        self._ended = False
        self._upgraded = False
        self._in_fragments = False
        # The beginning of a frame whose rest has not come, and how many bytes it takes to go on with it.
        self._tail = bytearray()
        self._wanted = 0
        # The last time anything came from the peer, and the ping it has not answered yet (0: none).
        self.heard_at = 0.0
        self.ping_sent_at = 0.0
        # Since when the peer has not taken what waits for it (0: it has).
        self.stalled_at = 0.0

    # --- For the application -----------------------------------------------------------------------------------------

    def attach(self, on_message: Callable[[bytes | str], None], on_slow: Callable[[], None]) -> None:
        """From here on whole messages go to ``on_message``; call it right after accept.

        ``on_slow`` is called once when more than ``outbound_max_size`` bytes wait for the peer.
        """
        self._on_message = on_message
        self._on_slow = on_slow
        self.heard_at = self.loop.time()
        # What arrived between accept and now.
        waiting = []
        while not self.queue.empty():
            waiting.append(self.queue.get_nowait())
        for event in waiting:
            if event["type"] == "websocket.receive":
                self._deliver(event.get("bytes") or event.get("text") or b"")
            else:
                self.queue.put_nowait(event)
        if self.read_paused and not self._paused:
            self.read_paused = False
            self.transport.resume_reading()

    def send_now(self, data: bytes | str) -> None:
        """Writes one message; dropped when the connection is ending."""
        if self._ended or self.close_sent or self.disconnected:
            return
        payload = data if isinstance(data, bytes) else data.encode()
        first = 0x82 if isinstance(data, bytes) else 0x81
        size = len(payload)
        if size < 126:
            head = bytes((first, size))
        elif size < 65_536:
            head = bytes((first, 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((first, 127)) + size.to_bytes(8, "big")
        self.transport.write(head + payload)
        if self.stalled_at and self.transport.get_write_buffer_size() > self.outbound_max_size and self._on_slow:
            on_slow, self._on_slow = self._on_slow, None
            on_slow()

    def ping_now(self) -> None:
        if not (self._ended or self.close_sent or self.disconnected):
            self.ping_sent_at = self.loop.time()
            self.transport.write(_PING)

    @property
    def is_paused(self) -> bool:
        return self._paused

    def pause(self) -> None:
        """Stops reading; messages of the chunk at hand are held until ``resume``."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        self._paused = False
        while self._held and not self._paused:
            self._deliver(self._held.popleft())
        if not self._paused and not self.transport.is_closing():
            if self.ping_sent_at:
                # The pong may have waited unread all the time.
                self.ping_sent_at = self.loop.time()
            self.transport.resume_reading()

    def end(self, code: int, reason: str) -> None:
        """Sends the close frame and leaves the peer ``close_grace`` seconds to answer it."""
        if self._ended or self.close_sent or self.disconnected:
            return
        self._ended = True
        # At most 123 bytes after the code (RFC 6455, 5.5 and 5.5.1).
        reason = reason.encode()[:123].decode(errors="ignore")
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._held.clear()
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        # Set, so that uvicorn leaves the end to this timer when the application returns.
        self.close_timer = self.loop.call_later(self.close_grace, self.transport.abort)

    # --- From uvicorn ------------------------------------------------------------------------------------------------

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            # The task that runs the application starts on the next turn of the loop, so it sees this.
            self.scope["extensions"][EXTENSION] = {"connection": self}

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.loop.time()
        if not self._upgraded:
            # The upgrade request, which uvicorn hands over in one piece.
            self._upgraded = True
            super().data_received(data)
        elif self._tail:
            self._tail += data
            if len(self._tail) >= self._wanted:
                data = bytes(self._tail)
                self._tail.clear()
                self._take_frames(data)
        else:
            self._take_frames(data)

    def _take_frames(self, data: bytes) -> None:
        """Walks over the frames of a chunk.

        Whole unfragmented messages, nearly all there ever are, are unmasked and delivered here; every other frame goes
        to the parser of ``websockets``, always whole, so that the walk and the parser agree on where frames begin.
        """
        position, end, wanted = 0, len(data), 2
        while not self._ended:
            wanted = 2
            if end - position < wanted:
                break
            first, second = data[position], data[position + 1]
            mask_at, size = position + 2, second & 0x7F
            if size >= 126:
                width = 2 if size == 126 else 8
                wanted += width
                if end - position < wanted:
                    break
                size = int.from_bytes(data[mask_at : mask_at + width], "big")
                mask_at += width
            if second < 0x80 or size > self.config.ws_max_size:
                # No mask, or more than may be sent: the parser knows the close code.
                self._parse(data[position:])
                return
            body_at = mask_at + 4
            after = body_at + size
            wanted = after - position
            if after > end:
                break
            if first in _WHOLE and not self._in_fragments:
                if not self.close_sent:
                    self.frames = [apply_mask(data[body_at:after], data[mask_at:body_at])]
                    self.curr_msg_data_type = "bytes" if first == _BINARY else "text"
                    self.send_receive_event_to_app()
            else:
                if first & 0x08 == 0:
                    self._in_fragments = first < 0x80
                self._parse(data[position:after])
            position = after
        if position < end and not self._ended:
            self._tail += data[position:]
            self._wanted = wanted

    def _parse(self, data: bytes) -> None:
        super().data_received(data)

    def send_receive_event_to_app(self) -> None:
        if self._on_message is None:
            super().send_receive_event_to_app()
            return
        data: bytes | str = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self._ended or self.close_sent:
            return
        if self.curr_msg_data_type == "text":
            try:
                data = data.decode()  # type: ignore[union-attr]  # frames hold bytes
            except UnicodeDecodeError:
                # The message gets its answer and its record first; RFC 6455 (8.1) then asks for the end.
                self._deliver(data.decode(errors="surrogateescape"))  # type: ignore[union-attr]
                self.conn.fail(1007, "text that is not UTF-8")
                self.handle_parser_exception()
                return
        self._deliver(data)

    def _deliver(self, data: bytes | str) -> None:
        if self._paused:
            self._held.append(data)
        elif self._on_message is not None:
            self._on_message(data)

    def handle_pong(self, event: Frame) -> None:
        # Any pong will do: some terminals answer with an empty one whatever the ping held.
        self.ping_sent_at = 0.0

    def pause_writing(self) -> None:
        self.stalled_at = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.stalled_at = 0.0
        super().resume_writing()

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._abort_later()

    def handle_parser_exception(self) -> None:
        """Fails the connection, but reads on for a while: closing a socket with unread bytes in it sends a reset,
        which can overtake the close frame, and the client would never learn the reason."""
        if self._ended:
            return
        self._ended = True
        sent = self.conn.close_sent
        code, reason = (sent.code, sent.reason) if sent is not None else (1002, "")
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self._paused or self.read_paused:
            self._paused = self.read_paused = False
            self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.close_timer = self.loop.call_later(self.close_grace, self.transport.abort)

    def _abort_later(self) -> None:
        self.loop.call_later(self.close_grace, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_message = self._on_slow = None
        self._held.clear()
        super().connection_lost(exc)


def connection_of(scope: dict[str, Any]) -> GatewayWebSocketProtocol | None:
    """The connection behind an ASGI scope, None on a server that is not ours."""
    extension = (scope.get("extensions") or {}).get(EXTENSION)
    return None if extension is None else extension["connection"]
