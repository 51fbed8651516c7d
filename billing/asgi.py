"""The endpoints where payments are told, without the middleware that pages need. Room: billing.

Nothing there reads a cookie, a language or a session, and each piece of middleware is a change of threads; with fifty
messages at once that was most of the time of an answer. What is left is Django's own request and view, in one thread.
Of a body no more is read than the view needs to see that it is too large: Django would keep all of it on disk first.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.exception import convert_exception_to_response

from billing.midtrans.payload import BODY_SIZE_LIMIT

_PATHS = re.compile(r"/billing/(?:midtrans/notifications|events)/?")
Receive = Callable[[], Awaitable[Any]]
Send = Callable[..., Awaitable[None]]
Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]


class _BareHandler(ASGIHandler):
    """Django without middleware, whatever the settings list."""

    def load_middleware(self, is_async: bool = False) -> None:
        # Django's own names of what it would fill here.
        bare: Any = self
        bare._view_middleware = bare._template_response_middleware = bare._exception_middleware = []
        bare._middleware_chain = convert_exception_to_response(bare._get_response_async)


def with_endpoints(application: Application) -> Application:
    """``application`` for everything else over HTTP. Call it once Django is set up."""
    endpoints = _BareHandler()

    async def route(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if _PATHS.fullmatch(scope["path"]):
            await endpoints(scope, bounded(receive, BODY_SIZE_LIMIT + 1), send)
        else:
            await application(scope, receive, send)

    return route


def bounded(receive: Receive, size: int) -> Receive:
    """A body of which only ``size`` bytes are handed on; whatever is sent beyond is dropped, and waited for: an answer
    that leaves before its request is all there may be lost to the sender."""
    left = size

    async def receive_some() -> Any:
        nonlocal left
        message = await receive()
        if message["type"] != "http.request":
            return message
        body = message.get("body", b"")[:left]
        left -= len(body)
        return {**message, "body": body}

    return receive_some
