"""uvicorn as this product runs it: bounded handshakes, our WebSocket class, and a drain before the shutdown.

Room: gateway_project. uvicorn's own shutdown closes every connection in one tick and only then tells the application.
"""

import asyncio
import gc
import logging
import socket
import time
from typing import Any

import structlog
import uvicorn
from django.conf import settings

from gateway_project.bodies import body_bounds
from gateway_project.notify import STOPPING, tell_service_manager
from streaming.factory import process_runtime
from streaming.wire.forwarded import ForwardedHeaders, networks
from streaming.wire.http import BoundedHttpProtocol
from streaming.wire.websocket import GatewayWebSocketProtocol

log = structlog.get_logger(__name__)

_BACKLOG = 2048
_SOCKET_BUFFER_SIZE = 131_072
# A denied handshake is an ordinary answer here; uvicorn logs each as an error.
_HARMLESS = ("ASGI callable returned without completing handshake.",)


class GatewayServer(uvicorn.Server):
    """Stops listening, lets every terminal go with all its answers, then shuts down as uvicorn does."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        tell_service_manager(STOPPING)
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        try:
            async with asyncio.timeout(settings.GATEWAY_DRAIN_TIMEOUT + 2):
                await process_runtime().drain()
        except TimeoutError:
            log.error("drain_timed_out")
        # Each has its close frame; whoever is closed before it has answered may never read it.
        until = time.monotonic() + settings.GATEWAY_CLOSE_TIMEOUT
        while self._has_terminals() and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets=None)
        # uvicorn raises the signal again once it is done, which would turn an orderly end into exit status 143.
        self._captured_signals.clear()

    def _has_terminals(self) -> bool:
        return any(isinstance(one, GatewayWebSocketProtocol) for one in self.server_state.connections)


def listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket bound to the port. ``shared``: several processes on one port, the kernel spreads the connections over
    those that listen, and the server does that itself once it has started; a port of one process listens at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Connections inherit them. By default the kernel takes 4 MB for a client that does not read, and hands over a
    # quarter of a megabyte at a time from one that floods; a terminal needs a few kilobytes.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_SIZE)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_SIZE)
    listener.bind((host, port))
    if not shared:
        listener.listen(_BACKLOG)
    listener.set_inheritable(True)
    return listener


def apply_limits() -> None:
    """The settings that live on uvicorn's protocol classes."""
    BoundedHttpProtocol.handshake_timeout = settings.GATEWAY_HANDSHAKE_TIMEOUT
    BoundedHttpProtocol.handshake_max_size = settings.GATEWAY_HANDSHAKE_MAX_SIZE
    BoundedHttpProtocol.body_bounds = body_bounds()
    GatewayWebSocketProtocol.outbound_max_size = settings.GATEWAY_OUTBOUND_MAX_SIZE
    GatewayWebSocketProtocol.close_grace = settings.GATEWAY_CLOSE_TIMEOUT
    GatewayWebSocketProtocol.fragment_limit = settings.GATEWAY_FRAGMENT_LIMIT
    GatewayWebSocketProtocol.control_rate_limit = settings.GATEWAY_CONTROL_FRAME_RATE_LIMIT
    GatewayWebSocketProtocol.read_turn_limit = settings.GATEWAY_READ_TURN_LIMIT


def server_config(app: Any, *, message_size_limit: int, ssl: dict[str, str] | None = None) -> uvicorn.Config:
    """``ssl``: ssl_certfile and ssl_keyfile; without it TLS is the proxy's."""
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.getMessage() not in _HARMLESS)
    return uvicorn.Config(
        ForwardedHeaders(app, networks(settings.GATEWAY_TRUSTED_PROXIES)),
        loop="uvloop",
        http=BoundedHttpProtocol,
        ws=GatewayWebSocketProtocol,
        ws_max_size=message_size_limit,
        ws_per_message_deflate=False,
        # Our own pings end a silent peer with the right code.
        ws_ping_interval=None,
        ws_ping_timeout=None,
        lifespan="on",
        backlog=_BACKLOG,
        # Ours looks at them, and lets nobody behind it see them.
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=5,
        **(ssl or {}),  # type: ignore[arg-type]  # paths
    )


def tune_garbage_collection() -> None:
    """What is loaded by now stays, and messages make no cycles: looking through all of it for every 700 new objects
    is a large part of a busy process's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1_000)


def serve(listener: socket.socket, config: uvicorn.Config) -> None:
    """Blocks until SIGTERM or SIGINT and the drain that follows."""
    apply_limits()
    tune_garbage_collection()
    GatewayServer(config).run(sockets=[listener])
