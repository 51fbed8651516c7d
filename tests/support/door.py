"""The production HTTP and WebSocket stack in this process, in front of an application that tells what it was given."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn
import uvloop

from gateway_project.server import apply_limits, listen, server_config

Event = dict[str, Any]


class Door:
    """``scopes``: what the application was called with, one for each request or handshake."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.scopes: list[Event] = []

    async def application(self, scope: Event, receive: Any, send: Any) -> None:
        """Answers with the size of the body; refuses a WebSocket with 403."""
        if scope["type"] == "lifespan":
            for what in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{what}.complete"})
            return
        if scope["type"] == "websocket":
            self.scopes.append(scope)
            await receive()
            await send({"type": "websocket.close", "code": 1000})
            return
        size, more = 0, True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            size += len(event.get("body", b""))
            more = event.get("more_body", False)
        self.scopes.append(scope)
        body = json.dumps({"size": size}).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def header(self, name: str, at: int = -1) -> list[str]:
        """All values of a header that the application was given."""
        return [value.decode("latin-1") for key, value in self.scopes[at]["headers"] if key.decode().lower() == name]

    async def ask(self, *pieces: bytes) -> bytes:
        """All that comes back until the end, after these pieces went out, each in a write of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                # The server may have said its last word already.
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
                await asyncio.sleep(0)
            # Longer than the longest time that a request may take.
            async with asyncio.timeout(60):
                return await reader.read()
        finally:
            writer.close()


@contextlib.contextmanager
def open_door(*, timeout_keep_alive: int | None = None) -> Iterator[Door]:
    """In a thread, on the loop that production runs on: how connections end is the loop's. Reads the settings now.

    ``timeout_keep_alive``: seconds, for those of production.
    """
    apply_limits()
    listener = listen("127.0.0.1", 0, shared=False)
    door = Door(listener.getsockname()[1])
    config = server_config(door.application, message_size_limit=65_536)
    if timeout_keep_alive is not None:
        config.timeout_keep_alive = timeout_keep_alive
    server = uvicorn.Server(config)
    # ``serve`` would take over the signals of the tests.
    thread = threading.Thread(target=lambda: uvloop.run(server._serve(sockets=[listener])), name="door")
    thread.start()
    try:
        yield door
    finally:
        server.should_exit = True
        thread.join(10)
