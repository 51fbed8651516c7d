"""A TCP proxy that loses answers: it swallows what the server says and resets connections, by a seeded plan."""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Self

_CHUNK = 65_536


class FaultyProxy:
    """Each connection goes to one of ``upstreams`` and has a fate of its own until ``calm`` is called.

    A fate is how many bytes of answers pass before they are swallowed, and how many seconds later the connection is
    reset. Counts what it did: ``swallowed`` (bytes) and ``resets``.
    """

    def __init__(self, upstreams: Callable[[], Sequence[int]], chance: random.Random, *, fault_rate: float) -> None:
        """``upstreams``: the ports of the servers that run now; ``fault_rate``: the part of connections with faults."""
        self._upstreams = upstreams
        self._chance = chance
        self._fault_rate = fault_rate
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.swallowed = 0
        self.resets = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def calm(self) -> None:
        """No faults from now on."""
        self._fault_rate = 0.0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # Cancelled only at the end of the proxy.
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports = list(self._upstreams())
        if not ports:
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._chance.choice(ports))
        passes, lives = -1, 0.0
        if self._chance.random() < self._fault_rate:
            # The welcome alone is about a kilobyte: some fates begin within it, some after many answers.
            passes, lives = self._chance.randrange(0, 6_000), self._chance.uniform(0.0, 0.3)
        up = asyncio.ensure_future(_copy(reader, far_writer))
        down = asyncio.ensure_future(self._answers(far_reader, writer, passes, lives))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for half in (up, down):
                half.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            if passes >= 0:
                _reset(far_writer)
                _reset(writer)
            far_writer.close()

    async def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: int, lives: float
    ) -> None:
        """Copies answers; once ``passes`` bytes (-1: no bound) have passed, swallows the rest for ``lives`` seconds."""
        while data := await reader.read(_CHUNK):
            if passes < 0:
                writer.write(data)
                await writer.drain()
                continue
            writer.write(data[:passes])
            self.swallowed += len(data[passes:])
            if len(data) <= passes:
                passes -= len(data)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(lives):
                    while more := await reader.read(_CHUNK):
                        self.swallowed += len(more)
            self.resets += 1
            return


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """A reset instead of an orderly end, as a network does it."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
