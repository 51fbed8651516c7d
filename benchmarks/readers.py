"""Readers of a push application, in a process of their own. Room: benchmarks.

Reads one order (see ``Order``) as JSON and answers ``{"event": "connected"}``. ``{"do": "stall"}`` lets some of them
stop reading and is answered by ``{"event": "stalled"}``; ``{"do": "finish", "windows": {name: [µs, µs]}}`` lets those
read again to their end and is answered by ``{"event": "done", …}``. It ends by itself after ``seconds_limit``.
"""

import asyncio
import json
import socket
import sys
import threading
import time
from array import array
from collections import Counter
from typing import Any, TypedDict

import uvloop
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.load import say
from benchmarks.stats import spread

_CONNECTS_AT_ONCE = 20
# Seconds for which those who stopped may read until they see their end.
_END_TIMEOUT = 10.0
# Bytes the kernel takes for a reader that has stopped; the rest waits in the server (see ``peers/push.py``).
_RECEIVE_BUFFER = 16_384


class Order(TypedDict):
    """``stalled`` of the ``readers`` are those who stop, spread evenly among them."""

    url: str
    readers: int
    stalled: int
    seconds_limit: float


class Reader(WSListener):
    """Takes what comes; of a reader that never stops, notes when each message was sent and how long it took."""

    def __init__(self, sent: "array[int]", taken: "array[int]", *, stalls: bool) -> None:
        super().__init__()
        self._sent = sent
        self._taken = taken
        self.stalls = stalls
        self._transport: WSTransport
        self.close_code = 0
        self.ended = asyncio.Event()

    @property
    def outcome(self) -> str:
        if not self.ended.is_set():
            return "open"
        return str(self.close_code) if self.close_code else "aborted"

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            if not self.stalls:
                sent = int.from_bytes(frame.get_payload_as_memoryview()[:8], "little")
                self._sent.append(sent)
                self._taken.append(time.time_ns() // 1000 - sent)
        elif frame.msg_type == WSMsgType.CLOSE:
            self.close_code = frame.get_close_code().value
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.ended.set()

    def stop_reading(self) -> None:
        self._transport.underlying_transport.pause_reading()

    def read_on(self) -> None:
        self._transport.underlying_transport.resume_reading()

    def leave(self) -> None:
        if not self.ended.is_set():
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()


class Crowd:
    """All readers of this process."""

    def __init__(self, order: Order) -> None:
        self._sent, self._taken = array("q"), array("q")
        count, stalled = order["readers"], order["stalled"]
        self._readers = [
            Reader(self._sent, self._taken, stalls=(place + 1) * stalled // count > place * stalled // count)
            for place in range(count)
        ]
        self._stalled = [reader for reader in self._readers if reader.stalls]

    async def connect(self, url: str) -> None:
        """A few at a time; raises picows' or the system's error when one is refused."""
        gate = asyncio.Semaphore(_CONNECTS_AT_ONCE)

        async def one(reader: Reader) -> None:
            async with gate:
                await ws_connect(
                    lambda: reader,
                    url,
                    websocket_handshake_timeout=20,
                    logger_name="readers",
                    socket_factory=lambda _url: _small_socket(),
                )

        await asyncio.gather(*(one(reader) for reader in self._readers))

    def stall(self) -> None:
        for reader in self._stalled:
            reader.stop_reading()

    async def finish(self, windows: dict[str, tuple[int, int]]) -> dict[str, Any]:
        """What the others saw of the messages sent in each window, and how everyone ended."""
        closed = Counter(reader.outcome for reader in self._readers if reader.ended.is_set() and not reader.stalls)
        for reader in self._stalled:
            reader.read_on()
        waits = [asyncio.ensure_future(reader.ended.wait()) for reader in self._stalled]
        if waits:
            await asyncio.wait(waits, timeout=_END_TIMEOUT)
        outcomes = Counter(reader.outcome for reader in self._stalled)
        for reader in self._readers:
            reader.leave()
        both = list(zip(self._sent, self._taken, strict=True))
        spreads = {
            name: spread([taken for sent, taken in both if since <= sent < until])
            for name, (since, until) in windows.items()
        }
        return {"event": "done", "latency": spreads, "stalled": outcomes, "others_closed": closed}


def _small_socket() -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    return client


async def run() -> None:
    order: Order = json.loads(sys.stdin.readline())
    crowd = Crowd(order)
    await crowd.connect(order["url"])
    acts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    threading.Thread(target=_read_acts, args=(asyncio.get_running_loop(), acts), daemon=True).start()
    say({"event": "connected"})
    async with asyncio.timeout(order["seconds_limit"]):
        while (act := await acts.get())["do"] != "finish":
            crowd.stall()
            say({"event": "stalled"})
        say(await crowd.finish(act["windows"]))


def _read_acts(loop: asyncio.AbstractEventLoop, acts: "asyncio.Queue[dict[str, Any]]") -> None:
    for line in sys.stdin:
        loop.call_soon_threadsafe(acts.put_nowait, json.loads(line))
    try:
        # Whoever ordered these readers has gone.
        loop.call_soon_threadsafe(acts.put_nowait, {"do": "finish", "windows": {}})
    except RuntimeError:
        pass  # The loop has ended by itself.


if __name__ == "__main__":
    uvloop.run(run())
