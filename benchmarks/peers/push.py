"""A push application on the production WebSocket stack, which has to do with readers that stop. Room: benchmarks.

It holds a connection as the gateway's own consumer does: attached, behind a ``WirePeer`` that is looked at each second,
cut when more waits for it than may or for longer. Once all readers are there, each gets ``--rate`` messages a second,
one reader after the other, evenly spread. A message begins with its send time in microseconds, little-endian.
``/status`` says what happened.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import time
from collections import Counter
from typing import Any

import django
import uvicorn
from django.conf import settings

from benchmarks.peers.serve import answer
from streaming.core.codes import CloseCode
from streaming.peers import WirePeer
from streaming.wire.websocket import GatewayWebSocketProtocol, connection_of

_TICK = 0.001
_SWEEP_INTERVAL = 1.0
# Messages that are sent before the sockets have their turn.
_TURN_LIMIT = 256
# Bytes of a socket. By itself the kernel takes megabytes over the loopback before the server sees a reader stop.
_SEND_BUFFER = 32_768


class Reader:
    """One connection and how it was cut."""

    __slots__ = ("_cuts", "_peer", "closed", "send", "wire")

    def __init__(self, wire: GatewayWebSocketProtocol, cuts: list[tuple[int, int, str]]) -> None:
        self.wire = wire
        self.closed = False
        self._cuts = cuts
        self._peer = WirePeer(wire)
        self.send = self._peer.send

    def attach(self) -> None:
        self.wire.attach(lambda _data: None, self._on_slow, lambda _reason: self.end(CloseCode.PROTOCOL_ABUSE, "abuse"))

    def check(self) -> None:
        code = self._peer.check(
            settings.GATEWAY_PING_INTERVAL, settings.GATEWAY_PONG_TIMEOUT, settings.GATEWAY_OUTBOUND_TIMEOUT
        )
        if code is not None:
            self.end(code, "time" if code is CloseCode.SLOW_CONSUMER else "pong")

    def end(self, code: CloseCode, bound: str) -> None:
        if not self.closed:
            self.closed = True
            self._cuts.append((time.time_ns() // 1000, int(code), bound))
            self._peer.close(code, "the client does not read")

    def _on_slow(self) -> None:
        self.end(CloseCode.SLOW_CONSUMER, "size")
        self._peer.abort()


class Push:
    """The readers in the order they came, and whose turn it is."""

    def __init__(self, readers: int, size: int, rate: float) -> None:
        self._expected = readers
        self._per_second = readers * rate
        self._filling = b"x" * (size - 8)
        # None: gone.
        self._readers: list[Reader | None] = []
        self._started = 0.0
        self._turn_of = 0
        # Seconds behind the schedule, and bytes that wait for a reader: the most since the last look.
        self._late = 0.0
        self._waiting = 0
        # When (microseconds), with which code, by which bound.
        self._cuts: list[tuple[int, int, str]] = []
        # Code the application was told at the end → readers.
        self._ended: Counter[int] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self._serve(scope, receive, send)
        elif scope["type"] == "http":
            await answer(send, json.dumps(self._status()).encode())
        else:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        wire = connection_of(scope)
        assert wire is not None
        reader = Reader(wire, self._cuts)
        reader.attach()
        place = len(self._readers)
        self._readers.append(reader)
        if len(self._readers) == self._expected:
            self._started = time.perf_counter()
            self._push()
        if len(self._readers) == 1:
            self._sweep()
        event = await receive()
        self._readers[place] = None
        wire.answer_close()
        self._ended[event["code"]] += 1

    def _push(self) -> None:
        """Sends what is due, and what was due earlier first."""
        passed = time.perf_counter() - self._started
        due = int(passed * self._per_second)
        if due > self._turn_of:
            self._late = max(self._late, passed - self._turn_of / self._per_second)
        until = min(due, self._turn_of + _TURN_LIMIT)
        readers, count, filling = self._readers, self._expected, self._filling
        for turn in range(self._turn_of, until):
            reader = readers[turn % count]
            if reader is not None:
                reader.send((time.time_ns() // 1000).to_bytes(8, "little") + filling)
        self._turn_of = until
        loop = asyncio.get_running_loop()
        if until < due:
            loop.call_soon(self._push)
        else:
            loop.call_later(_TICK, self._push)

    def _sweep(self) -> None:
        for reader in self._readers:
            if reader is not None and not reader.closed:
                self._waiting = max(self._waiting, reader.wire.transport.get_write_buffer_size())
                reader.check()
        asyncio.get_running_loop().call_later(_SWEEP_INTERVAL, self._sweep)

    def _status(self) -> dict[str, Any]:
        late, self._late = self._late, 0.0
        waiting, self._waiting = self._waiting, 0
        return {"late_ms": late * 1000, "waiting": waiting, "cuts": self._cuts, "ended": self._ended}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--port", "--readers", "--size", "--seconds-limit"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    options = parser.parse_args()
    # Ends a server that nobody stops.
    signal.alarm(options.seconds_limit)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_project.settings")
    django.setup()
    # It needs Django's applications.
    from gateway_project.server import apply_limits, listen, server_config, tune_garbage_collection

    apply_limits()
    push = Push(options.readers, options.size, options.rate)
    listener = listen("127.0.0.1", options.port, shared=False)
    # The connections have what their listener has.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    config = server_config(push, message_size_limit=settings.GATEWAY_MESSAGE_SIZE_LIMIT)
    tune_garbage_collection()
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
