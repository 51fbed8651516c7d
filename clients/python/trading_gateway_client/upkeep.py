"""What a connection needs besides messages: pings, a new token in time, an end when the other side is silent."""

import asyncio
import logging
import time
from collections.abc import Callable

from trading_gateway_client.connection import Connection
from trading_gateway_client.errors import TokenUnavailable
from trading_gateway_client.forms import Form
from trading_gateway_client.keeper import SILENCE_LIMIT, Keeper
from trading_gateway_client.pb import control_pb2
from trading_gateway_client.tokens import TokenSource

log = logging.getLogger("trading_gateway_client")

_GOING_AWAY = 1001


class Upkeep:
    """Does for one connection what its keeper says. Times are of the event loop's clock."""

    def __init__(
        self,
        connection: Connection,
        form: Form,
        token: TokenSource,
        keeper: Keeper,
        heard: Callable[[], int | None],
        on_change: Callable[[], None],
    ) -> None:
        """``heard``: what pings tell the gateway; ``on_change``: ``next_at`` is another one outside of ``tick``."""
        self._connection = connection
        self._form = form
        self._token = token
        self._keeper = keeper
        self._heard = heard
        self._on_change = on_change
        self._refreshing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def next_at(self) -> float:
        return self._keeper.next_at

    def tick(self, now: float) -> None:
        connection, keeper = self._connection, self._keeper
        if not connection.is_open:
            return
        if now - connection.heard_at > SILENCE_LIMIT:
            connection.close(_GOING_AWAY, "no answer any more")
            return
        if keeper.must_ping(now):
            client_time_ms = time.time_ns() // 1_000_000
            ping = control_pb2.Ping(client_time_ms=client_time_ms, heard_sequence=self._heard() or 0)
            connection.send(self._form.frame("gateway.ping", ping))
        if keeper.must_refresh(now) and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = self._loop.create_task(self._refresh())

    def answered(self, answer: control_pb2.Policy | control_pb2.Nack, now: float) -> None:
        keeper = self._keeper
        if isinstance(answer, control_pb2.Nack):
            # Refreshes have no sequence; a ping that is refused meanwhile costs one refresh more.
            if keeper.is_waiting and not answer.sequence:
                keeper.refused(now, answer.retry_after_ms / 1000)
        elif answer.token_expires_at_ms:
            keeper.told(now, answer.token_expires_at_ms, answer.server_time_ms)
        elif keeper.is_waiting:
            keeper.taken(now)

    def end(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()

    async def _refresh(self) -> None:
        try:
            token = await self._token()
        except Exception as error:
            # The gateway ends the connection when the old one has run out, and the next connect tells the reason.
            log.warning("the token cannot be refreshed: %s", error)
            retry_after = error.retry_after if isinstance(error, TokenUnavailable) else 0.0
            self._keeper.refused(self._loop.time(), retry_after)
        else:
            if self._connection.is_open:
                self._connection.send(self._form.frame("gateway.refresh", control_pb2.Refresh(token=token)))
            self._keeper.sent(self._loop.time())
        self._on_change()
