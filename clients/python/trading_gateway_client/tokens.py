"""Where a client's token comes from."""

import asyncio
import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

from trading_gateway_client.errors import TokenUnavailable, is_final_refusal, is_problem, seconds_of

# Gives a token; raises TokenUnavailable.
TokenSource = Callable[[], Awaitable[str]]
_TIMEOUT = 10.0
# Nobody there, or somebody who speaks no HTTP or no JSON, or JSON of another shape.
_UNREADABLE = (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError)


class FixedToken:
    """One token, for as long as it lasts."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def __call__(self) -> str:
        return self._token


def fixed_token(token: str) -> TokenSource:
    """One token, for as long as it lasts; a client stops when it has run out."""
    return FixedToken(token)


def api_key_token(gateway: str, api_key: str, *, tls: ssl.SSLContext | None = None) -> TokenSource:
    """Exchanges an API key at ``POST /api/v1/tokens``; ``gateway``: for instance ``https://gateway.example``."""
    if not gateway.startswith(("https://", "http://")):
        raise ValueError("gateway is an address that begins with https:// (or http:// on a development machine)")
    request = urllib.request.Request(  # noqa: S310 (the scheme is checked above)
        gateway.rstrip("/") + "/api/v1/tokens",
        data=json.dumps({"api_key": api_key}).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )

    def exchange() -> str:
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT, context=tls) as answer:  # noqa: S310
                return _token_of(json.load(answer))
        except urllib.error.HTTPError as error:
            code, detail, retry_after = _problem(error)
            is_final = is_final_refusal(error.code, code)
            raise TokenUnavailable(error.code, detail, retry_after, code=code, is_final=is_final) from None
        except _UNREADABLE as error:
            # Also what is no answer of the gateway, but of something before it.
            raise TokenUnavailable(0, f"the gateway does not answer ({type(error).__name__})") from None

    async def get() -> str:
        return await asyncio.to_thread(exchange)

    return get


def _token_of(answer: Any) -> str:
    token = answer["token"]
    # It becomes part of a header: a line break in it would be another header.
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token.strip():
        raise ValueError("not a token")
    return token


def _problem(error: urllib.error.HTTPError) -> tuple[str, str, float]:
    """Code ("" when it is not the gateway's own answer), detail, seconds to wait."""
    retry_after = error.headers.get("Retry-After", "")
    code, detail = "", f"HTTP {error.code}"
    try:
        if is_problem(error.headers.get("Content-Type", "")):
            problem = json.load(error)
            code, detail = str(problem["code"]), str(problem["detail"])
    except _UNREADABLE:
        pass
    finally:
        error.close()
    return code, detail, seconds_of(retry_after)
