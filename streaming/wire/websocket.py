"""uvicorn's WebSocket protocol with frames by callback, bounds on what one client can do, and an end that always comes.

Room: streaming.wire. The handshake, the scope and the denial of a handshake are uvicorn's; from accept on everything is
done here. An application finds the connection in its scope (``connection_of``) and may ``attach`` to it after accept:
messages then come by callback, without a queue and a task switch each, and ``send_now``, ``end``, ``pause`` and
``resume`` act at once. Any other ASGI application gets the usual receive and send.
"""

from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any

import structlog
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from streaming.core.throttle import TokenBucket
from streaming.wire.frames import (
    ABUSE,
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameReader,
    encode_close,
    encode_frame,
)
from streaming.wire.http import bare_answer
from streaming.wire.outbox import Outbox

log = structlog.get_logger(__name__)

EXTENSION = "gateway.connection"
_INTERNAL_ERROR = 1011
_RESTART = 1012
# Bytes in the transport's buffer from which on the peer counts as one that does not read.
_WRITE_BUFFER_SIZE = 16_384
# Bytes that are taken from a peer whose connection is not accepted yet or has failed.
_LINGER_MAX_SIZE = 1_048_576


class GatewayWebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection; all times are seconds of the loop's clock."""

    # Set once by the server before it listens; bytes, seconds, counts and counts a second.
    outbound_max_size = 1_048_576
    # After a close frame the peer has this long to answer it; then the connection is aborted.
    close_grace = 3.0
    # A connection that its peer has ended, or broken the rules of, is ended after this long at the latest, however much
    # the application has to say yet.
    close_patience = 1.0
    # Frames of one message. A legal message may have as many as it has bytes; real clients send one.
    fragment_limit = 1_024
    # Pings and pongs; five seconds' worth may come at once.
    control_rate_limit = 20.0
    # Frames that are read before other connections have their turn.
    read_turn_limit = 64

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        # From accept on.
        self._reader: FrameReader | None = None
        self._has_begun = False
        self._on_message: Callable[[bytes | str], None] | None = None
        self._on_slow: Callable[[], None] | None = None
        self._on_abuse: Callable[[str], None] | None = None
        # What the client sent before it was accepted, although it has to wait for that.
        self._early = b""
        self._control: TokenBucket | None = None
        self._paused = False
        self._is_reading = True
        self._turn_is_due = False
        # A close frame has been written, or has come.
        self._ended = False
        # Nothing is parsed any more; this many bytes have been dropped since.
        self._is_deaf = False
        self._dropped_size = 0
        # How the connection ends, while the application may still answer what came before that.
        self._farewell: Callable[[], None] | None = None
        self._farewell_timer: TimerHandle | None = None
        self._peer_has_closed = False
        # The ping that is answered once the peer reads again.
        self._owed_pong: bytes | None = None
        # The last time anything came from the peer (0: nothing since accept), and the ping of ours that it has not
        # answered yet (0: none).
        self.heard_at = 0.0
        self.ping_sent_at = 0.0
        # What waits for a peer that does not read.
        self._outbox: Outbox | None = None
        # Since when the peer has not taken what waits for it (0: it has).
        self.stalled_at = 0.0

    # --- For the application -----------------------------------------------------------------------------------------

    def attach(
        self, on_message: Callable[[bytes | str], None], on_slow: Callable[[], None], on_abuse: Callable[[str], None]
    ) -> None:
        """From here on messages go to ``on_message``; call it right after accept. No callback may wait.

        Text that is not UTF-8 comes as ``surrogateescape`` makes it, and the end follows. ``on_slow`` is called once
        when more than ``outbound_max_size`` bytes wait for the peer; ``on_abuse``, with the reason, before the end of a
        peer that floods with control frames or fragments. When the peer says goodbye or breaks the rules, ``receive``
        gives the disconnect, and what is sent up to ``answer_close`` still goes out.
        """
        self._on_message, self._on_slow, self._on_abuse = on_message, on_slow, on_abuse
        if self._reader is not None:
            self._reader.deliver = on_message
        self._read_on()

    def send_now(self, data: bytes | str) -> None:
        """Writes one message; dropped when the connection is ending."""
        if self._ended or self.disconnected:
            return
        frame = encode_frame(BINARY, data) if isinstance(data, bytes) else encode_frame(TEXT, data.encode())
        if not self.stalled_at:
            self.transport.write(frame)
            return
        if self._outbox is None:
            self._outbox = Outbox()
        self._outbox.put(frame)
        if self._on_slow and self._outbox.size + _WRITE_BUFFER_SIZE > self.outbound_max_size:
            on_slow, self._on_slow = self._on_slow, None
            on_slow()

    def ping_now(self) -> None:
        if not (self._ended or self.disconnected):
            self.ping_sent_at = self.loop.time()
            self.transport.write(encode_frame(PING, b""))

    @property
    def is_paused(self) -> bool:
        return self._paused

    def pause(self) -> None:
        """Stops reading; what has arrived is kept until ``resume``."""
        if not self._paused and not self._ended:
            self._paused = True
            self._halt()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            if self.ping_sent_at:
                # The pong may have waited unread all the time.
                self.ping_sent_at = self.loop.time()
            self._read_on()

    @property
    def is_parting(self) -> bool:
        """Whether nothing more is read, and the close frame waits for the last answers."""
        return self._farewell is not None and not self._ended and not self.disconnected

    def answer_close(self) -> None:
        """Ends a connection that is parting; on any other it does nothing."""
        if self._farewell_timer is not None:
            self._farewell_timer.cancel()
        if self.is_parting:
            farewell, self._farewell = self._farewell, None
            if farewell is not None:
                farewell()

    def end(self, code: int, reason: str) -> None:
        """Sends the close frame and leaves the peer ``close_grace`` seconds to answer it."""
        if self._ended or self.disconnected:
            return
        self._ended = self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self._write_outbox()
        self.transport.write(encode_close(code, reason))
        if self._peer_has_closed:
            self._close_transport()
            return
        # Set, so that uvicorn leaves the end to this timer when the application returns.
        self.close_timer = self.loop.call_later(self.close_grace, self.transport.abort)
        self._paused = self.read_paused = False
        # The close frame of the peer may stand behind messages that nobody takes any more.
        if self._reader is not None:
            self._reader.deliver = _ignore
        self._read_on()

    # --- From uvicorn: the handshake ---------------------------------------------------------------------------------

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            # The task that runs the application starts on the next turn of the loop, so it sees this.
            self.scope["extensions"][EXTENSION] = {"connection": self}

    async def send(self, message: Any) -> None:
        if not self._has_begun:
            await super().send(message)
            if message["type"] == "websocket.accept" and self.handshake_complete:
                self._begin()
            return
        await self.writable.wait()
        if self.disconnected or self._ended:
            raise ClientDisconnected
        if message["type"] == "websocket.send":
            data = message.get("bytes")
            self.send_now(message["text"] if data is None else data)
        elif message["type"] == "websocket.close":
            self.end(message.get("code", 1000), message.get("reason") or "")
        else:
            raise RuntimeError(f"after accept come websocket.send and websocket.close, not {message['type']!r}")

    async def receive(self) -> Any:
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._read_on()
        return message

    def send_500_response(self) -> None:
        """uvicorn calls it when the application has failed."""
        if self._has_begun:
            self.end(_INTERNAL_ERROR, "")
        else:
            super().send_500_response()

    def _begin(self) -> None:
        self._has_begun = True
        self.transport.set_write_buffer_limits(high=_WRITE_BUFFER_SIZE)
        self._reader = FrameReader(
            self,
            self._enqueue,
            message_size_limit=self.config.ws_max_size or 1 << 62,
            fragment_limit=self.fragment_limit,
        )
        # The handshake is over: an idle connection should not hold its parts.
        del self.conn, self.request, self.response
        if self._early:
            # Read on the next turn, when the application has attached; what comes meanwhile is behind it.
            self._reader.feed(self._early)
            self._early = b""
            self.heard_at = self.loop.time()
            self._read_on()

    # --- From the transport ------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            self._receive_early(data)
            return
        self.heard_at = self.loop.time()
        if self._is_deaf:
            self._drop(len(data))
            return
        reader.feed(data)
        if not self._turn_is_due:
            self._read(reader)

    def _receive_early(self, data: bytes) -> None:
        if not self.handshake_initiated:
            # The upgrade request, which uvicorn hands over in one piece.
            super().data_received(data)
            if self.conn.handshake_exc is not None and not self.transport.is_closing():
                # Not one that the parser takes: too large a header, a body, another method than GET.
                self.transport.write(bare_answer(b"400 Bad Request"))
                self.transport.close()
        elif not self._has_begun:
            self._early += data
            if len(self._early) > _LINGER_MAX_SIZE:
                self.transport.abort()

    def _read(self, reader: FrameReader) -> None:
        """One turn: reads frames up to the limit, and the socket again when all that came has been read."""
        try:
            more = reader.run(self.read_turn_limit)
        except FrameError as error:
            self._refuse(error)
            return
        except Exception:
            log.exception("message_crashed")
            self._fail(_INTERNAL_ERROR, "")
            return
        if self._is_deaf or self._paused or self.read_paused:
            return
        if more:
            self._stop_reading()
            self._read_on()
        else:
            self._start_reading()

    def _start_reading(self) -> None:
        if not self._is_reading and not self.transport.is_closing():
            self._is_reading = True
            self.transport.resume_reading()

    def _stop_reading(self) -> None:
        if self._is_reading and not self.transport.is_closing():
            self._is_reading = False
            self.transport.pause_reading()

    def _read_on(self) -> None:
        """Continues on the next turn of the loop, behind the other connections."""
        if self._reader is not None and not self._turn_is_due:
            self._turn_is_due = True
            self.loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn_is_due = False
        reader = self._reader
        if reader is not None and not (self._is_deaf or self._paused or self.read_paused):
            reader.halted = False
            self._read(reader)

    def _drop(self, size: int) -> None:
        """What comes behind the end; then the window of a peer that goes on sending fills up."""
        self._dropped_size += size
        if self._dropped_size > _LINGER_MAX_SIZE:
            self._stop_reading()

    def _enqueue(self, data: bytes | str) -> None:
        """For an application that takes events: one message at a time, the socket waits for it."""
        if isinstance(data, str):
            self.queue.put_nowait({"type": "websocket.receive", "text": data})
        else:
            self.queue.put_nowait({"type": "websocket.receive", "bytes": data})
        self.read_paused = True
        self._halt()

    def _halt(self) -> None:
        if self._reader is not None:
            self._reader.halted = True
        self._stop_reading()

    # --- From the reader ---------------------------------------------------------------------------------------------

    def take_invalid_text(self, data: bytes) -> None:
        if self._on_message is not None and not self._ended:
            # The message gets its answer and its record first.
            self._on_message(data.decode(errors="surrogateescape"))

    def take_ping(self, payload: bytes) -> None:
        self._count_control()
        if self._ended:
            return
        if self.stalled_at:
            # Only the last one has to be answered (RFC 6455, 5.5.3), and nothing while the peer does not read.
            self._owed_pong = payload
        else:
            self.transport.write(encode_frame(PONG, payload))

    def take_pong(self) -> None:
        # Any pong will do: some terminals answer with an empty one whatever the ping held.
        self.ping_sent_at = 0.0
        self._count_control()

    def take_close(self, code: int, reason: str, payload: bytes) -> None:
        self._is_deaf = self._peer_has_closed = True
        if self._ended:
            self._close_transport()
        else:
            self._part(lambda: self._echo_close(payload), code, reason)

    def _echo_close(self, payload: bytes) -> None:
        self._ended = self.close_sent = True
        self._write_outbox()
        # The same code, without the reason that the peer knows.
        self.transport.write(encode_frame(CLOSE, payload[:2]))
        self._close_transport()

    def _part(self, farewell: Callable[[], None], code: int, reason: str) -> None:
        """Reads no more; ``farewell`` ends the connection when what came before has its answers."""
        self._is_deaf = True
        self._farewell = farewell
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        if self._on_message is None:
            self.answer_close()
        else:
            self._farewell_timer = self.loop.call_later(self.close_patience, self.answer_close)

    def _count_control(self) -> None:
        now = self.loop.time()
        if self._control is None:
            self._control = TokenBucket(self.control_rate_limit, 5 * self.control_rate_limit, now)
        if not self._control.take(now):
            raise FrameError(ABUSE, f"more than {self.control_rate_limit:g} control frames a second")

    # --- Ends --------------------------------------------------------------------------------------------------------

    def _refuse(self, error: FrameError) -> None:
        if error.code == ABUSE and self._on_abuse is not None and not self._ended:
            # It says goodbye in its own words before the close frame.
            self._on_abuse(error.reason)
        if self._ended:
            self._fail(error.code, error.reason)
        else:
            self._part(lambda: self._fail(error.code, error.reason), error.code, error.reason)

    def _fail(self, code: int, reason: str) -> None:
        """Ends the connection, but drops what still arrives for a while: closing a socket with unread bytes in it sends
        a reset, which can overtake the close frame, and the client would never learn the reason."""
        self.end(code, reason)
        self._is_deaf = True
        if self._reader is not None:
            self._reader.forget()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self._start_reading()

    def _close_transport(self) -> None:
        if self.close_timer is not None:
            self.close_timer.cancel()
        # close() waits for a flush that a peer which does not read never allows.
        self.close_timer = self.loop.call_later(self.close_grace, self.transport.abort)
        self.transport.close()

    def shutdown(self) -> None:
        if not self._has_begun:
            super().shutdown()
        else:
            self.end(_RESTART, "")
            self._close_transport()

    def pause_writing(self) -> None:
        self.stalled_at = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.stalled_at = 0.0
        self._write_outbox()
        if self._owed_pong is not None and not self._ended:
            self.transport.write(encode_frame(PONG, self._owed_pong))
        self._owed_pong = None
        super().resume_writing()

    def _write_outbox(self) -> None:
        if self._outbox is not None and self._outbox.size:
            self.transport.write(self._outbox.take())

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's own contract, which uvicorn does not use
        """Whether the connection stays open for writing: a peer may say goodbye and send no more, and yet read."""
        return self.is_parting

    def connection_lost(self, exc: Exception | None) -> None:
        if self._farewell_timer is not None:
            self._farewell_timer.cancel()
        self._farewell = None
        self._reader = self._on_message = self._on_slow = self._on_abuse = None
        super().connection_lost(exc)


def connection_of(scope: dict[str, Any]) -> GatewayWebSocketProtocol | None:
    """The connection behind an ASGI scope, None on a server that is not ours."""
    extension = (scope.get("extensions") or {}).get(EXTENSION)
    return None if extension is None else extension["connection"]


def _ignore(_data: bytes | str) -> None:
    """Takes messages that come too late."""
