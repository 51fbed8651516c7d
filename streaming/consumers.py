"""The Channels shell of a terminal's connection: admit, drive the session, nothing else. Room: streaming.

It has a receive loop of its own, since Channels' dispatch makes a thread hop for every event. On our own server even
that loop is only the fallback: messages come by callback.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from channels.consumer import AsyncConsumer

from streaming.admission import Admission, AdmissionRefused, Handshake
from streaming.core.codes import CloseCode
from streaming.core.session import Session
from streaming.peers import AsgiPeer, WirePeer
from streaming.positions import Claim
from streaming.registry import Connection
from streaming.runtime import Runtime
from streaming.wire.websocket import GatewayWebSocketProtocol, connection_of

log = structlog.get_logger(__name__)
# Seconds between two looks whether the answers that a client has a right to are out.
_ANSWER_PAUSE = 0.003

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


class TerminalConsumer(AsyncConsumer):  # type: ignore[misc]  # Channels has no types
    """``/ws/mt5``; ``runtime`` comes through ``as_asgi``."""

    def __init__(self, *, runtime: Callable[[], Runtime]) -> None:
        self.runtime = runtime

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        runtime = self.runtime()
        await receive()  # websocket.connect
        try:
            runtime.check_open()
            handshake = Handshake.from_scope(scope)
            admission = await runtime.desk.admit(handshake)
        except AdmissionRefused as refusal:
            runtime.metrics.connects_refused[(refusal.status, refusal.code)] += 1
            await _refuse(scope, send, refusal)
            return
        try:
            claim = await runtime.claim(admission)
            await send({"type": "websocket.accept", "subprotocol": handshake.subprotocol or None})
        except BaseException:
            runtime.give_up(admission)
            raise
        await _serve(runtime, admission, claim, scope, receive, send)


async def _serve(
    runtime: Runtime, admission: Admission, claim: Claim | None, scope: dict[str, Any], receive: Receive, send: Send
) -> None:
    """From accept to the end of the connection."""
    wire = connection_of(scope)
    peer: WirePeer | AsgiPeer
    if wire is not None:
        peer = WirePeer(wire)
    else:
        peer = AsgiPeer(send, runtime.outbound_max_size, lambda: _cut(runtime, connection))
    try:
        connection = runtime.open(admission, peer, claim)
    except Exception:
        log.exception("connection_not_opened", user_id=admission.access.user_id)
        peer.close(CloseCode.INTERNAL_ERROR, "")
        if isinstance(peer, AsgiPeer):
            await peer.drain()
        return
    code: int = CloseCode.INTERNAL_ERROR
    try:
        if wire is not None:
            wire.attach(
                _receiver(connection.session),
                lambda: _cut(runtime, connection),
                lambda reason: connection.session.end(CloseCode.PROTOCOL_ABUSE, reason),
            )
        code = await _until_disconnect(connection.session, peer, receive)
        if wire is not None:
            await _answer_the_last(connection.session, wire)
    finally:
        runtime.close(connection, code)
        if wire is not None:
            wire.answer_close()
        if isinstance(peer, AsgiPeer):
            await peer.finish()


async def _answer_the_last(session: Session, wire: GatewayWebSocketProtocol) -> None:
    """A client that has said goodbye right behind its messages still hears what became of them; the wire bounds it."""
    while session.in_flight and not session.closed and wire.is_parting:
        await asyncio.sleep(_ANSWER_PAUSE)
    session.flush_ack()


async def _until_disconnect(session: Session, peer: WirePeer | AsgiPeer, receive: Receive) -> int:
    """Takes messages that come as ASGI events, until the connection ends; the close code."""
    take = _receiver(session)
    while True:
        if isinstance(peer, AsgiPeer):
            await peer.may_read()
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return event.get("code") or CloseCode.NORMAL
        data = event.get("bytes")
        take(event["text"] if data is None else data)


def _receiver(session: Session) -> Callable[[bytes | str], None]:
    receive, monotonic, time_ns = session.receive, time.monotonic, time.time_ns

    def take(data: bytes | str) -> None:
        receive(data, monotonic(), time_ns() // 1000)

    return take


def _cut(runtime: Runtime, connection: Connection) -> None:
    runtime.end_unresponsive(connection, CloseCode.SLOW_CONSUMER)
    connection.peer.abort()


async def _refuse(scope: dict[str, Any], send: Send, refusal: AdmissionRefused) -> None:
    """An HTTP answer where the server can give one, else the bare refusal of the handshake."""
    if "websocket.http.response" in (scope.get("extensions") or {}):
        start = {"type": "websocket.http.response.start", "status": refusal.status, "headers": refusal.headers()}
        await send(start)
        await send({"type": "websocket.http.response.body", "body": refusal.body()})
    else:
        await send({"type": "websocket.close", "code": 1008})
