"""Terminals that offer a share of their plan, and what becomes of each message. Room: benchmarks.

Loopback only, bounded in time and in messages.
"""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

_TICK = '{"message_type":"tick_data","sequence":%d,"ticks":[{"symbol":"EURUSD","bid":1.1,"ask":1.2}]}'
# Closes with a reset: what is on its way is gone in both directions.
_RESET = struct.pack("ii", 1, 0)
_TURN = 0.01
_CONNECT_PAUSE = 0.2
# Seconds that the last answers have at the end.
_SETTLE_TIMEOUT = 10.0


@dataclass
class Outcome:
    """``offered``: messages, without those sent again after a reset; ``plan``: a second, as the gateway said it.
    ``refused``: nacks by code; ``open``: messages without an answer at the end; ``lasted``: seconds, until the gateway
    had read all of it."""

    plan: float = 0.0
    offered: int = 0
    repeated: int = 0
    resets: int = 0
    open: int = 0
    lasted: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def rate_limited(self) -> int:
        return self.refused["rate_limited"]


async def _open(port: int, token: str, stream: str) -> ClientConnection:
    """Tries until it is let in, for ten seconds at most."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await connect(
                    f"ws://127.0.0.1:{port}/ws/mt5" + (f"?stream={stream}" if stream else ""),
                    additional_headers={"Authorization": f"Bearer {token}"},
                    subprotocols=["gateway.v1.json"],  # type: ignore[list-item]
                    compression=None,
                    ping_interval=None,
                )
            except (OSError, InvalidHandshake):
                await asyncio.sleep(_CONNECT_PAUSE)


class SteadyTerminal:
    """One terminal on a stream: its connection is reset every ``reset_every`` seconds, and it connects anew and sends
    again what has no answer yet, as bridges do. What falls due while it is away is sent when it is back."""

    def __init__(self, port: int, token: str, stream: str, share: float) -> None:
        """``share``: of the plan's rate, 0.95 for instance."""
        self.outcome = Outcome()
        self._port = port
        self._token = token
        self._stream = stream
        self._share = share
        self._owed: list[int] = []
        self._began = 0.0

    async def run(self, seconds: float, reset_every: float) -> Outcome:
        self._began = time.monotonic()
        end = self._began + seconds
        while time.monotonic() < end:
            await self._connected(min(end, time.monotonic() + reset_every), reset=True)
        await self._connected(time.monotonic() + _SETTLE_TIMEOUT, reset=False)
        self.outcome.open = len(self._owed)
        return self.outcome

    async def _connected(self, until: float, *, reset: bool) -> None:
        """One connection, to its reset; without one until all is answered."""
        connection = await _open(self._port, self._token, self._stream)
        try:
            welcome = json.loads(await connection.recv())["payload"]
            self.outcome.plan = welcome["policy"]["message_rate_limit"]
            self._acknowledged(welcome["last_acknowledged_sequence"])
            self.outcome.repeated += len(self._owed)
            listening = asyncio.create_task(self._listen(connection))
            for sequence in list(self._owed):
                await connection.send(_TICK % sequence)
            while time.monotonic() < until and not listening.done() and (reset or self._owed):
                if reset:
                    await self._send_what_is_due(connection)
                await asyncio.sleep(_TURN)
        except ConnectionClosed:
            return
        finally:
            if reset:
                self.outcome.resets += 1
                raw: socket.socket = connection.transport.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.transport.abort()
            else:
                await connection.close()
        await listening

    async def _send_what_is_due(self, connection: ClientConnection) -> None:
        due = int((time.monotonic() - self._began) * self.outcome.plan * self._share) - self.outcome.offered
        for _ in range(due):
            self.outcome.offered += 1
            self._owed.append(self.outcome.offered)
            await connection.send(_TICK % self.outcome.offered)

    async def _listen(self, connection: ClientConnection) -> None:
        try:
            async for message in connection:
                body = json.loads(message)
                payload = body["payload"]
                if body["message_type"] == "gateway.ack":
                    self._acknowledged(payload["sequence"])
                elif body["message_type"] == "gateway.nack":
                    self.outcome.refused[payload["code"]] += 1
        except ConnectionClosed:
            pass

    def _acknowledged(self, sequence: int) -> None:
        self._owed = [one for one in self._owed if one > sequence]


async def flood(port: int, token: str, share: float, seconds: float, connections: int) -> Outcome:
    """One user who offers ``share`` times the plan, spread over connections without a stream; nothing is sent again."""
    outcome = Outcome()
    opened = [await _open(port, token, "") for _ in range(connections)]
    outcome.plan = json.loads(await opened[0].recv())["payload"]["policy"]["message_rate_limit"]

    async def listen(connection: ClientConnection) -> None:
        try:
            async for message in connection:
                body = json.loads(message)
                if body["message_type"] == "gateway.nack":
                    outcome.refused[body["payload"]["code"]] += 1
        except ConnectionClosed:
            pass

    listening = [asyncio.create_task(listen(connection)) for connection in opened]
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        for _ in range(int(elapsed * outcome.plan * share) - outcome.offered):
            await opened[outcome.offered % connections].send(_TICK % 0)
            outcome.offered += 1
        await asyncio.sleep(_TURN)
    for connection in opened:
        await connection.close()
    await asyncio.gather(*listening)
    outcome.lasted = time.monotonic() - began
    return outcome
