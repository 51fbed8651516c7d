"""What no page is asked with, and who asks for no page. Room: gateway_project."""

from collections.abc import Callable
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from streaming.views import livez, metrics, readyz

# What looks after processes asks each by its own address, which is no name of the product's, and in plain HTTP.
_PROBES = {"/livez": livez, "/readyz": readyz, "/metrics": metrics}


@sync_and_async_middleware
def answer_probes(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """The first of all: answers health checks and Prometheus whatever Host they name."""

    async def asynchronous(request: HttpRequest) -> HttpResponseBase:
        probe = _PROBES.get(request.path)
        response: HttpResponseBase = await (get_response if probe is None else probe)(request)
        return response

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        probe = _PROBES.get(request.path)
        response: HttpResponseBase = get_response(request) if probe is None else async_to_sync(probe)(request)
        return response

    return asynchronous if iscoroutinefunction(get_response) else synchronous


@sync_and_async_middleware
def only_utf8_forms(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Answers 400 to a form that says it is in another encoding.

    Django refuses it as well, but where the form is read: by the check for forged requests, which its page for the
    refusal runs once more, and that for the error after it, so that no answer comes of it but a traceback.
    """

    async def asynchronous(request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = _refusal(request) or await get_response(request)
        return response

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = _refusal(request) or get_response(request)
        return response

    return asynchronous if iscoroutinefunction(get_response) else synchronous


def _refusal(request: HttpRequest) -> HttpResponse | None:
    is_form = request.content_type == "application/x-www-form-urlencoded"
    if not is_form or request.encoding is None or request.encoding.lower() == "utf-8":
        return None
    return HttpResponse("Send the form in UTF-8.\n", status=400, content_type="text/plain; charset=utf-8")
