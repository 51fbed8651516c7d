"""A terminal's side of the gateway: send, know for each message whether Kafka has it, come back after anything."""

import asyncio
import logging
import secrets
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from google.protobuf.message import Message

from trading_gateway_client.backoff import Backoff
from trading_gateway_client.connection import Connection, End, open_connection
from trading_gateway_client.errors import (
    ConnectionEnded,
    GatewayClientError,
    HandshakeRefused,
    MessageTooLarge,
    TokenUnavailable,
    UnreadableAnswer,
)
from trading_gateway_client.forms import FORMS, Control
from trading_gateway_client.journal import Entry, Journal
from trading_gateway_client.keeper import keep
from trading_gateway_client.outcomes import Outcomes
from trading_gateway_client.pace import Pace
from trading_gateway_client.pb import control_pb2, payloads_pb2
from trading_gateway_client.tokens import TokenSource

log = logging.getLogger("trading_gateway_client")

# Called with each message that is settled: the entry, and the seconds from ``send`` to its answer, whatever lay between
# (0.0 for one that an earlier run of the program left in the journal).
OnSettled = Callable[[Entry, float], None]

# These nacks leave the message owed: it is sent again, under its own sequence.
_UNSETTLED = frozenset({"backend_unavailable", "sequence_gap", "duplicate"})
# What is refused with one of these would be refused again.
_LASTING = frozenset({"malformed", "unknown_type", "payload_mismatch"})
_WELCOME_TIMEOUT = 10.0
# Bytes, where the gateway has not told its own limit yet.
_MESSAGE_SIZE_LIMIT = 65_536
_MESSAGE_TOO_BIG = 1009


class GatewayClient:
    """One stream to one gateway. ``start`` it, ``send`` to it, ``close`` it; it reconnects and resumes by itself."""

    def __init__(
        self,
        url: str,
        token: TokenSource,
        *,
        stream_id: str = "",
        form: str = "protobuf",
        journal: Journal | None = None,
        on_settled: OnSettled | None = None,
        on_notice: Callable[[control_pb2.Notice], None] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``url``: for instance ``wss://gateway.example/ws/mt5``; ``form``: protobuf or json.

        With a disk journal the stream of an earlier run goes on. Raises ValueError for a ``stream_id`` or a ``form``
        that is not the journal's. Both callbacks are called between messages and must not block; what they raise is
        logged.
        """
        if form not in FORMS:
            raise ValueError("form is protobuf or json")
        if not url.startswith(("wss://", "ws://")):
            raise ValueError("url is an address that begins with wss:// (or ws:// on a development machine)")
        self._journal = journal if journal is not None else Journal()
        self.stream_id = stream_id or self._journal.stream_id or f"py-{secrets.token_hex(8)}"
        self._journal.open_stream(self.stream_id, form)
        self.outcomes = Outcomes()
        self.policy = control_pb2.Policy()
        # Seconds: half a round trip at the last ping, and how far the gateway's clock is ahead of ours.
        self.delay = 0.0
        self.clock_offset = 0.0
        self.error: GatewayClientError | None = None
        self._url = f"{url}{'&' if '?' in url else '?'}stream={quote(self.stream_id)}"
        self._token = token
        self._form = FORMS[form]
        # What an earlier run of the program left in the journal is owed by this one.
        self.outcomes.sent = len(self._journal)
        # The largest sequence that the gateway can have seen: an answer settles nothing above it.
        self._reach = self._journal.last_sequence
        self._on_settled = on_settled
        self._on_notice = on_notice
        self._tls = tls
        self._backoff = Backoff()
        self._connection: Connection | None = None
        self._disconnect: control_pb2.Disconnect | None = None
        self._welcomed: asyncio.Future[control_pb2.Welcome] | None = None
        self._is_ready = False
        self._closing = False
        self._accepts = True
        self._pace = Pace(1.0, 0.0)
        self._pace_timer: asyncio.TimerHandle | None = None
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
            self._journal.close()
            self._changed.set()

    @property
    def is_connected(self) -> bool:
        return self._is_ready

    @property
    def outstanding(self) -> int:
        """Messages that are not settled yet."""
        return len(self._journal)

    # --- Sending -----------------------------------------------------------------------------------------------------

    async def send(self, message_type: str, payload: Message) -> int:
        """Queues one message and returns its sequence; waits while the journal is full.

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
        sequence = self._journal.last_sequence + 1
        frame = self._form.frame(
            message_type,
            payload,
            sequence=sequence,
            stream_id=self.stream_id,
            timestamp=time.time_ns() // 1_000_000,
        )
        limit = self.policy.message_size_limit or _MESSAGE_SIZE_LIMIT
        if len(frame) > limit:
            raise MessageTooLarge(f"{len(frame)} bytes; the gateway takes {limit}")
        self._journal.add(Entry(sequence, message_type, frame, self._loop.time()))
        self.outcomes.sent += 1
        self._pump()
        return sequence

    async def send_ticks(self, ticks: Iterable[payloads_pb2.Tick], account: str = "") -> int:
        return await self.send("tick_data", payloads_pb2.BatchTickData(ticks=ticks, account=account))

    async def send_signal(self, signal: payloads_pb2.TradingSignal) -> int:
        return await self.send("trading_signal", signal)

    async def send_event(self, event: payloads_pb2.UserEvent) -> int:
        return await self.send("user_event", event)

    async def send_notification(self, notification: payloads_pb2.Notification) -> int:
        return await self.send("notification", notification)

    def _pump(self) -> None:
        """Sends what may be sent now: the connection is ready, the window open, the plan's rate kept."""
        connection, journal = self._connection, self._journal
        if not self._is_ready or connection is None or self._pace_timer is not None:
            return
        window = self.policy.in_flight_limit or 1
        while journal.unsent and len(journal.on_way) < window and connection.is_open:
            now = self._loop.time()
            wait = self._pace.take(now)
            if wait:
                self._pace_timer = self._loop.call_later(wait, self._pump_again)
                return
            entry = journal.unsent.popleft()
            journal.on_way.append(entry)
            if entry.attempts:
                self.outcomes.resent += 1
                if entry.refusal not in _LASTING:
                    entry.refusal, entry.earlier_refusal = "", entry.refusal
            entry.attempts += 1
            self._reach = max(self._reach, entry.sequence)
            connection.send(entry.frame)

    def _pump_again(self) -> None:
        self._pace_timer = None
        self._pump()

    # --- Answers -----------------------------------------------------------------------------------------------------

    def _on_message(self, data: bytes) -> None:
        try:
            answer = self._form.read(data)
        except UnreadableAnswer as error:
            # It may have been the refusal of a message: rather begin anew than go on as if nothing had been said.
            log.warning("an answer of the gateway cannot be read: %s", error)
            if self._connection is not None:
                self._connection.close(1002, "unreadable answer")
            return
        if isinstance(answer, control_pb2.Ack):
            self._settle(min(answer.sequence, self._reach))
        elif answer is not None:
            self._on_control(answer)

    def _settle(self, sequence: int) -> None:
        now = self._loop.time()
        for entry in self._journal.settle(sequence):
            if entry.refusal:
                self.outcomes.refused += 1
            else:
                self.outcomes.acknowledged += 1
            if self._on_settled is not None:
                try:
                    self._on_settled(entry, now - entry.offered_at if entry.offered_at else 0.0)
                except Exception:
                    log.exception("on_settled failed for message %d", entry.sequence)
        self._pump()
        self._changed.set()

    def _on_control(self, answer: Control) -> None:
        if isinstance(answer, control_pb2.Nack):
            self.outcomes.refusals[answer.code] += 1
            entry = self._journal.find_on_way(answer.sequence) if answer.sequence else None
            if entry is not None and answer.code not in _UNSETTLED:
                entry.refusal = answer.code
            elif entry is not None and answer.code == "duplicate":
                entry.refusal = entry.refusal or entry.earlier_refusal
            if answer.code == "sequence_gap" and self._connection is not None:
                # The gateway expects an earlier one: begin anew from what it acknowledges.
                self._connection.close()
        elif isinstance(answer, control_pb2.Welcome):
            if self._welcomed is not None and not self._welcomed.done():
                self._welcomed.set_result(answer)
        elif isinstance(answer, control_pb2.Policy):
            self._apply(answer)
        elif isinstance(answer, control_pb2.Disconnect):
            self._disconnect = answer
        elif isinstance(answer, control_pb2.Pong):
            now_ms = time.time_ns() // 1_000_000
            self.delay = max(0, now_ms - answer.client_time_ms) / 2000
            self.clock_offset = (answer.server_time_ms - (now_ms + answer.client_time_ms) / 2) / 1000
        elif isinstance(answer, control_pb2.Notice) and self._on_notice is not None:
            try:
                self._on_notice(answer)
            except Exception:
                log.exception("on_notice failed")

    def _apply(self, policy: control_pb2.Policy) -> None:
        if policy.message_rate_limit != self.policy.message_rate_limit:
            self._pace = Pace(policy.message_rate_limit, self._loop.time())
        self.policy = policy

    # --- Connections -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """One connection after another until closed or told not to come back."""
        fresh_token_tried = False
        while not self._closing:
            try:
                end = await self._one_connection()
                fresh_token_tried = False
                self.outcomes.closes[end.code] += 1
                delay = self._delay_after(end)
                reason = f"{end.code} {end.reason}"
            except (HandshakeRefused, TokenUnavailable) as refused:
                if isinstance(refused, HandshakeRefused):
                    self.outcomes.handshakes_refused[refused.status] += 1
                if refused.status == 401 and isinstance(refused, HandshakeRefused) and not fresh_token_tried:
                    # The token may have run out while this client was away: one new one is worth a try.
                    fresh_token_tried = True
                elif not refused.retryable:
                    return self._stop(refused)
                delay = refused.retry_after + self._backoff.after_failure()
                reason = str(refused)
            except GatewayClientError as error:
                return self._stop(error)
            except (OSError, TimeoutError) as error:
                delay = self._backoff.after_failure()
                reason = f"{type(error).__name__} {error}"
            except Exception as error:
                # Of the caller's token source, or of ours: whoever waits for this client must hear of it.
                log.exception("the client stops")
                stop = GatewayClientError(f"the client stopped: {type(error).__name__}: {error}")
                stop.__cause__ = error
                return self._stop(stop)
            log.info("not connected (%s): next try in %.1f s", reason, delay)
            await asyncio.sleep(delay)
        return None

    def _stop(self, error: GatewayClientError) -> None:
        self.error = error
        self._changed.set()

    async def _one_connection(self) -> End:
        token = await self._token()
        self._disconnect = None
        self._welcomed = welcomed = self._loop.create_future()
        connection = await open_connection(self._url, token, self._form, self._on_message, tls=self._tls)
        self._connection = connection
        began = self._loop.time()
        keeper: asyncio.Task[None] | None = None
        try:
            waiting: set[asyncio.Future[Any]] = {welcomed, connection.ended}
            await asyncio.wait(waiting, timeout=_WELCOME_TIMEOUT, return_when="FIRST_COMPLETED")
            if welcomed.done():
                self._begin(welcomed.result())
                keeper = self._loop.create_task(keep(connection, self._form, self._token, welcomed.result()))
            else:
                connection.close(reason="no welcome")
            # The future is the connection's: a cancel of this task must not become its result.
            return await asyncio.shield(connection.ended)
        finally:
            self._is_ready = False
            self._connection = None
            if keeper is not None:
                self._backoff.connected_for(self._loop.time() - began)
                keeper.cancel()
            if self._pace_timer is not None:
                self._pace_timer.cancel()
                self._pace_timer = None
            connection.close()
            self._changed.set()

    def _begin(self, welcome: control_pb2.Welcome) -> None:
        """Settles what was acknowledged while this client was away, then sends the rest again."""
        acknowledged = welcome.last_acknowledged_sequence
        unsent = self._journal.unsent
        if unsent and unsent[-1].sequence > self._reach and acknowledged > self._reach:
            # Under their sequences the gateway has had others: it would call these acknowledged.
            raise GatewayClientError(
                f"the stream {self.stream_id} has been used up to {acknowledged} and its journal is lost: "
                "take a new stream_id, or send only after start()"
            )
        self._apply(welcome.policy)
        self.outcomes.connects += 1
        self._journal.rewind()
        self._is_ready = True
        self._reach = max(self._reach, acknowledged)
        self._journal.last_sequence = max(self._journal.last_sequence, acknowledged)
        self._settle(acknowledged)

    def _delay_after(self, end: End) -> float:
        """Seconds until the next connect; raises ConnectionEnded when there is to be none."""
        told = self._disconnect
        if end.code == _MESSAGE_TOO_BIG:
            # The same message would be sent first again.
            raise ConnectionEnded(end.code, end.reason)
        if 4500 <= end.code < 5000 or (told is not None and not told.reconnect and told.code >= 4000):
            raise ConnectionEnded(end.code, told.reason if told is not None else end.reason)
        if told is not None and (told.retry_after_ms or told.jitter_ms):
            return self._backoff.after_hint(told.retry_after_ms, told.jitter_ms)
        return self._backoff.after_failure()

    async def _wait_for_change(self) -> None:
        self._raise_error()
        self._changed.clear()
        await self._changed.wait()
        self._raise_error()

    def _raise_error(self) -> None:
        if self.error is not None:
            # Without the frames of the times it was raised before, which would gather.
            raise self.error.with_traceback(None)
