"""Where a client's token comes from."""

import asyncio
import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

from trading_gateway_client.errors import TokenUnavailable, seconds_of

# Gives a token; raises TokenUnavailable.
TokenSource = Callable[[], Awaitable[str]]
_TIMEOUT = 10.0
# Nobody there, or somebody who speaks no HTTP or no JSON, or JSON of another shape.
_UNREADABLE = (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError)


def fixed_token(token: str) -> TokenSource:
    """One token, for as long as it lasts."""

    async def get() -> str:
        return token

    return get


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
            detail, retry_after = _problem(error)
            raise TokenUnavailable(error.code, detail, retry_after) from None
        except _UNREADABLE as error:
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


def _problem(error: urllib.error.HTTPError) -> tuple[str, float]:
    retry_after = error.headers.get("Retry-After", "")
    try:
        detail = str(json.load(error)["detail"])
    except _UNREADABLE:
        detail = f"HTTP {error.code}"
    finally:
        error.close()
    return detail, seconds_of(retry_after)
