"""Where a client's token comes from."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable

from trading_gateway_client.errors import TokenUnavailable

# Gives a token; raises TokenUnavailable.
TokenSource = Callable[[], Awaitable[str]]
_TIMEOUT = 10.0


def fixed_token(token: str) -> TokenSource:
    """One token, for as long as it lasts."""

    async def get() -> str:
        return token

    return get


def api_key_token(gateway: str, api_key: str) -> TokenSource:
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
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
                return str(json.load(answer)["token"])
        except urllib.error.HTTPError as error:
            detail, retry_after = _problem(error)
            raise TokenUnavailable(error.code, detail, retry_after) from None
        except (OSError, ValueError, KeyError) as error:
            raise TokenUnavailable(0, f"the gateway does not answer ({type(error).__name__})") from None

    async def get() -> str:
        return await asyncio.to_thread(exchange)

    return get


def _problem(error: urllib.error.HTTPError) -> tuple[str, float]:
    retry_after = error.headers.get("Retry-After", "")
    try:
        detail = str(json.load(error)["detail"])
    except (OSError, ValueError, KeyError):
        detail = f"HTTP {error.code}"
    finally:
        error.close()
    return detail, float(retry_after) if retry_after.isdecimal() else 0.0
