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
from gateway_project.processes import is_child  # noqa: E402
from streaming.asgi import websocket_application  # noqa: E402
from streaming.factory import process_runtime  # noqa: E402

# Seconds that one of several processes waits for its Kafka before it listens: until then the others serve the port.
_WARM_UP_TIMEOUT = 5.0


async def lifespan(
    _scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Starts the runtime before the first connection; its drain comes before the server's shutdown, see ``server``."""
    await receive()
    runtime = process_runtime()
    if is_child():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WARM_UP_TIMEOUT):
                while runtime.problems():
                    await asyncio.sleep(0.02)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await runtime.stop()
    await send({"type": "lifespan.shutdown.complete"})


application = ProtocolTypeRouter(
    {"http": with_endpoints(django_application), "websocket": websocket_application, "lifespan": lifespan}
)
