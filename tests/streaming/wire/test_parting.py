"""A connection that its client ends, or breaks the rules of, still carries the answers to what came before that."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from streaming.wire.websocket import GatewayWebSocketProtocol, connection_of
from tests.support.raw_client import CLOSE, TEXT, RawClient, frame

CLOSING = frame(CLOSE, (1000).to_bytes(2, "big") + b"done")
COUNT = 200


@dataclass
class Slow:
    """An application that answers each message when it is told to, and says goodbye when all have their answer."""

    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: list[str] = field(default_factory=list)
    heard: int = 0
    # What the application was told at the end.
    codes: list[int] = field(default_factory=list)
    has_ended: bool = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        wire = connection_of(scope)
        assert wire is not None
        wire.attach(self._take, lambda: None, lambda _reason: None)
        self.codes.append((await receive())["code"])
        waiting = asyncio.ensure_future(self.may_answer.wait())
        while wire.is_parting and not waiting.done():
            await asyncio.sleep(0.005)
        waiting.cancel()
        for message in self.waiting:
            wire.send_now(message)
        wire.answer_close()
        self.has_ended = True

    def _take(self, message: bytes | str) -> None:
        self.heard += 1
        self.waiting.append(str(message).encode(errors="replace").decode())


@pytest.fixture
async def app() -> Slow:
    return Slow()


@pytest.fixture
async def port(app: Slow) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, ws=GatewayWebSocketProtocol, lifespan="off", log_level="error")
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[method-assign, attr-defined, unused-ignore]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield listener.getsockname()[1]
        server.should_exit = True
        await serving


def last_words(port: int, data: bytes, *, half_closed: bool = False) -> tuple[list[bytes], int]:
    """Sends ``data`` in one piece; all that is heard, and the code at the end."""
    client = RawClient(port)
    assert client.open("", subprotocol="", path="/") == 101
    client.socket.sendall(data)
    if half_closed:
        client.socket.shutdown(socket.SHUT_WR)
    heard = []
    while (received := client.read()) is not None and received.opcode != CLOSE:
        heard.append(received.payload)
    client.close()
    return heard, 1006 if received is None else received.close_code


def messages(count: int) -> bytes:
    return b"".join(frame(TEXT, b"%d" % number) for number in range(count))


@pytest.mark.parametrize(
    ("last", "code", "extra"),
    [
        (CLOSING, 1000, 0),
        # Text that is no UTF-8 is a message of its own first.
        (frame(TEXT, b"\xff"), 1007, 1),
        (b"\x83\x80\x00\x00\x00\x00", 1002, 0),
    ],
    ids=["goodbye", "no UTF-8", "reserved opcode"],
)
@pytest.mark.parametrize("half_closed", [False, True], ids=["open", "half-closed"])
async def test_answers_to_what_came_before_the_end_are_sent(
    app: Slow, port: int, last: bytes, code: int, extra: int, half_closed: bool
) -> None:
    task = asyncio.create_task(asyncio.to_thread(last_words, port, messages(COUNT) + last, half_closed=half_closed))
    async with asyncio.timeout(10):
        while not app.codes:
            await asyncio.sleep(0.005)
    assert app.heard == COUNT + extra
    app.may_answer.set()
    heard, ended = await task
    assert (len(heard), ended) == (COUNT + extra, code)
    assert heard[:COUNT] == [b"%d" % number for number in range(COUNT)]


async def test_end_waits_for_answers_only_so_long(app: Slow, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GatewayWebSocketProtocol, "close_patience", 0.05)
    assert await asyncio.to_thread(last_words, port, messages(3) + CLOSING) == ([], 1000)
    assert app.codes == [1000]


async def test_nothing_behind_the_goodbye_is_read(app: Slow, port: int) -> None:
    app.may_answer.set()
    heard, ended = await asyncio.to_thread(last_words, port, messages(2) + CLOSING + messages(5))
    assert (len(heard), ended, app.heard) == (2, 1000, 2)


def speak_and_vanish(port: int) -> None:
    client = RawClient(port)
    assert client.open("", subprotocol="", path="/") == 101
    client.socket.sendall(messages(2) + CLOSING)
    # A reset, whatever is still to come.
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


async def test_client_that_is_gone_keeps_nobody_waiting(app: Slow, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GatewayWebSocketProtocol, "close_patience", 60.0)
    await asyncio.to_thread(speak_and_vanish, port)
    async with asyncio.timeout(10):
        while not app.has_ended:
            await asyncio.sleep(0.005)
