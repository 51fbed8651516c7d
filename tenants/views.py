"""The exchange of a terminal's API key for a token. Room: tenants."""

import time
from functools import cache
from http import HTTPStatus

import msgspec
from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from tenants import access
from tenants.api_keys import user_of_api_key
from tenants.attempts import AttemptLimiter
from tenants.problems import problem
from tenants.tokens import issue_for

_BODY_LIMIT = 4_096
_REFUSALS = {
    "company_suspended": (403, "the company is suspended: ask its admin"),
    "payment_required": (402, "the company's paid time is over: its admin can renew it"),
}


class KeyExchange(msgspec.Struct):
    api_key: str


_decode = msgspec.json.Decoder(KeyExchange).decode


@csrf_exempt  # no cookie is read here: the key in the body is the proof
@require_POST
def exchange_api_key(request: HttpRequest) -> HttpResponse:
    """``{"api_key": "gwk_…"}`` → 201 with a short-lived token; every error is problem+json."""
    if request.content_type != "application/json":
        return problem(415, "unsupported_media_type", "send application/json")
    if int(request.headers.get("Content-Length") or 0) > _BODY_LIMIT:
        return problem(413, "too_large", f"the body takes at most {_BODY_LIMIT} bytes")
    try:
        key = _decode(request.body).api_key
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return problem(400, "malformed", 'send {"api_key": "gwk_…"}')
    wait = max(_limiter().wait_for(request.META.get("REMOTE_ADDR", "")), _limiter().wait_for(key[:12]))
    if wait:
        return problem(429, "rate_limited", "too many exchanges: try again later", retry_after=wait)
    try:
        return _exchange(key)
    except DatabaseError:
        return problem(503, "identity_unavailable", "try again", retry_after=5)


def _exchange(key: str) -> HttpResponse:
    user = user_of_api_key(key)
    granted = None if user is None else access.terminal_access(str(user.pk))
    if user is None or granted is None or granted.refusal == "user_disabled":
        # Wrong, revoked, expired and disabled look alike.
        return problem(HTTPStatus.UNAUTHORIZED, "api_key_invalid", "this API key is not valid: ask the company's admin")
    if granted.refusal:
        status, detail = _REFUSALS[granted.refusal]
        return problem(status, granted.refusal, detail)
    now = time.time()
    ttl = settings.GATEWAY_TOKEN_TTL
    answer = {
        "token": issue_for(user, ttl, now),
        "token_type": "Bearer",
        "expires_at": int(now + ttl),
        "expires_in": int(ttl),
        "user_id": str(user.pk),
    }
    return JsonResponse(answer, status=201, headers={"Cache-Control": "no-store"})


@cache
def _limiter() -> AttemptLimiter:
    rate = settings.GATEWAY_TOKEN_EXCHANGE_RATE_LIMIT
    return AttemptLimiter(rate, 5 * rate)
