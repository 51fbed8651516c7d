"""Reads the frames of a WebSocket client (RFC 6455), without a socket, a clock or a task. Room: streaming.wire.

Bytes go in by ``feed``, messages and control frames come out of ``run`` by calls, a violation as FrameError. What a
client may make it hold is one message up to its limit and the chunk at hand.
"""

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Callable
from typing import Protocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # a build without its C part
    from websockets.utils import apply_mask

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
PROTOCOL_ERROR, INVALID_DATA, TOO_BIG, ABUSE = 1002, 1007, 1009, 4508
_CONTINUATION = 0x0
_OPCODES = frozenset({_CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_WHOLE_TEXT, _WHOLE_BINARY = 0x80 | TEXT, 0x80 | BINARY
_WHOLE = (_WHOLE_BINARY, _WHOLE_TEXT)
# Codes that may stand in a close frame (RFC 6455, 7.4, and IANA's registry); 3000 to 4999 are free for all.
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
# What a fragment or a control frame counts for in a turn, beside itself: they take longer, and floods are made of them.
_RARE_FRAME_WEIGHT = 3
_Utf8 = getincrementaldecoder("utf-8")


class FrameError(Exception):
    """The connection must be failed with ``code``; nothing more may be read from it."""

    retryable = False

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class FrameTaker(Protocol):
    """Whom a reader tells of everything that is not a valid message."""

    def take_invalid_text(self, data: bytes) -> None:
        """A text message, or the beginning of one, that is not UTF-8; FrameError 1007 follows."""

    def take_ping(self, payload: bytes) -> None: ...

    def take_pong(self) -> None: ...

    def take_close(self, code: int, reason: str, payload: bytes) -> None:
        """The client's close frame, the last thing that is read; ``code`` is 1005 when it holds none."""


class FrameReader:
    """One connection after its handshake. ``deliver`` gets every whole message, bytes or str."""

    __slots__ = (
        "_data", "_decoder", "_fragment_limit", "_fragments", "_message_size_limit", "_parts", "_parts_size",
        "_position", "_tail", "_taker", "_wanted", "deliver", "halted",
    )  # fmt: skip

    def __init__(
        self,
        taker: FrameTaker,
        deliver: Callable[[bytes | str], None],
        *,
        message_size_limit: int,
        fragment_limit: int,
    ) -> None:
        """``message_size_limit``: bytes; ``fragment_limit``: frames of one message."""
        self._taker = taker
        self.deliver = deliver
        self._message_size_limit = message_size_limit
        self._fragment_limit = fragment_limit
        # While set, ``run`` returns before the next frame.
        self.halted = False
        self._data = b""
        self._position = 0
        # The beginning of a frame whose rest has not come, and how many bytes it takes to go on with it.
        self._tail: bytearray | None = None
        self._wanted = 0
        # The message whose last fragment has not come.
        self._parts: list[bytes] | None = None
        self._parts_size = 0
        self._fragments = 0
        self._decoder: IncrementalDecoder | None = None

    def feed(self, data: bytes) -> None:
        """Takes what the socket gave; ``run`` reads it."""
        if self._tail is not None:
            self._tail += data
            if len(self._tail) >= self._wanted:
                self._data, self._tail = bytes(self._tail), None
        elif self._data:
            self._data, self._position = self._data[self._position :] + data, 0
        else:
            self._data = data

    def forget(self) -> None:
        """Drops what has come and was not read: the connection ends, and nothing more will be."""
        self._data, self._position, self._tail, self._parts = b"", 0, None, None

    def run(self, limit: int) -> bool:
        """Reads up to ``limit`` frames, fewer where they are fragments or control frames.

        Returns whether it stopped for the limit or a halt, so that more may be there. Raises FrameError, and whatever
        ``deliver`` raises.
        """
        data, position = self._data, self._position
        end = len(data)
        while True:
            wanted = 2
            if end - position < wanted:
                break
            if self.halted or limit <= 0:
                self._position = position
                return True
            first, second = data[position], data[position + 1]
            size = second & 0x7F
            body = position + 6
            if size > 125:
                width = 2 if size == 126 else 8
                wanted += width
                if end - position < wanted:
                    break
                size = int.from_bytes(data[position + 2 : position + wanted], "big")
                body += width
            if second < 0x80 or first not in _WHOLE or self._parts is not None or size > self._message_size_limit:
                self._check(first, second, size)
            after = body + size
            if after > end:
                wanted = after - position
                break
            payload = apply_mask(data[body:after], data[body - 4 : body])
            position = after
            limit -= 1
            if first == _WHOLE_BINARY:
                self.deliver(payload)
            elif first == _WHOLE_TEXT:
                self.deliver(self._text(payload))
            else:
                self._take(first, payload)
                limit -= _RARE_FRAME_WEIGHT
        self._data, self._position = b"", 0
        if position < end:
            self._tail = bytearray(memoryview(data)[position:])
            self._wanted = wanted
        return False

    def _check(self, first: int, second: int, size: int) -> None:
        """Raises FrameError for a head that no valid frame can have here."""
        opcode = first & 0x0F
        is_control = opcode >= CLOSE
        if opcode not in _OPCODES:
            raise FrameError(PROTOCOL_ERROR, "reserved opcode")
        if second < 0x80:
            raise FrameError(PROTOCOL_ERROR, "frames of a client are masked")
        if size > self._message_size_limit - (0 if is_control else self._parts_size):
            raise FrameError(TOO_BIG, f"a message takes at most {self._message_size_limit} bytes")
        if first & 0x70:
            raise FrameError(PROTOCOL_ERROR, "reserved bits must be 0")
        if is_control:
            if size > 125:
                raise FrameError(PROTOCOL_ERROR, "a control frame takes at most 125 bytes")
            if first < 0x80:
                raise FrameError(PROTOCOL_ERROR, "a control frame cannot be fragmented")
        elif (opcode == _CONTINUATION) is (self._parts is None):
            raise FrameError(PROTOCOL_ERROR, "a continuation without a beginning, or a beginning inside of a message")

    def _take(self, first: int, payload: bytes) -> None:
        """Control frames and fragments."""
        opcode = first & 0x0F
        if opcode == PING:
            self._taker.take_ping(payload)
        elif opcode == PONG:
            self._taker.take_pong()
        elif opcode == CLOSE:
            self._take_close(payload)
        else:
            self._take_fragment(opcode, payload, is_last=first >= 0x80)

    def _take_fragment(self, opcode: int, payload: bytes, *, is_last: bool) -> None:
        if self._parts is None:
            self._parts = []
            self._decoder = _Utf8() if opcode == TEXT else None
        parts, decoder = self._parts, self._decoder
        parts.append(payload)
        self._parts_size += len(payload)
        self._fragments += 1
        if self._fragments > self._fragment_limit:
            raise FrameError(ABUSE, f"a message takes at most {self._fragment_limit} fragments")
        if decoder is not None:
            try:
                decoder.decode(payload, is_last)
            except UnicodeDecodeError:
                self._refuse_text(b"".join(parts))
        if is_last:
            message = b"".join(parts)
            self._parts = self._decoder = None
            self._parts_size = self._fragments = 0
            self.deliver(message if decoder is None else message.decode())

    def _take_close(self, payload: bytes) -> None:
        code, reason = 1005, ""
        if payload:
            code = int.from_bytes(payload[:2], "big")
            if len(payload) < 2 or not (code in _CLOSE_CODES or 3000 <= code < 5000):
                raise FrameError(PROTOCOL_ERROR, "a close code that does not exist")
            try:
                reason = payload[2:].decode()
            except UnicodeDecodeError:
                raise FrameError(INVALID_DATA, "a close reason that is not UTF-8") from None
        self.halted = True
        self._taker.take_close(code, reason, payload)

    def _text(self, payload: bytes) -> str:
        try:
            return payload.decode()
        except UnicodeDecodeError:
            self._refuse_text(payload)
            raise

    def _refuse_text(self, data: bytes) -> None:
        self._taker.take_invalid_text(data)
        raise FrameError(INVALID_DATA, "text that is not UTF-8") from None


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """A whole frame of a server, not masked."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65_536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


def encode_close(code: int, reason: str) -> bytes:
    """A close frame; the reason is cut at the 123 bytes that fit after the code (RFC 6455, 5.5 and 5.5.1)."""
    text = reason.encode(errors="replace")[:123].decode(errors="ignore").encode()
    return encode_frame(CLOSE, code.to_bytes(2, "big") + text)
