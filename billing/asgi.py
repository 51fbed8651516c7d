"""The endpoints where payments are told, without the middleware that pages need. Room: billing.

Nothing there reads a cookie, a language or a session, and each piece of middleware is a change of threads; with fifty
messages at once that was most of the time of an answer. What is left is Django's own request and view, in one thread.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.exception import convert_exception_to_response

_PATHS = re.compile(r"/billing/(?:midtrans/notifications|events)/?")
Application = Callable[[dict[str, Any], Callable[..., Awaitable[Any]], Callable[..., Awaitable[None]]], Awaitable[None]]


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

    async def route(
        scope: dict[str, Any], receive: Callable[..., Awaitable[Any]], send: Callable[..., Awaitable[None]]
    ) -> None:
        chosen = endpoints if _PATHS.fullmatch(scope["path"]) else application
        await chosen(scope, receive, send)

    return route
