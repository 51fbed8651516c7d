"""Many requests at once over kept connections, each answer with its time."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answered:
    """``began``: time.monotonic; ``code`` 0: no answer."""

    code: int
    began: float
    seconds: float


class Poster:
    """One connection to loopback, made anew when the server has closed it."""

    def __init__(self, port: int, *, timeout: float = 20.0) -> None:
        self._port = port
        self._timeout = timeout
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: dict[str, Any], **headers: str) -> Answered:
        data = json.dumps(body).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: 127.0.0.1:{self._port}",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                code = await self._exchange("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self.close()
            code = 0
        return Answered(code, began, time.monotonic() - began)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, request: bytes) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
        await reader.readexactly(length)
        if "connection: close" in head:
            self.close()
        return int(head.split(" ", 2)[1])
