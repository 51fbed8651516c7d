"""A terminal's side of the gateway: send, know for each message whether Kafka has it, come back after anything."""

import asyncio
import logging
import math
import secrets
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import Message

from trading_gateway_client.connection import Connection, End, address_of, open_connection
from trading_gateway_client.core import Core
from trading_gateway_client.ends import Ends, level_of
from trading_gateway_client.errors import (
    ConnectionEnded,
    GatewayClientError,
    HandshakeRefused,
    TokenUnavailable,
    UnreadableAnswer,
)
from trading_gateway_client.forms import FORMS, Control
from trading_gateway_client.journal import Entry, Journal
from trading_gateway_client.keeper import Keeper
from trading_gateway_client.outcomes import Outcomes
from trading_gateway_client.pb import control_pb2, payloads_pb2
from trading_gateway_client.tokens import FixedToken, TokenSource
from trading_gateway_client.upkeep import Upkeep

log = logging.getLogger("trading_gateway_client")

# Called with each message that is settled, once over all its offers: the entry, and the seconds from ``send`` to its
# answer, whatever lay between (0.0 for one that an earlier run of the program left in the journal).
OnSettled = Callable[[Entry, float], None]
# Called with each refused batch of which older ticks are let go, and those ticks.
OnDropped = Callable[[Entry, list[payloads_pb2.Tick]], None]
# Called when there is no connection: why, and in how many seconds the next try begins.
OnDisconnect = Callable[[Exception, float], None]

_WELCOME_TIMEOUT = 10.0
_PROTOCOL_ERROR = 1002


class GatewayClient:
    """One stream to one gateway. ``start`` it, ``send`` to it, ``close`` it; it reconnects and resumes by itself."""

    def __init__(
        self,
        url: str,
        token: TokenSource,
        *,
        stream_id: str = "",
        account: str = "",
        form: str = "protobuf",
        journal: Journal | None = None,
        ticks: str = "reoffer",
        reoffer: bool = True,
        on_settled: OnSettled | None = None,
        on_dropped: OnDropped | None = None,
        on_notice: Callable[[control_pb2.Notice], None] | None = None,
        on_disconnect: OnDisconnect | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``url``: for instance ``wss://gateway.example/ws/mt5``; ``account``: the MT5 login that this bridge runs.

        ``form``: protobuf or json. What is refused for now is offered anew, ticks as ``ticks`` says: "reoffer" all of
        them, or "latest", the newest of each symbol. ``reoffer`` False offers nothing anew: such a message counts as
        refused.

        With a disk journal the stream of an earlier run goes on. Raises ValueError for a ``stream_id`` or a ``form``
        that is not the journal's. Callbacks are called between messages and must not block; what they raise is logged.
        """
        if form not in FORMS:
            raise ValueError("form is protobuf or json")
        if ticks not in ("reoffer", "latest"):
            raise ValueError("ticks is reoffer or latest")
        if not url.startswith(("wss://", "ws://")):
            raise ValueError("url is an address that begins with wss:// (or ws:// on a development machine)")
        self._journal = journal if journal is not None else Journal()
        self.stream_id = stream_id or self._journal.stream_id or f"py-{secrets.token_hex(8)}"
        self._journal.open_stream(self.stream_id, form)
        self._form = FORMS[form]
        self._core = Core(self._journal, self._form, reoffer=reoffer, latest_ticks=ticks == "latest")
        # Seconds: half a round trip at the last ping, and how far the gateway's clock is ahead of ours.
        self.delay = 0.0
        self.clock_offset = 0.0
        self.error: GatewayClientError | None = None
        self._url = url
        self._account = account
        self._token = token
        self._on_settled = on_settled
        self._on_dropped = on_dropped
        self._on_notice = on_notice
        self._on_disconnect = on_disconnect
        self._tls = tls
        self._ends = Ends(has_one_token=isinstance(token, FixedToken))
        self._connection: Connection | None = None
        self._disconnect: control_pb2.Disconnect | None = None
        self._welcomed: asyncio.Future[control_pb2.Welcome] | None = None
        self._upkeep: Upkeep | None = None
        self._closing = False
        self._accepts = True
        self._is_flowing = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    # --- Life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when the gateway has welcomed this client; raises what stopped it for good.

        A gateway that cannot be reached stops nothing: bound the wait with asyncio.timeout, and ``close`` in any case.
        """
        if self._task is not None or not self._accepts:
            raise RuntimeError("a client is started once")
        self._task = self._loop.create_task(self._run())
        while not self.outcomes.connects:
            await self._wait_for_change()

    async def drain(self, timeout: float) -> bool:
        """Waits until every message is settled, at most ``timeout`` seconds; whether all are."""
        try:
            async with asyncio.timeout(timeout):
                while len(self._journal) and self._task is not None and not self._closing:
                    await self._wait_for_change()
        except (TimeoutError, GatewayClientError):
            pass
        return not len(self._journal)

    async def close(self, timeout: float = 10.0) -> bool:
        """Takes no new messages, settles what is outstanding, at most ``timeout`` seconds, and ends.

        Returns whether everything was settled; what was not stays in a disk journal.
        """
        self._accepts = False
        self._changed.set()
        try:
            return await self.drain(timeout)
        finally:
            self._closing = True
            connection = self._connection
            if connection is not None:
                connection.close()
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
            if connection is not None:
                await asyncio.wait([connection.ended])
            if self._timer is not None:
                self._timer.cancel()
            self._journal.close()
            self._changed.set()

    @property
    def is_connected(self) -> bool:
        return self._core.is_ready

    @property
    def outcomes(self) -> Outcomes:
        return self._core.outcomes

    @property
    def policy(self) -> control_pb2.Policy:
        return self._core.policy

    @property
    def outstanding(self) -> int:
        """Messages that are not settled yet."""
        return len(self._journal)

    # --- Sending -----------------------------------------------------------------------------------------------------

    async def send(self, message_type: str, payload: Message) -> int:
        """Queues one message and returns its number, ``Entry.number``; waits while the journal is full.

        Cancelled while it waits, it has queued nothing. Raises as ``offer`` does, but for JournalFull.
        """
        while self._accepts and self._journal.is_full:
            await self._wait_for_change()
        return self.offer(message_type, payload)

    def offer(self, message_type: str, payload: Message) -> int:
        """Like ``send`` without waiting; raises JournalFull.

        Raises MessageTooLarge, what stopped this client for good, GatewayClientError once it is closed, and OSError
        when a disk journal cannot be written. A message whose call has raised was not queued.
        """
        self._raise_error()
        if not self._accepts:
            raise GatewayClientError("this client is closed")
        number = self._core.offer(message_type, payload, self._loop.time(), time.time_ns() // 1_000_000)
        self._flow()
        return number

    async def send_ticks(self, ticks: Iterable[payloads_pb2.Tick], account: str = "") -> int:
        return await self.send("tick_data", payloads_pb2.BatchTickData(ticks=ticks, account=account))

    async def send_signal(self, signal: payloads_pb2.TradingSignal) -> int:
        return await self.send("trading_signal", signal)

    async def send_event(self, event: payloads_pb2.UserEvent) -> int:
        return await self.send("user_event", event)

    async def send_notification(self, notification: payloads_pb2.Notification) -> int:
        return await self.send("notification", notification)

    def _flow(self) -> None:
        """Does what the core wants done: frames to the wire, outcomes to the callbacks, the next look at the clock."""
        core, connection = self._core, self._connection
        if core.frames:
            frames, core.frames = core.frames, []
            if connection is not None:
                for frame in frames:
                    if connection.is_open:
                        connection.send(frame)
        if self._is_flowing:
            # Of a callback that has sent something: its own call is still at work on the rest.
            return
        if core.settled or core.dropped:
            self._is_flowing = True
            while core.settled or core.dropped:
                settled, core.settled = core.settled, []
                dropped, core.dropped = core.dropped, []
                for batch, older in dropped:
                    self._call("on_dropped", self._on_dropped, batch, older)
                for entry, seconds in settled:
                    self._call("on_settled", self._on_settled, entry, seconds)
            self._is_flowing = False
            self._changed.set()
        if core.close_reason and connection is not None:
            connection.close(reason=core.close_reason)
        self._set_timer()

    def _call(self, name: str, callback: Callable[..., None] | None, *values: object) -> None:
        if callback is not None:
            try:
                callback(*values)
            except Exception:
                log.exception("%s failed", name)

    def _set_timer(self) -> None:
        at = self._core.next_at
        if self._upkeep is not None:
            at = min(at, self._upkeep.next_at)
        if at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        # A timer may fire a little before its time, by the clock's resolution.
        now = max(self._loop.time(), self._timer_at)
        self._timer, self._timer_at = None, math.inf
        self._tick(now)

    def _tick(self, now: float) -> None:
        self._core.tick(now)
        if self._upkeep is not None:
            self._upkeep.tick(now)
        self._flow()

    # --- Answers -----------------------------------------------------------------------------------------------------

    def _on_message(self, data: bytes) -> None:
        try:
            answer = self._form.read(data)
        except UnreadableAnswer as error:
            # It may have been the refusal of a message: rather begin anew than go on as if nothing had been said.
            log.warning("an answer of the gateway cannot be read: %s", error)
            if self._connection is not None:
                self._connection.close(_PROTOCOL_ERROR, "unreadable answer")
            return
        if answer is not None:
            self._core.answer(answer, self._loop.time())
            if not isinstance(answer, control_pb2.Ack):
                self._on_control(answer)
            self._flow()

    def _on_control(self, answer: Control) -> None:
        if isinstance(answer, control_pb2.Welcome):
            if self._welcomed is not None and not self._welcomed.done():
                self._welcomed.set_result(answer)
        elif isinstance(answer, control_pb2.Policy | control_pb2.Nack):
            if self._upkeep is not None:
                self._upkeep.answered(answer, self._loop.time())
        elif isinstance(answer, control_pb2.Disconnect):
            self._disconnect = answer
        elif isinstance(answer, control_pb2.Pong):
            if answer.client_time_ms:
                now_ms = time.time_ns() // 1_000_000
                self.delay = max(0, now_ms - answer.client_time_ms) / 2000
                self.clock_offset = (answer.server_time_ms - (now_ms + answer.client_time_ms) / 2) / 1000
        elif isinstance(answer, control_pb2.Notice):
            self._call("on_notice", self._on_notice, answer)

    # --- Connections -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """One connection after another until closed or told not to come back."""
        reason: Exception
        while not self._closing:
            try:
                end = await self._one_connection()
                self.outcomes.closes[end.code] += 1
                told = self._disconnect
                reason = ConnectionEnded(end.code, told.reason if told is not None else end.reason)
                delay = self._ends.after_connection(reason, told)
            except (HandshakeRefused, TokenUnavailable) as refused:
                if isinstance(refused, HandshakeRefused):
                    self.outcomes.handshakes_refused[refused.status] += 1
                try:
                    reason, delay = refused, self._ends.after_refusal(refused)
                except GatewayClientError as error:
                    return self._stop(error)
            except GatewayClientError as error:
                return self._stop(error)
            except (OSError, TimeoutError) as error:
                reason, delay = error, self._ends.after_failure()
            except ValueError as error:
                stop = GatewayClientError(f"the client stopped: {error}")
                stop.__cause__ = error
                return self._stop(stop)
            except Exception as error:
                # Not foreseen, and no reason to give up what is owed.
                log.exception("no connection")
                reason, delay = error, self._ends.after_failure()
            self._tell(reason, delay)
            await asyncio.sleep(delay)
        return None

    def _tell(self, reason: Exception, delay: float) -> None:
        if self._closing:
            return
        log.log(level_of(reason), "not connected (%s): next try in %.1f s", reason, delay)
        self._call("on_disconnect", self._on_disconnect, reason, delay)

    def _stop(self, error: GatewayClientError) -> None:
        self.error = error
        self._changed.set()

    async def _one_connection(self) -> End:
        token = await self._new_token()
        self._disconnect = None
        self._welcomed = welcomed = self._loop.create_future()
        connection = await open_connection(self._address(), token, self._form, self._on_message, tls=self._tls)
        self._connection = connection
        began = self._loop.time()
        code = 0
        try:
            waiting: set[asyncio.Future[Any]] = {welcomed, connection.ended}
            await asyncio.wait(waiting, timeout=_WELCOME_TIMEOUT, return_when="FIRST_COMPLETED")
            if welcomed.done():
                self._begin(connection, welcomed.result())
            else:
                connection.close(reason="no welcome")
            # The future is the connection's: a cancel of this task must not become its result.
            end = await asyncio.shield(connection.ended)
            code = end.code
            return end
        finally:
            self._connection = None
            if self._upkeep is not None:
                self._upkeep.end()
                self._upkeep = None
                self._ends.connected_for(self._loop.time() - began)
            self._core.ended(code, self._loop.time())
            connection.close()
            self._changed.set()

    async def _new_token(self) -> str:
        try:
            return await self._token()
        except (GatewayClientError, OSError):
            raise
        except Exception as error:
            # Of the caller's own source, and perhaps of a network that will be there again.
            raise TokenUnavailable(0, f"{type(error).__name__}: {error}") from error

    def _address(self) -> str:
        return address_of(
            self._url,
            stream=self.stream_id,
            writer=self._journal.writer,
            heard=self._core.heard,
            account=self._account,
        )

    def _begin(self, connection: Connection, welcome: control_pb2.Welcome) -> None:
        now = self._loop.time()
        keeper = Keeper(now, welcome.token_expires_at_ms, welcome.server_time_ms)
        self._upkeep = Upkeep(connection, self._form, self._token, keeper, lambda: self._core.heard, self._set_timer)
        self._core.connected(welcome, now)
        self._flow()
        self._tick(now)
        self._changed.set()

    async def _wait_for_change(self) -> None:
        self._raise_error()
        self._changed.clear()
        await self._changed.wait()
        self._raise_error()

    def _raise_error(self) -> None:
        if self.error is not None:
            # Without the frames of the times it was raised before, which would gather.
            raise self.error.with_traceback(None)
