"""A WebSocket client that does exactly what it is told: it answers no ping and reads only when asked to."""

import base64
import os
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


@dataclass(frozen=True)
class RawFrame:
    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        return int.from_bytes(self.payload[:2], "big") if len(self.payload) >= 2 else 1005


def frame(opcode: int, payload: bytes) -> bytes:
    """One whole masked frame."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 65_536:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    mask = os.urandom(4)
    repeated = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
    return head + mask + masked


class RawClient:
    """Blocking; every wait is bounded by ``timeout`` seconds."""

    def __init__(self, port: int, *, receive_buffer: int = 0, timeout: float = 10.0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        # Two small sends in a row: without it the second would wait for the peer's delayed acknowledgement.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))
        self._buffer = b""
        self.head = ""

    def open(
        self,
        token: str,
        *,
        path: str = "/ws/mt5",
        subprotocol: str = "gateway.v1.json",
        headers: Sequence[str] = (),
        method: str = "GET",
        behind: bytes = b"",
    ) -> int:
        """Shakes hands; the HTTP status. The answer's head is in ``head``; ``behind`` leaves with the request."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", f"Authorization: Bearer {token}"]
        if subprotocol:
            lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        self.socket.sendall("\r\n".join([*lines, *headers, "", ""]).encode() + behind)
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        return int(head.split(b" ", 2)[1])

    def send(self, opcode: int, payload: bytes) -> None:
        self.socket.sendall(frame(opcode, payload))

    def read(self) -> RawFrame | None:
        """The next frame; None when the connection has ended."""
        while True:
            parsed = self._parse()
            if parsed is not None:
                return parsed
            try:
                data = self._receive()
            except ConnectionError:
                return None
            if not data:
                return None
            self._buffer += data

    def close_code(self, seconds: float) -> int:
        """Reads to the end; the code of the close frame, 1006 when there was none."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            received = self.read()
            if received is None:
                return 1006
            if received.opcode == CLOSE:
                return received.close_code
        raise AssertionError(f"the connection was still open after {seconds} s")

    def close(self) -> None:
        self.socket.close()

    def _receive(self) -> bytes:
        return self.socket.recv(65_536)

    def _parse(self) -> RawFrame | None:
        data = self._buffer
        if len(data) < 2:
            return None
        size, start = data[1] & 0x7F, 2
        if size >= 126:
            width = 2 if size == 126 else 8
            start += width
            if len(data) < start:
                return None
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + size:
            return None
        self._buffer = data[start + size :]
        return RawFrame(data[0] & 0x0F, data[start : start + size])
