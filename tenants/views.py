"""The exchange of a terminal's API key for a token. Room: tenants."""

import re
import time
from functools import cache
from http import HTTPStatus

import msgspec
from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from tenants import access
from tenants.api_keys import digest_of, usable_api_key
from tenants.attempts import AttemptLimiter
from tenants.bodies import EXCHANGE_SIZE_LIMIT
from tenants.models import ApiKey
from tenants.problems import problem
from tenants.tokens import issue_for

_CONTENT_LENGTH = re.compile(r"[0-9]{1,18}")
_REFUSALS = {
    "company_suspended": (403, "the company is suspended: ask its admin"),
    "payment_required": (402, "the company's paid time is over: its admin can renew it"),
}


class KeyExchange(msgspec.Struct):
    api_key: str


_decode = msgspec.json.Decoder(KeyExchange).decode


@csrf_exempt  # no cookie is read here: the key in the body is the proof
def exchange_api_key(request: HttpRequest) -> HttpResponse:
    """``{"api_key": "gwk_…"}`` → 201 with a short-lived token; every error is problem+json."""
    if request.method != "POST":
        answer = problem(405, "method_not_allowed", "send a POST")
        answer["Allow"] = "POST"
        return answer
    if request.content_type != "application/json":
        return problem(415, "unsupported_media_type", "send application/json")
    key = _key_of(request)
    if isinstance(key, HttpResponse):
        return key
    # The address first: whoever is held back by it must not use up the attempts of somebody else's key.
    address = request.META.get("REMOTE_ADDR", "")
    wait = _limiter().wait_for(f"address {address}") or _limiter().wait_for(f"key {digest_of(key)}")
    if wait:
        return problem(429, "rate_limited", "too many exchanges: try again later", retry_after=wait)
    try:
        return _exchange(key)
    except (DatabaseError, InterfaceError):
        return problem(503, "identity_unavailable", "try again", retry_after=5)


def _key_of(request: HttpRequest) -> str | HttpResponse:
    """The key in the body, or the answer to a body that holds none."""
    malformed = problem(400, "malformed", 'send {"api_key": "gwk_…"}')
    length = request.headers.get("Content-Length", "")
    if length and _CONTENT_LENGTH.fullmatch(length) is None:
        return malformed
    too_large = problem(413, "too_large", f"the body takes at most {EXCHANGE_SIZE_LIMIT} bytes")
    if int(length or 0) > EXCHANGE_SIZE_LIMIT:
        return too_large
    try:
        # A chunked body comes without a length: what is read is bounded whatever the header says.
        body = request.read(EXCHANGE_SIZE_LIMIT + 1)
        if len(body) > EXCHANGE_SIZE_LIMIT:
            return too_large
        return _decode(body).api_key
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError):
        # Not JSON, not UTF-8, nested too deeply, or cut off by the peer.
        return malformed


def _exchange(key: str) -> HttpResponse:
    row = usable_api_key(key)
    granted = None if row is None else access.terminal_access(str(row.user_id))
    if row is None or granted is None or granted.refusal == "user_disabled":
        # Wrong, revoked, expired and disabled look alike.
        return problem(HTTPStatus.UNAUTHORIZED, "api_key_invalid", "this API key is not valid: ask the company's admin")
    if row.scope != ApiKey.Scope.STREAM:
        return problem(403, "scope_missing", "this key may not stream: ask the company's admin for one that may")
    if granted.refusal:
        status, detail = _REFUSALS[granted.refusal]
        return problem(status, granted.refusal, detail)
    account = row.account.login if row.account is not None else ""
    if account and account not in granted.accounts:
        # Disabled, or more than the plan has now.
        detail = f"MT5 account {account}, which this key is bound to, may not stream now: ask the company's admin"
        return problem(403, "account_not_allowed", detail)
    now = time.time()
    ttl = settings.GATEWAY_TOKEN_TTL
    answer = {
        "token": issue_for(row.user, ttl, now, api_key=str(row.pk), account=account),
        "token_type": "Bearer",
        "expires_at": int(now + ttl),
        "expires_in": int(ttl),
        "user_id": str(row.user_id),
        # "" for a key that is bound to none.
        "account": account,
    }
    return JsonResponse(answer, status=201, headers={"Cache-Control": "no-store"})


@cache
def _limiter() -> AttemptLimiter:
    rate = settings.GATEWAY_TOKEN_EXCHANGE_RATE_LIMIT
    # A rate below one in five seconds must still let a first attempt through.
    return AttemptLimiter(rate, max(1.0, 5 * rate))
