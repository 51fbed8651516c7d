"""The composition root: which application answers which protocol. Room: gateway_project."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_project.settings")
# Before anything that may load models.
django_application = get_asgi_application()

from channels.routing import ProtocolTypeRouter  # noqa: E402

from billing.asgi import with_endpoints  # noqa: E402
from gateway_project.notify import READY, tell_service_manager  # noqa: E402
from gateway_project.processes import is_child  # noqa: E402
from streaming.asgi import websocket_application  # noqa: E402
from streaming.factory import process_runtime  # noqa: E402
from streaming.runtime import Runtime  # noqa: E402

# Seconds that one of several processes waits for its Kafka before it listens: until then the others serve the port.
_WARM_UP_TIMEOUT = 5.0
# Seconds after which systemd hears that the process is up although it is not ready: the console works without Kafka.
_READY_TIMEOUT = 30.0


async def lifespan(
    _scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Starts the runtime before the first connection; its drain comes before the server's shutdown, see ``server``."""
    await receive()
    runtime = process_runtime()
    if is_child():
        await _ready(runtime, _WARM_UP_TIMEOUT)
    await send({"type": "lifespan.startup.complete"})
    telling = asyncio.create_task(_tell_when_ready(runtime))
    await receive()
    telling.cancel()
    await runtime.stop()
    await send({"type": "lifespan.shutdown.complete"})


async def _ready(runtime: Runtime, seconds: float) -> None:
    """Returns when the runtime can take connections, or when the time is up."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while runtime.problems():
                await asyncio.sleep(0.02)


async def _tell_when_ready(runtime: Runtime) -> None:
    """So that who restarts one gateway after the other goes on when this one serves."""
    await _ready(runtime, _READY_TIMEOUT)
    tell_service_manager(READY)


application = ProtocolTypeRouter(
    {"http": with_endpoints(django_application), "websocket": websocket_application, "lifespan": lifespan}
)
