"""The load generator, the same for every server, in a process of its own. Room: benchmarks.

Reads one order (see ``Order``) as JSON and answers ``{"event": "connected"}``; ``{"do": "measure"}`` starts the time
that counts, ``{"do": "stop"}`` ends it and is answered by ``{"event": "done", …}``. It ends by itself after
``seconds_limit``.
"""

import asyncio
import json
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypedDict

import uvloop

from benchmarks.load_client import Client, connect
from benchmarks.stats import spread

# Bytes written at once while saturating; the socket's buffer, not this, is what paces the sender.
_BLOB_FRAMES = 64
_BLOBS_IN_A_ROW = 4
# Messages of one connection that may wait for their acknowledgement while saturating: many times what a server takes in
# at once, so that it never waits for us, and no more than it can answer soon after the end.
_WINDOW = 4_096
# One message in this many is a trading signal when paced.
_SIGNAL_EVERY = 10
# Seconds for which acknowledgements of the measured time may still arrive.
_SETTLE_TIMEOUT = 8.0


class Terminal(TypedDict):
    """One connection: where to and as whom."""

    url: str
    token: str
    stream_id: str


class Order(TypedDict):
    """``mode`` is saturated, paced or idle.

    When paced, ``rate`` is messages a second over all connections, and ``bunch`` of them leave at a time.
    """

    mode: str
    terminals: list[Terminal]
    symbols: list[str]
    acks: bool
    rate: float
    bunch: int
    seconds_limit: float


class Load:
    """Drives all connections from one event loop."""

    def __init__(self, order: Order, clients: list[Client]) -> None:
        self._order = order
        self._clients = clients
        self._loop = asyncio.get_running_loop()
        self._sent = 0
        self._started = 0.0
        self._late = 0.0
        self.stopping = False

    def start(self) -> None:
        self._started = time.perf_counter()
        if self._order["mode"] == "paced":
            self._step()
        elif self._order["mode"] == "saturated":
            for client in self._clients:
                client.on_writable = self._pump
                self._pump(client)

    def _step(self) -> None:
        """Sends what is due, each message over the next connection.

        Sleeps between two messages instead of using the event loop's timers: they count in whole milliseconds, so
        several messages would leave together and spare the server most of its wake-ups.
        """
        if self.stopping:
            return
        order, clients = self._order, self._clients
        due = self._started + self._sent // order["bunch"] * order["bunch"] / order["rate"]
        now = time.perf_counter()
        if now >= due:
            turn, place = divmod(self._sent, len(clients))
            clients[place].send((turn + place) % _SIGNAL_EVERY == 0, acks=order["acks"])
            self._sent += 1
            self._late = max(self._late, now - due)
        else:
            time.sleep(min(due - now, 0.0005))
        self._loop.call_soon(self._step)

    def _pump(self, client: Client) -> None:
        """Writes a few blobs, then lets the other connections have their turn; ends when the socket takes no more."""
        for _ in range(_BLOBS_IN_A_ROW):
            if self.stopping or not client.writable:
                return
            if client.unsettled >= _WINDOW:
                client.resume_below = _WINDOW // 2
                return
            client.send_blob(_BLOB_FRAMES, acks=self._order["acks"])
        if client.writable:
            self._loop.call_soon(self._pump, client)

    def measure(self) -> None:
        self._late = 0.0
        for client in self._clients:
            client.measuring = True

    async def finish(self) -> dict[str, Any]:
        """Stops sending, waits for the acknowledgements of what was sent, and says what happened."""
        self.stopping = True
        unsettled = sum(client.unsettled for client in self._clients)
        deadline = time.monotonic() + _SETTLE_TIMEOUT
        while unsettled and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
            unsettled = sum(client.unsettled for client in self._clients)
        for client in self._clients:
            client.leave()
        clients = self._clients
        return {
            "event": "done",
            "sent": sum(client.sent for client in clients),
            "refused": sum(client.refused for client in clients),
            "unsettled": unsettled,
            "closed_by_server": sum(client.closed_by_server for client in clients),
            "tick_ack": spread([one for client in clients for one in client.tick_latencies]),
            "signal_ack": spread([one for client in clients for one in client.signal_latencies]),
            "latest_ms": self._late * 1000,
        }


async def run() -> None:
    order: Order = json.loads(sys.stdin.readline())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)), hard))
    clients = await connect(order["terminals"], order["symbols"])
    load = Load(order, clients)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.call_later(order["seconds_limit"], stopped.set)
    acts: dict[str, Callable[[], None]] = {"measure": load.measure, "stop": stopped.set}
    threading.Thread(target=_read_acts, args=(loop, acts), daemon=True).start()
    say({"event": "connected"})
    load.start()
    await stopped.wait()
    say(await load.finish())


def _read_acts(loop: asyncio.AbstractEventLoop, acts: dict[str, Callable[[], None]]) -> None:
    for line in sys.stdin:
        loop.call_soon_threadsafe(acts[json.loads(line)["do"]])
    try:
        loop.call_soon_threadsafe(acts["stop"])  # Whoever ordered this load has gone.
    except RuntimeError:
        pass  # The loop has ended by itself.


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(run())
