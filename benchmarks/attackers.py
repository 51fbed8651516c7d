"""Clients that attack the frame path, many at once, in a process of their own. Room: benchmarks.

Reads one order (see ``Order``) as JSON from standard input and answers with one ``Outcome`` as an event when its time
is over: bounded in time and in connections, and only ever against the loopback. An attacker that is cut off connects
again after a second.
"""

import asyncio
import base64
import json
import os
import struct
import sys
import time
from collections import Counter
from functools import partial
from typing import TypedDict, cast

import uvloop

HANDSHAKE_ATTACKS = ("dripping request", "silent connection", "endless headers")
_PAUSE = 1.0
# What one attacker sends in one second at most, so that the flood ends in time even if nobody cuts it off.
_RATE_LIMIT = 20_000_000
_MASK = bytes(4)


class Order(TypedDict):
    """``tokens``: of users; each attacker takes the next one."""

    port: int
    tokens: list[str]
    attack: str
    connections: int
    seconds: float


class Outcome(TypedDict):
    """``codes``: close code or HTTP status to times, "reset" for an end without either. ``slowest``: seconds from the
    first attacking byte to the end, the worst; ``open``: attacks that nobody had ended after ten seconds."""

    attempts: int
    codes: dict[str, int]
    slowest: float
    open: int
    sent: int


def _frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    size = len(payload)
    head = bytes(((0x80 if final else 0) | opcode,))
    if size < 126:
        return head + bytes((0x80 | size,)) + _MASK + payload
    if size < 65_536:
        return head + b"\xfe" + struct.pack("!H", size) + _MASK + payload
    return head + b"\xff" + struct.pack("!Q", size) + _MASK + payload


_FRAGMENT = _frame(0x0, b"x", final=False)
# name: (sent once, sent again and again, whether the attacker reads)
ATTACKS: dict[str, tuple[bytes, bytes, bool]] = {
    "pings of 125 bytes, answers never read": (b"", _frame(0x9, bytes(125)) * 200, False),
    "empty pings": (b"", _frame(0x9, b"") * 4_000, True),
    "pongs that nobody asked for": (b"", _frame(0xA, b"") * 4_000, True),
    "empty continuation frames": (_frame(0x2, b"x", final=False), _frame(0x0, b"", final=False) * 4_000, True),
    "fragments of one byte": (_frame(0x1, b"x", final=False), _FRAGMENT * 4_000, True),
    "declared length of 2^63-1": (b"\x82\xff" + struct.pack("!Q", 2**63 - 1) + _MASK, bytes(65_536), True),
    "message of 65,537 bytes": (_frame(0x2, bytes(65_537)), b"", True),
    "dripping request": (b"GET /ws/mt5 HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", b"", True),
    "silent connection": (b"", b"", True),
    "endless headers": (b"GET /ws/mt5 HTTP/1.1\r\n", b"X: " + bytes(4_096).replace(b"\0", b"x") + b"\r\n", True),
}


class Attacker(asyncio.Protocol):
    """One connection from its handshake to its end; ``ended`` gets the code, the seconds it took and the bytes sent."""

    def __init__(self, order: Order, token: str, ended: "asyncio.Future[tuple[str, float, int]]") -> None:
        self._attack = order["attack"]
        self._first, self._again, self._reads = ATTACKS[self._attack]
        self._token = token
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._began = 0.0
        self._sent = 0
        self._writable = True
        self._over = False

    @property
    def _on_handshake(self) -> bool:
        return self._attack in HANDSHAKE_ATTACKS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._on_handshake:
            self._begin()
            return
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ["GET /ws/mt5 HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", f"Authorization: Bearer {self._token}"]
        self._transport.write("\r\n".join([*lines, "", ""]).encode())

    def _begin(self) -> None:
        self._began = time.monotonic()
        self._write(self._first)
        if not self._reads:
            self._transport.pause_reading()
            # It looks only later what it was told.
            self._loop.call_later(1.0, self._transport.resume_reading)
        self._flood()

    def _flood(self) -> None:
        if self._over or self._transport.is_closing():
            return
        if self._attack == "dripping request":
            self._write(b"x")
            self._loop.call_later(0.5, self._flood)
        elif self._again and self._writable and self._sent < _RATE_LIMIT * (time.monotonic() - self._began + 0.1):
            self._write(self._again)
            self._loop.call_soon(self._flood)
        elif self._again:
            self._loop.call_later(0.02, self._flood)

    def _write(self, data: bytes) -> None:
        self._sent += len(data)
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._began:
            head, found, rest = self._received.partition(b"\r\n\r\n")
            if not found:
                return
            self._received = rest
            if b" 101 " not in head.split(b"\r\n")[0]:
                self._end(f"refused with {head[9:12].decode()}")
                return
            self._begin()
        if self._on_handshake:
            if self._received.startswith(b"HTTP/1.1 "):
                self._end(self._received[9:12].decode())
            return
        while (code := self._next_frame()) is not None:
            if code:
                self._end(str(code))
                return

    def _next_frame(self) -> int | None:
        """The code of a close frame, 0 for any other frame, None when none is complete."""
        data = self._received
        if len(data) < 2:
            return None
        size, start = data[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + size:
            return None
        self._received = data[start + size :]
        return int.from_bytes(data[start : start + 2], "big") if data[0] & 0x0F == 0x8 else 0

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("reset")

    def give_up(self) -> None:
        self._end("")

    def _end(self, code: str) -> None:
        if not self._over:
            self._over = True
            self._ended.set_result((code, time.monotonic() - self._began if self._began else 0.0, self._sent))
            self._transport.abort()


def _itself(attacker: Attacker) -> Attacker:
    return attacker


async def attack(order: Order) -> Outcome:
    """Runs to the end of the order's time."""
    loop = asyncio.get_running_loop()
    until = loop.time() + order["seconds"]
    codes: Counter[str] = Counter()
    outcome: Outcome = {"attempts": 0, "codes": {}, "slowest": 0.0, "open": 0, "sent": 0}

    async def one(number: int) -> None:
        token = order["tokens"][number % len(order["tokens"])]
        while loop.time() < until:
            ended: asyncio.Future[tuple[str, float, int]] = loop.create_future()

            attacker = Attacker(order, token, ended)
            try:
                await loop.create_connection(partial(_itself, attacker), "127.0.0.1", order["port"])
            except OSError:
                await asyncio.sleep(_PAUSE)
                continue
            timer = loop.call_later(10.0, attacker.give_up)
            code, seconds, sent = await ended
            timer.cancel()
            outcome["sent"] += sent
            if code.startswith("refused"):
                codes[code] += 1
            else:
                outcome["attempts"] += 1
                outcome["open"] += not code
                outcome["slowest"] = max(outcome["slowest"], seconds)
                codes[code or "open"] += 1
            await asyncio.sleep(_PAUSE)

    await asyncio.gather(*(one(number) for number in range(order["connections"])))
    outcome["codes"] = dict(codes)
    return outcome


def main() -> None:
    order: Order = json.loads(sys.stdin.readline())
    sys.stdout.write(json.dumps({"event": "outcome", "outcome": uvloop.run(attack(order))}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
