"""A process hears news, and knows when it may have missed some (events.listener)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from events import listener as module
from events.broadcast import CHANNEL
from events.listener import ChangeListener
from tests.support.valkey import Valkey


class Hearer:
    """A running listener and what it said."""

    def __init__(self, url: str) -> None:
        self.messages: list[dict[str, Any]] = []
        self.gaps = 0
        self.listener = ChangeListener(url, self._take, self._note_gap)

    def _take(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        if message.get("bad"):
            raise ZeroDivisionError

    def _note_gap(self) -> None:
        self.gaps += 1


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
async def hearer(own_valkey: Valkey) -> AsyncIterator[Hearer]:
    hearer = Hearer(own_valkey.url)
    hearer.listener.start()
    await until(lambda: hearer.gaps == 1)
    yield hearer
    await hearer.listener.stop()


def publish(url: str, *payloads: bytes) -> None:
    with Redis.from_url(url) as redis:
        for payload in payloads:
            redis.publish(CHANNEL, payload)


async def test_news_is_heard(hearer: Hearer, own_valkey: Valkey) -> None:
    publish(own_valkey.url, b'{"n":1}', b'{"n":2}')
    await until(lambda: len(hearer.messages) == 2)
    assert hearer.messages == [{"n": 1}, {"n": 2}]
    assert hearer.gaps == 1


async def test_unreadable_news_is_logged_and_skipped(hearer: Hearer, own_valkey: Valkey) -> None:
    with capture_logs() as logs:
        publish(own_valkey.url, b"\xff", b"[1]", b"{", b'{"n":1}')
        await until(lambda: len(hearer.messages) == 1)
    assert hearer.messages == [{"n": 1}]
    assert [entry["event"] for entry in logs] == ["change_unreadable"] * 3


async def test_callback_that_raises_ends_nothing(hearer: Hearer, own_valkey: Valkey) -> None:
    publish(own_valkey.url, b'{"bad":true}', b'{"n":1}')
    await until(lambda: len(hearer.messages) == 2)
    assert hearer.listener.is_connected is True


async def test_restart_of_redis_is_a_gap_and_then_news_is_heard(
    hearer: Hearer, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen, tries = hearer.listener._listen, 0

    async def counted() -> None:
        nonlocal tries
        tries += 1
        await listen()

    monkeypatch.setattr(hearer.listener, "_listen", counted)
    with capture_logs() as logs:
        own_valkey.stop()
        await until(lambda: not hearer.listener.is_connected)
        assert hearer.gaps == 1
        await until(lambda: tries >= 2)
        own_valkey.start()
        await until(lambda: hearer.gaps == 2)
    publish(own_valkey.url, b'{"n":1}')
    await until(lambda: hearer.messages == [{"n": 1}])
    events = [entry["event"] for entry in logs]
    assert events == ["change_listener_down", "change_listener_back"]


async def test_cut_connection_is_a_gap(hearer: Hearer, own_valkey: Valkey) -> None:
    with Redis.from_url(own_valkey.url) as redis:
        redis.client_kill_filter(_type="pubsub")
    await until(lambda: hearer.gaps == 2)


class Wire:
    """A connection to ``port`` through which bytes go until it is frozen. ``answers``: how often the far end spoke."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers = 0
        self._open = asyncio.Event()
        self._open.set()
        self.connections = 0

    def freeze(self) -> None:
        self._open.clear()

    def thaw(self) -> None:
        self._open.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer, answers=True))
        finally:
            far_writer.close()
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                self.answers += answers
                await self._open.wait()
                writer.write(data)
            writer.write_eof()


async def test_silent_connection_is_found_out_and_made_anew(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PING_INTERVAL", 0.1)
    monkeypatch.setattr(module, "_PONG_TIMEOUT", 10.0)
    wire = Wire(valkey.port)
    server = await asyncio.start_server(wire.accept, "127.0.0.1", 0)
    hearer = Hearer(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    hearer.listener.start()
    await until(lambda: hearer.gaps == 1)
    # Pings are answered: an idle connection is left alone.
    answered = wire.answers
    await until(lambda: wire.answers >= answered + 5)
    assert (hearer.gaps, wire.connections) == (1, 1)
    monkeypatch.setattr(module, "_PONG_TIMEOUT", 0.3)
    wire.freeze()
    await until(lambda: not hearer.listener.is_connected)
    wire.thaw()
    await until(lambda: hearer.gaps == 2)
    publish(valkey.url, b'{"n":1}')
    await until(lambda: hearer.messages == [{"n": 1}])
    await hearer.listener.stop()
    server.close()


async def test_listener_without_redis_starts_and_stops() -> None:
    hearer = Hearer("")
    hearer.listener.start()
    await asyncio.sleep(0)
    await hearer.listener.stop()
    assert (hearer.gaps, hearer.listener.is_connected) == (0, False)


async def test_stopped_listener_hears_nothing_more(hearer: Hearer, own_valkey: Valkey) -> None:
    await hearer.listener.stop()
    with Redis.from_url(own_valkey.url) as redis:
        assert redis.publish(CHANNEL, b'{"n":1}') == 0, "somebody still listens"
    assert hearer.messages == []
    assert hearer.listener.is_connected is False


async def test_listener_ends_although_a_cancellation_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = 0

    async def deaf(_listener: ChangeListener) -> None:
        nonlocal losses
        # As asyncio.wait_for, and so the client, when an answer comes at the same moment.
        while losses < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                losses += 1
        await asyncio.sleep(60)

    monkeypatch.setattr(ChangeListener, "_listen", deaf)
    listener = ChangeListener("redis://127.0.0.1:1/0", lambda _message: None, lambda: None)
    listener.start()
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await listener.stop()
    assert losses == 2
