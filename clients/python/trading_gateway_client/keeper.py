"""What a connection needs besides messages: pings, a new token in time, an end when the other side is silent."""

import asyncio
import logging
import time

from trading_gateway_client.backoff import Backoff
from trading_gateway_client.connection import Connection
from trading_gateway_client.errors import TokenUnavailable
from trading_gateway_client.forms import Form
from trading_gateway_client.pb import control_pb2
from trading_gateway_client.tokens import TokenSource

log = logging.getLogger("trading_gateway_client")

_PING_INTERVAL = 15.0
# Seconds without any answer, pings being sent, after which the other side is given up.
_SILENCE_LIMIT = 60.0
# A new token is fetched when this part of the old one's time is over.
_REFRESH_AT = 0.8
_GOING_AWAY = 1001


async def keep(connection: Connection, form: Form, token: TokenSource, welcome: control_pb2.Welcome) -> None:
    """Runs while the connection is open; a token that cannot be had is asked for again, ever more rarely."""
    clock = asyncio.get_running_loop().time
    # Both times are the gateway's: the clock of this machine may be wrong.
    lifetime = max(1.0, (welcome.token_expires_at_ms - welcome.server_time_ms) / 1000 * _REFRESH_AT)
    refresh_at = clock() + lifetime
    failures = Backoff(base=2.0)
    while connection.is_open:
        if clock() - connection.heard_at > _SILENCE_LIMIT:
            connection.close(_GOING_AWAY, "no answer any more")
            return
        ping = control_pb2.Ping(client_time_ms=time.time_ns() // 1_000_000)
        connection.send(form.frame("gateway.ping", ping))
        await asyncio.sleep(min(_PING_INTERVAL, max(0.1, refresh_at - clock())))
        if clock() < refresh_at:
            continue
        try:
            new = await token()
        except Exception as error:
            # The gateway ends the connection when the old one has run out, and the next connect tells the reason.
            log.warning("the token cannot be refreshed: %s", error)
            retry_after = error.retry_after if isinstance(error, TokenUnavailable) else 0.0
            refresh_at = clock() + 1.0 + retry_after + failures.after_failure()
            continue
        if connection.is_open:
            connection.send(form.frame("gateway.refresh", control_pb2.Refresh(token=new)))
        # The gateway does not say how long the new one lasts; ask again after as long as the last.
        refresh_at = clock() + lifetime
