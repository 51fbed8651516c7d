"""One connection of the load generator. Room: benchmarks."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.frames import signal_bodies, stamped, stream_field, tick_bodies, websocket_frame
from proto.gateway.v1 import control_pb2, envelope_pb2

if TYPE_CHECKING:
    from benchmarks.load import Terminal

_CONNECTS_AT_ONCE = 20


class Client(WSListener):
    """Sends messages and takes the gateway's answers; latencies are in microseconds, of the measured time only."""

    def __init__(self, ticks: list[bytes], signals: list[bytes], stream_id: str) -> None:
        super().__init__()
        self._ticks = ticks
        self._signals = signals
        self._stream = stream_field(stream_id)
        # Without acknowledgements a blob can be sent again and again.
        self._plain_blobs: dict[int, bytes] = {}
        self._pending: deque[tuple[int, int, bool]] = deque()
        self._sequence = 0
        self._acknowledged = 0
        self._leaving = False
        self._transport: WSTransport
        self.writable = True
        # Called when the socket takes data again after it did not, and once fewer messages than this are unsettled.
        self.resume_below = 0
        self.on_writable: Callable[[Client], None] | None = None
        self.measuring = False
        self.sent = 0
        self.refused = 0
        self.closed_by_server = False
        self.tick_latencies: list[int] = []
        self.signal_latencies: list[int] = []

    @property
    def unsettled(self) -> int:
        """Messages that wait for their acknowledgement."""
        return 0 if self.closed_by_server else self._sequence - self._acknowledged

    def send(self, signal: bool, *, acks: bool) -> None:
        """One message with the time of now."""
        if self.closed_by_server:
            return
        bodies = self._signals if signal else self._ticks
        now = time.time_ns() // 1000
        if acks:
            self._sequence += 1
            if self.measuring:
                self._pending.append((self._sequence, now, signal))
        self._transport.send(
            WSMsgType.BINARY, stamped(bodies[self.sent % len(bodies)], self._stream, now, self._sequence)
        )
        self.sent += 1

    def send_blob(self, frames: int, *, acks: bool) -> None:
        """Several tick messages in one write."""
        self._transport.underlying_transport.write(self._numbered_blob(frames) if acks else self._plain_blob(frames))
        self.sent += frames

    def _numbered_blob(self, frames: int) -> bytes:
        first, ticks, stream = self._sequence + 1, self._ticks, self._stream
        self._sequence += frames
        now = time.time_ns() // 1000
        return b"".join(
            websocket_frame(stamped(ticks[sequence % len(ticks)], stream, now, sequence))
            for sequence in range(first, first + frames)
        )

    def _plain_blob(self, frames: int) -> bytes:
        if frames not in self._plain_blobs:
            now, ticks, stream = time.time_ns() // 1000, self._ticks, self._stream
            parts = [websocket_frame(stamped(ticks[index % len(ticks)], stream, now, 0)) for index in range(frames)]
            self._plain_blobs[frames] = b"".join(parts)
        return self._plain_blobs[frames]

    def leave(self) -> None:
        """Closes the connection."""
        self._leaving = True
        if not self.closed_by_server:
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            answer = envelope_pb2.MessageEnvelope.FromString(frame.get_payload_as_bytes())
            if answer.message_type == "gateway.ack":
                self._settle(control_pb2.Ack.FromString(answer.payload).sequence)
            elif answer.message_type == "gateway.nack":
                self.refused += 1
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def _settle(self, sequence: int) -> None:
        self._acknowledged = max(self._acknowledged, sequence)
        if self.unsettled < self.resume_below and self.on_writable is not None:
            self.resume_below = 0
            self.on_writable(self)
        pending = self._pending
        now = time.time_ns() // 1000
        while pending and pending[0][0] <= sequence:
            _, sent, signal = pending.popleft()
            (self.signal_latencies if signal else self.tick_latencies).append(now - sent)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.closed_by_server = not self._leaving
        self.writable = False

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = not self.closed_by_server
        if self.writable and self.on_writable is not None:
            self.on_writable(self)


async def connect(terminals: "Sequence[Terminal]", symbols: list[str]) -> list[Client]:
    """All connections, a few at a time; raises picows' or the system's error when one is refused."""
    gate = asyncio.Semaphore(_CONNECTS_AT_ONCE)
    ticks, signals = tick_bodies(symbols), signal_bodies(symbols)

    async def one(terminal: "Terminal") -> Client:
        client = Client(ticks, signals, terminal["stream_id"])
        headers = {"Authorization": f"Bearer {terminal['token']}"} if terminal["token"] else {}
        async with gate:
            await ws_connect(
                lambda: client,
                terminal["url"],
                extra_headers=headers,
                websocket_handshake_timeout=20,
                logger_name="load",
            )
        return client

    return list(await asyncio.gather(*(one(terminal) for terminal in terminals)))
