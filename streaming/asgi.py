"""WebSocket routes. Room: streaming."""

from typing import Any, cast

from channels.routing import URLRouter
from django.urls import path, re_path

from streaming.consumers import Event, Receive, Send, TerminalConsumer
from streaming.factory import process_runtime


async def _not_found(scope: Event, receive: Receive, send: Send) -> None:
    await receive()
    if "websocket.http.response" in (scope.get("extensions") or {}):
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "websocket.http.response.start", "status": 404, "headers": headers})
        await send(
            {"type": "websocket.http.response.body", "body": b"no such endpoint; terminals connect to /ws/mt5\n"}
        )
    else:
        await send({"type": "websocket.close"})


websocket_application = URLRouter(
    [
        path("ws/mt5", TerminalConsumer.as_asgi(runtime=process_runtime)),
        re_path("", cast(Any, _not_found)),
    ]
)
