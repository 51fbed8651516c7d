"""Whether somebody listens where the gateway should be, before load is made for it. Room: streaming.tools."""

import asyncio
from urllib.parse import urlsplit

_PAUSE = 0.1
_CONNECT_TIMEOUT = 5.0


class GatewayNotThere(Exception):
    """The message names the address and what to do."""


async def reach(url: str, patience: float, stopped: asyncio.Event) -> None:
    """Returns once somebody takes connections there, or ``stopped`` is set.

    Raises GatewayNotThere for an address that is none, and after ``patience`` seconds.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "wss" else 80)
    except ValueError:
        host = None
    if parts.scheme not in ("ws", "wss") or not host:
        raise GatewayNotThere(f"{url} is no address of a gateway: use ws://HOST:PORT/ws/mt5 or wss://HOST/ws/mt5")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while not stopped.is_set():
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            if loop.time() >= deadline:
                why = str(error) or "no answer"
                hint = "start one with make run, or say where it is with --url or GATEWAY_PORT"
                raise GatewayNotThere(f"no gateway at {url} ({why}): {hint}") from None
            await asyncio.sleep(_PAUSE)
        else:
            writer.close()
            return
