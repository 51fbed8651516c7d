"""The client's end of a connection, on our own server and on any other."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any, cast

import pytest

from streaming.consumers import TerminalConsumer
from streaming.core.codes import CloseCode
from streaming.peers import AsgiPeer, WirePeer
from streaming.wire.websocket import GatewayWebSocketProtocol
from tests.streaming.shell_cast import LIMITS, Event, Process, Tenants, token_of, turns, upgrade

GONE: Event = {"type": "websocket.disconnect", "code": 1006}
PING_INTERVAL, PONG_TIMEOUT, OUTBOUND_TIMEOUT = 20.0, 10.0, 5.0


class Wire:
    """The twin of a connection of our server, its loop and its transport in one; time moves when told to."""

    def __init__(self) -> None:
        self.loop = self.transport = self
        self.now = self.heard_at = 1_000.0
        self.ping_sent_at = self.stalled_at = 0.0
        self.is_paused = False
        self.done: list[Any] = []

    def time(self) -> float:
        return self.now

    def ping_now(self) -> None:
        self.ping_sent_at = self.now
        self.done.append("ping")

    def end(self, code: int, reason: str) -> None:
        self.done.append((code, reason))

    def abort(self) -> None:
        self.done.append("abort")

    def send_now(self, data: bytes | str) -> None:
        self.done.append(data)

    def pause(self) -> None:
        self.done.append("pause")

    def resume(self) -> None:
        self.done.append("resume")


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def peer(wire: Wire) -> WirePeer:
    return WirePeer(cast("GatewayWebSocketProtocol", wire))


def check(peer: WirePeer | AsgiPeer) -> CloseCode | None:
    return peer.check(PING_INTERVAL, PONG_TIMEOUT, OUTBOUND_TIMEOUT)


def test_client_is_pinged_at_the_first_look_and_each_interval(wire: Wire, peer: WirePeer) -> None:
    pinged_at = []
    for _ in range(130):
        wire.now += 0.5
        assert check(peer) is None
        if wire.ping_sent_at:
            pinged_at.append(wire.now - 1_000.0)
            wire.ping_sent_at = 0.0
    assert pinged_at == [0.5, 20.5, 40.5, 60.5]


@pytest.mark.parametrize(
    ("silence", "heard", "verdict"),
    [
        (PONG_TIMEOUT, 0.0, None),
        (PONG_TIMEOUT + 0.1, 0.0, CloseCode.IDLE_TIMEOUT),
        (PONG_TIMEOUT + 0.1, 1.0, CloseCode.SLOW_CONSUMER),
    ],
)
def test_client_without_pong_is_idle_or_does_not_read(
    wire: Wire, peer: WirePeer, silence: float, heard: float, verdict: CloseCode | None
) -> None:
    wire.now += PING_INTERVAL
    check(peer)
    wire.heard_at = wire.now + heard if heard else wire.now - 1
    wire.now += silence
    assert check(peer) is verdict
    assert wire.done == ["ping"]


def test_stalled_client_is_slow_and_not_idle(wire: Wire, peer: WirePeer) -> None:
    check(peer)
    wire.heard_at = wire.now - 1
    wire.now += PONG_TIMEOUT + 0.1
    wire.stalled_at = wire.now
    assert check(peer) is CloseCode.SLOW_CONSUMER


def test_client_that_we_do_not_read_from_is_not_blamed_for_its_pong(wire: Wire, peer: WirePeer) -> None:
    wire.now += PING_INTERVAL
    check(peer)
    wire.is_paused = True
    wire.now += PONG_TIMEOUT + 0.1
    assert check(peer) is None
    wire.is_paused = False
    assert check(peer) is CloseCode.IDLE_TIMEOUT


@pytest.mark.parametrize(("stalled", "verdict"), [(5.0, None), (5.1, CloseCode.SLOW_CONSUMER)])
def test_client_that_does_not_take_its_answers_is_slow(
    wire: Wire, peer: WirePeer, stalled: float, verdict: CloseCode | None
) -> None:
    wire.stalled_at = wire.now
    wire.now += stalled
    assert check(peer) is verdict


def test_close_waits_for_a_client_that_reads_and_not_for_one_that_does_not(wire: Wire, peer: WirePeer) -> None:
    peer.close(CloseCode.SERVICE_RESTART, "ra=1;j=2")
    assert wire.done == [(1012, "ra=1;j=2")]
    wire.stalled_at = wire.now
    peer.close(CloseCode.SLOW_CONSUMER, "")
    assert wire.done[1:] == [(4001, ""), "abort"]


def test_calls_act_on_the_wire_at_once(wire: Wire, peer: WirePeer) -> None:
    peer.send(b"x")
    peer.pause()
    peer.resume()
    peer.abort()
    assert wire.done == [b"x", "pause", "resume", "abort"]


class Server:
    """The twin of another ASGI server: writes while the client reads, and brings what the client sends."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.incoming: asyncio.Queue[Event] = asyncio.Queue()

    async def send(self, event: Event) -> None:
        await self.reads.wait()
        self.events.append(event)

    def bring(self, sequence: int) -> None:
        """A message that is answered with a nack and kept."""
        text = f'{{"message_type": "nonsense", "sequence": {sequence}, "payload": {{}}}}'
        self.incoming.put_nowait({"type": "websocket.receive", "text": text})


@pytest.fixture
async def server() -> Server:
    return Server()


def peer_on(server: Server, slow: list[str], limit: int = 10) -> AsgiPeer:
    return AsgiPeer(server.send, limit, lambda: slow.append("slow"))


async def test_messages_reach_another_server_in_order_and_the_close_is_last(server: Server) -> None:
    peer = peer_on(server, [])
    peer.send(b"ab")
    peer.send("cd")
    peer.close(CloseCode.TOKEN_EXPIRED, "ä" * 100)
    peer.send(b"ef")
    await turns()
    assert server.events[:2] == [{"type": "websocket.send", "bytes": b"ab"}, {"type": "websocket.send", "text": "cd"}]
    [closed] = server.events[2:]
    assert (closed["type"], closed["code"]) == ("websocket.close", 4000)
    assert 120 <= len(closed["reason"].encode()) <= 123
    await peer.finish()


@pytest.mark.parametrize(("last", "told"), [(b"x", []), (b"xy", ["slow"])])
async def test_client_may_leave_as_many_bytes_unread_as_the_limit_and_is_slow_once(
    server: Server, last: bytes, told: list[str]
) -> None:
    slow: list[str] = []
    peer = peer_on(server, slow)
    server.reads.clear()
    peer.send(b"123456789")
    await turns()
    peer.send(last)
    assert slow == told
    for _ in range(3):
        peer.send(b"over")
    # Told once, however much follows.
    assert slow == ["slow"]
    await peer.finish()


async def test_client_that_reads_may_have_any_number_of_bytes(server: Server) -> None:
    slow: list[str] = []
    peer = peer_on(server, slow)
    for _ in range(20):
        peer.send(b"1234567890")
        await turns()
    assert (slow, len(server.events)) == ([], 20)
    await peer.finish()


@pytest.mark.parametrize(("waited", "verdict"), [(5.0, None), (5.1, CloseCode.SLOW_CONSUMER)])
async def test_client_of_another_server_is_slow_when_one_write_takes_too_long(
    server: Server, monkeypatch: pytest.MonkeyPatch, waited: float, verdict: CloseCode | None
) -> None:
    wire, peer = Wire(), peer_on(server, [])
    monkeypatch.setattr(peer, "_loop", wire)
    assert check(peer) is None
    server.reads.clear()
    peer.send(b"x")
    await turns()
    wire.now += waited
    assert check(peer) is verdict
    server.reads.set()
    await turns()
    assert check(peer) is None
    await peer.finish()


async def test_reading_waits_while_paused_and_goes_on_at_the_end(server: Server) -> None:
    end: list[Callable[[AsgiPeer], None]] = [AsgiPeer.resume, lambda p: p.close(CloseCode.NORMAL, ""), AsgiPeer.abort]
    for act in end:
        peer = peer_on(server, [])
        peer.pause()
        reading = asyncio.create_task(peer.may_read())
        await turns()
        assert not reading.done()
        act(peer)
        await turns()
        assert reading.done()
        await peer.finish()


async def test_reading_never_stops_once_the_end_is_on_its_way(server: Server) -> None:
    peer = peer_on(server, [])
    peer.close(CloseCode.NORMAL, "")
    peer.pause()
    await peer.may_read()
    await peer.finish()


async def test_abort_drops_what_waits_and_closes(server: Server) -> None:
    peer = peer_on(server, [])
    server.reads.clear()
    for _ in range(3):
        peer.send(b"x")
    await turns()
    peer.close(CloseCode.SLOW_CONSUMER, "")
    peer.abort()
    server.reads.set()
    await turns()
    assert server.events == [{"type": "websocket.close", "code": 4001, "reason": ""}]
    await peer.finish()


class Visit:
    """A terminal of Bob's on another server, with the whole consumer."""

    def __init__(self, process: Process, server: Server) -> None:
        self.process, self.server = process, server
        server.incoming.put_nowait({"type": "websocket.connect"})
        scope = upgrade(token_of(), query="stream=s1", subprotocols=["gateway.v1.json"])
        consumer = TerminalConsumer(runtime=lambda: process.runtime)
        self.task = asyncio.create_task(consumer(scope, server.incoming.get, server.send))

    async def opened(self) -> None:
        while not self.process.runtime.registry.connections:
            await asyncio.sleep(0.001)
        await turns(10)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    tenants = Tenants()
    tenants.install(monkeypatch)
    return Process(tenants, limits=dataclasses.replace(LIMITS, outbound_max_size=2_000), in_flight_limit=2)


async def test_terminal_on_another_server_that_does_not_read_is_cut_off(process: Process, server: Server) -> None:
    visit = Visit(process, server)
    await visit.opened()
    server.reads.clear()
    for sequence in range(1, 41):
        server.bring(sequence)
        await turns()
        process.sink.deliver()
    assert not visit.task.done()
    [connection] = process.runtime.registry.connections.values()
    assert connection.session.closed
    server.reads.set()
    await turns(10)
    assert (server.events[-1]["type"], server.events[-1]["code"]) == ("websocket.close", 4001)
    server.incoming.put_nowait(GONE)
    await visit.task
    assert not process.runtime.registry.connections


async def test_terminal_that_ends_while_it_is_paused_leaves_its_place(process: Process, server: Server) -> None:
    visit = Visit(process, server)
    await visit.opened()
    for sequence in (1, 2, 3):
        server.bring(sequence)
    await turns(20)
    [connection] = process.runtime.registry.connections.values()
    assert (connection.session.in_flight, connection.session.is_paused) == (2, True)
    process.sink.fail()
    await turns(10)
    assert (server.events[-1]["type"], server.events[-1]["code"]) == ("websocket.close", 4003)
    server.incoming.put_nowait(GONE)
    await asyncio.wait_for(visit.task, 5)
    assert not process.runtime.registry.connections
