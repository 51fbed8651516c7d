"""``manage.py echo_server``: an echo application on the production WebSocket stack. Room: gateway_project.

For conformance and abuse tests on a development machine: no identity, no limits but the size of a message.
"""

from argparse import ArgumentParser
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gateway_project.server import apply_limits, listen, server_config

Event = dict[str, Any]


async def echo(scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]) -> None:
    """Sends every message back as it came."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 426, "headers": [(b"upgrade", b"websocket")]})
        await send({"type": "http.response.body", "body": b"this is a WebSocket echo server\n"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        data = event.get("bytes")
        await send(
            {"type": "websocket.send", "text": event["text"]}
            if data is None
            else {"type": "websocket.send", "bytes": data}
        )


class Command(BaseCommand):
    help = "Development only: echoes WebSocket messages on the production stack."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, required=True)
        parser.add_argument("--max-size", type=int, default=settings.GATEWAY_MESSAGE_SIZE_LIMIT, help="bytes a message")
        parser.add_argument("--ssl-certfile", default="", help="PEM certificate; without it there is no TLS")
        parser.add_argument("--ssl-keyfile", default="", help="PEM key of the certificate")

    def handle(self, *_args: Any, **options: Any) -> None:
        if settings.IS_PRODUCTION:
            raise CommandError("the echo server is for development machines")
        ssl = {name: options[name] for name in ("ssl_certfile", "ssl_keyfile") if options[name]}
        apply_limits()
        listener = listen(options["host"], options["port"], shared=False)
        config = server_config(echo, message_size_limit=options["max_size"], ssl=ssl)
        self.stderr.write(f"echo on {'wss' if ssl else 'ws'}://{options['host']}:{options['port']}/, Ctrl-C stops it")
        uvicorn.Server(config).run(sockets=[listener])
