"""The composition root: which application answers which protocol. Room: gateway_project."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_project.settings")
# Before anything that may load models.
django_application = get_asgi_application()

from channels.routing import ProtocolTypeRouter  # noqa: E402

from streaming.asgi import websocket_application  # noqa: E402
from streaming.factory import process_runtime  # noqa: E402


async def lifespan(
    _scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Starts the runtime before the first connection; its drain comes before the server's shutdown, see ``server``."""
    await receive()
    process_runtime()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await process_runtime().stop()
    await send({"type": "lifespan.shutdown.complete"})


application = ProtocolTypeRouter({"http": django_application, "websocket": websocket_application, "lifespan": lifespan})
