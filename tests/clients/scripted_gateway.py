"""A gateway that does what a test tells it, and a client whose waits take no time."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from urllib.parse import parse_qsl

import pytest
from google.protobuf.message import Message
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from proto.gateway.v1 import control_pb2, envelope_pb2
from streaming.core.codes import ACTIONS, NackCode
from trading_gateway_client import BatchTickData, GatewayClient, Tick, client
from trading_gateway_client.backoff import Backoff
from trading_gateway_client.ends import Ends

# Seconds; nothing here takes long, and a test that fails should not wait for the run's own bound.
PATIENCE = 20.0


def offer(to: GatewayClient, count: int) -> None:
    for number in range(count):
        to.offer("tick_data", BatchTickData(ticks=[Tick(symbol="EURUSD", bid=float(number), ask=number + 0.5)]))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


class Session:
    """One connection as the gateway sees it."""

    def __init__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.path, _, query = socket.request.path.partition("?")
        self.query = dict(parse_qsl(query))
        self.token = socket.request.headers["Authorization"]
        self.frames: list[bytes] = []
        self._socket = socket
        self._is_over = False

    async def read(self) -> None:
        try:
            async for message in self._socket:
                assert isinstance(message, bytes)
                self.frames.append(message)
        except ConnectionClosed:
            pass
        self._is_over = True

    @property
    def envelopes(self) -> list[envelope_pb2.MessageEnvelope]:
        return [envelope_pb2.MessageEnvelope.FromString(frame) for frame in self.frames]

    @property
    def sequences(self) -> list[int]:
        """Of the messages that came so far, without pings."""
        return [envelope.sequence for envelope in self.envelopes if envelope.sequence]

    @property
    def refreshes(self) -> list[str]:
        return [
            control_pb2.Refresh.FromString(envelope.payload).token
            for envelope in self.envelopes
            if envelope.message_type == "gateway.refresh"
        ]

    async def say(self, kind: str, payload: Message) -> None:
        """Returns when the client has heard it and everything it has sent upon it has arrived."""
        frame = envelope_pb2.MessageEnvelope(message_type=f"gateway.{kind}", payload=payload.SerializeToString())
        await self._socket.send(frame.SerializeToString())
        await self.meet()

    async def meet(self) -> None:
        """A ping and its pong, in the order of the messages: what either side has sent is read.

        Returns as well when the client has gone.
        """
        async with asyncio.timeout(PATIENCE):
            try:
                await (await self._socket.ping())
            except ConnectionClosed:
                pass
            await asyncio.sleep(0)

    async def send_raw(self, data: bytes) -> None:
        await self._socket.send(data)

    async def welcome(
        self,
        acknowledged: int | None = None,
        *,
        window: int = 100,
        rate: float = 10_000,
        lifetime_ms: int = 3_600_000,
        refusals: Iterable[control_pb2.Refusal] = (),
        refusals_from: int = 0,
    ) -> None:
        """Returns when the client has sent what it sends upon it: what it owes, then a ping. Or when it has gone.

        ``acknowledged``: None for a gateway that has no record of the stream.
        """
        policy = control_pb2.Policy(
            tier="PRO", message_rate_limit=rate, in_flight_limit=window, message_size_limit=4096
        )
        now_ms = 1_700_000_000_000
        await self.say(
            "welcome",
            control_pb2.Welcome(
                session_id="s",
                policy=policy,
                server_time_ms=now_ms,
                token_expires_at_ms=now_ms + lifetime_ms,
                position_known=acknowledged is not None,
                last_acknowledged_sequence=acknowledged or 0,
                refusals=refusals,
                refusals_from=refusals_from,
            ),
        )
        await until(lambda: self._is_over or "gateway.ping" in [envelope.message_type for envelope in self.envelopes])

    async def ack(self, sequence: int) -> None:
        await self.say("ack", control_pb2.Ack(sequence=sequence))

    async def nack(self, sequence: int, code: str, *, action: int = 0, retry_after_ms: int = 0) -> None:
        """``action``: by default what follows from the code."""
        action = action or ACTIONS[NackCode(code)]
        nack = control_pb2.Nack(sequence=sequence, code=code, retry_after_ms=retry_after_ms)
        nack.action = action  # type: ignore[assignment]  # an int by its number
        nack.retryable = action == control_pb2.NACK_ACTION_RESEND
        nack.settled = not nack.retryable
        await self.say("nack", nack)

    async def end(self, code: int, *, told: control_pb2.Disconnect | None = None, reason: str = "") -> None:
        """Closes with ``code``, after a gateway.disconnect if there is one to tell."""
        if told is not None:
            await self.say("disconnect", told)
        async with asyncio.timeout(PATIENCE):
            await self._socket.close(code, reason)

    def abort(self) -> None:
        """Ends without a close frame."""
        self._socket.transport.abort()


class ScriptedGateway:
    def __init__(self) -> None:
        self.url = ""
        # What the next connects are answered with instead of being accepted: status, headers, body.
        self.refusals: list[tuple[int, dict[str, str], object]] = []
        self.connects = 0
        self._sessions: asyncio.Queue[Session] = asyncio.Queue()

    async def next_session(self) -> Session:
        async with asyncio.timeout(PATIENCE):
            return await self._sessions.get()

    async def serve(self, socket: ServerConnection) -> None:
        session = Session(socket)
        self._sessions.put_nowait(session)
        await session.read()

    def answer(self, socket: ServerConnection, request: Request) -> Response | None:
        self.connects += 1
        if not self.refusals:
            return None
        status, headers, body = self.refusals.pop(0)
        response = socket.respond(status, json.dumps(body))
        if isinstance(body, dict) and "code" in body:
            headers = {"Content-Type": "application/problem+json", **headers}
        for name, value in headers.items():
            if name in response.headers:
                del response.headers[name]
            response.headers[name] = value
        return response


@asynccontextmanager
async def scripted_gateway() -> AsyncIterator[ScriptedGateway]:
    gateway = ScriptedGateway()
    server: Server
    async with serve(
        gateway.serve,
        "127.0.0.1",
        0,
        process_request=gateway.answer,
        subprotocols=[Subprotocol("gateway.v1.protobuf")],
        ping_interval=None,
        compression=None,
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        gateway.url = f"ws://127.0.0.1:{port}/ws/mt5"
        yield gateway


async def start(
    starting: GatewayClient, gateway: ScriptedGateway, *, acknowledged: int | None = None, window: int = 100
) -> Session:
    """Starts a client; the session in which it was welcomed."""
    start = asyncio.create_task(starting.start())
    session = await gateway.next_session()
    await session.welcome(acknowledged, window=window)
    await start
    return session


class Highest(random.Random):
    """Draws the upper end of every range."""

    def uniform(self, a: float, b: float) -> float:
        return b


def without_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Clients wait no time before they connect again; the list gets the seconds they would have waited."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(client, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    monkeypatch.setattr(client, "Ends", ends_at_the_ceiling)
    return waits


def ends_at_the_ceiling(*, has_one_token: bool) -> Ends:
    """The rules of the client with the longest of each random wait."""
    replaced = Backoff(base=4.0, cap=300.0, source=Highest(), stable_after=600.0)
    return Ends(has_one_token=has_one_token, backoff=Backoff(base=1.0, source=Highest()), replaced=replaced)
