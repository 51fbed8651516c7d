"""Errors over HTTP as RFC 9457 says: application/problem+json. Room: tenants."""

import math
from http import HTTPStatus

from django.http import JsonResponse


def problem(status: int, code: str, detail: str, *, retry_after: float = 0.0) -> JsonResponse:
    """``code`` is stable, ``detail`` says what to do; ``retry_after`` in seconds, 0: waiting does not help."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    headers = {"Cache-Control": "no-store"}
    if retry_after:
        headers["Retry-After"] = str(math.ceil(retry_after))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return JsonResponse(body, status=status, headers=headers, content_type="application/problem+json")
