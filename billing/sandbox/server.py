"""The stand-in as a process: Django's request and response objects on uvicorn, nothing else of the product.

Room: billing (sandbox). No middleware, no database, no sessions: its own paths and its own state in memory.
"""

import asyncio
import socket
from typing import Any

import structlog
import uvicorn
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, get_resolver

from billing.sandbox.methods import ApiError
from billing.sandbox.state import Sandbox

log = structlog.get_logger(__name__)

_SWEEP_INTERVAL = 0.5


class SandboxHandler(ASGIHandler):
    """An ASGI application on the paths of the stand-in."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__()
        self._sandbox = sandbox

    def load_middleware(self, is_async: bool = False) -> None:
        """None is wanted."""

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        try:
            match = get_resolver("billing.sandbox.urls").resolve(request.path_info)
        except Resolver404:
            return JsonResponse({"status_code": "404", "status_message": "no such address"}, status=404)
        try:
            response: HttpResponseBase = await match.func(request, self._sandbox, **match.kwargs)
        except ApiError as error:
            code = int(error.code)
            response = JsonResponse(
                {"status_code": error.code, "status_message": error.message},
                status=code if code in (400, 404) else 409,
            )
        except Exception:
            log.exception("sandbox_failed", path=request.path_info)
            response = HttpResponse("the stand-in failed: see its log", status=500)
        return response


async def serve(sandbox: Sandbox, listener: socket.socket) -> None:
    """Until SIGINT or SIGTERM."""
    config = uvicorn.Config(
        SandboxHandler(sandbox), lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1
    )
    sweeper = asyncio.create_task(_sweep(sandbox))
    try:
        await uvicorn.Server(config).serve(sockets=[listener])
    finally:
        sweeper.cancel()
        sandbox.notifier.stop()


async def _sweep(sandbox: Sandbox) -> Any:
    while True:
        await asyncio.sleep(_SWEEP_INTERVAL)
        sandbox.sweep()
