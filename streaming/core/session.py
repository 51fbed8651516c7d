"""One terminal's connection: every frame ends in a topic, in failed-messages or in a nack. Room: streaming.core (pure).

The session takes frames and delivery reports and speaks through its two ports; it never waits, locks, logs or looks
at a clock. Its caller serialises the calls.
"""

from google.protobuf.message import DecodeError, Message

from proto.gateway.v1 import control_pb2, envelope_pb2
from streaming.core.breaker import Conduct
from streaming.core.codes import KEPT_REFUSALS, CloseCode, NackCode
from streaming.core.context import SessionContext
from streaming.core.control import CONTROL_TYPES, answer
from streaming.core.errors import MessageRefused
from streaming.core.json_form import PayloadProblem, read_json
from streaming.core.policy import UserPolicy, policy_message
from streaming.core.ports import Peer, Receipt, Tap
from streaming.core.replies import ReplyForm, disconnect_message, nack_message
from streaming.core.stream import SEQUENCE_LIMIT, Arrival, StreamPosition, is_stream_id
from streaming.core.throttle import TokenBucket
from streaming.core.volume import Volume

_CORRELATION_ID_LIMIT = 64
# Inactive pairs a client is told of once each, for one connection.
_NOTICE_LIMIT = 50
_parse_envelope = envelope_pb2.MessageEnvelope.FromString


class Session:
    """The life of one connection between accept and close."""

    __slots__ = (
        "_first", "_identity_headers", "_key", "_noticed", "_paused", "_stopped", "_unread", "_urgent_at", "account",
        "accounts", "ack_sent", "ack_waiting", "bucket", "closed", "conduct", "context", "endpoint", "form",
        "in_flight", "is_bound", "messages", "peer", "policy", "position", "session_id", "stream_id", "tap", "volume",
    )  # fmt: skip

    def __init__(
        self,
        context: SessionContext,
        *,
        session_id: str,
        policy: UserPolicy,
        bucket: TokenBucket,
        conduct: Conduct,
        volume: Volume,
        peer: Peer,
        form: ReplyForm,
        stream_id: str = "",
        position: StreamPosition | None = None,
        account: str = "",
        is_bound: bool = False,
        endpoint: str = "/ws/mt5",
    ) -> None:
        """``account``: the MT5 login that the connection was opened for; ``is_bound``: no message is for another."""
        self.context = context
        self.session_id = session_id
        self.policy = policy
        # Shared by all sessions of the user in this process; the volume by those of the company.
        self.bucket = bucket
        self.conduct = conduct
        self.volume = volume
        # Messages accepted on this connection, and the MT5 logins that they were for.
        self.messages = 0
        # What messages without an account are for.
        self.account = account or policy.only_account
        self.is_bound = is_bound
        self.accounts: set[str] = {self.account} if self.account else set()
        # Set while somebody follows the user's messages.
        self.tap: Tap | None = None
        self.peer = peer
        self.form = form
        self.stream_id = stream_id
        self.position = position or StreamPosition()
        self.endpoint = endpoint
        self.in_flight = 0
        self.closed = False
        # Set by whoever schedules acknowledgements.
        self.ack_waiting = False
        self.ack_sent = self.position.acknowledged
        self._first = True
        self._unread = 0
        self._urgent_at = 0
        self._paused = False
        self._stopped = False
        self._noticed: set[tuple[str, str]] = set()
        self._key = policy.user_id.encode()
        self._identity_headers = [
            ("user_id", policy.user_id.encode()),
            ("company_id", policy.company_id.encode()),
            ("session_id", session_id.encode()),
            ("endpoint", endpoint.encode()),
            *((("account", account.encode()),) if account else ()),
        ]

    # --- Frames ------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes | str, now: float, now_us: int) -> None:
        """Takes one complete WebSocket message; bytes of text that are no UTF-8 come as ``surrogateescape`` makes them.

        ``now``: seconds of the monotonic clock; ``now_us``: Unix microseconds. Never raises for what a client can send.
        """
        if self.closed:
            return
        context = self.context
        admitted = self.bucket.take(now)
        self.conduct.messages += 1
        if not admitted:
            # Whatever it is and however it is answered.
            self.conduct.over_rate += 1
        problem: MessageRefused | None = None
        try:
            context.counts.bytes_received += len(data)
            envelope = read_json(data) if isinstance(data, str) else _parse_envelope(data)
        except PayloadProblem as error:
            envelope, problem = error.envelope, error.refusal
        except MessageRefused as error:
            self._refuse_unread(data, error, admitted, now, now_us)
            return
        except DecodeError:
            unread = MessageRefused(NackCode.MALFORMED, "the frame is not a MessageEnvelope")
            self._refuse_unread(data, unread, admitted, now, now_us)
            return

        message_type = envelope.message_type
        route = context.routes.get(message_type)
        if route is None and message_type in CONTROL_TYPES:
            answer(self, message_type, envelope.payload, problem if admitted else self._over_rate(), now_us)
            return
        sequence = envelope.sequence
        stream_id = envelope.stream_id
        if stream_id != self.stream_id or sequence > SEQUENCE_LIMIT:
            try:
                self._check_stream(stream_id, sequence)
            except MessageRefused as error:
                self._refuse_unread(data, error, admitted, now, now_us)
                return
        if not context.sink.available:
            self.end_unavailable(sequence)
            return
        if sequence and not self._arrives_next(sequence):
            if self.tap is not None:
                verdict = NackCode.SEQUENCE_GAP if sequence >= self.position.expected else NackCode.DUPLICATE
                self.tap(self, message_type, sequence, len(data), verdict.value, b"", now_us)
            return
        try:
            if not admitted:
                raise self._over_rate()
            if problem is not None:
                raise problem
            if route is None:
                raise MessageRefused(NackCode.UNKNOWN_TYPE, f"no such message_type: send {', '.join(context.routes)}")
            if len(envelope.correlation_id) > _CORRELATION_ID_LIMIT:
                raise MessageRefused(NackCode.MALFORMED, "correlation_id is a UUID")
            if self.volume.is_exhausted:
                raise MessageRefused(NackCode.QUOTA_EXCEEDED, "the company's data volume of this month is used up")
            envelope.payload = route.check(envelope.payload, self.policy, self)
        except MessageRefused as error:
            self._refuse(data, message_type, sequence, error, now, now_us)
            return
        envelope.DiscardUnknownFields()
        policy = self.policy
        envelope.user_id = policy.user_id
        envelope.company_id = policy.company_id
        envelope.received_at = now_us
        envelope.session_id = self.session_id
        if stream_id != self.stream_id:
            envelope.stream_id = self.stream_id
        value = envelope.SerializeToString()
        route.accepted += 1
        self.messages += 1
        volume = self.volume
        volume.messages += 1
        volume.size += len(data)
        if self.tap is not None:
            self.tap(self, message_type, sequence, len(data), "accepted", value, now_us)
        self._publish(route.topic, value, (self, sequence, now, route, len(value)))

    def _publish(
        self, topic: str, value: bytes, receipt: Receipt, headers: list[tuple[str, bytes]] | None = None
    ) -> None:
        self.in_flight += 1
        self.context.sink.publish(topic, self._key, value, receipt, headers)
        if not self._paused and (self.in_flight >= self.context.limits.in_flight_limit or self.context.sink.is_full):
            self._paused = True
            self.peer.pause()

    def _check_stream(self, stream_id: str, sequence: int) -> None:
        if sequence > SEQUENCE_LIMIT:
            raise MessageRefused(NackCode.MALFORMED, f"sequence goes from 1 to {SEQUENCE_LIMIT}")
        if not stream_id or stream_id == self.stream_id:
            return
        if self.stream_id:
            raise MessageRefused(NackCode.MALFORMED, "stream_id is not the one of this connection")
        if not is_stream_id(stream_id):
            raise MessageRefused(NackCode.MALFORMED, "stream_id takes 1 to 64 of A-Z a-z 0-9 . _ : -")
        # Not named at connect, so there is nothing to resume; its messages still carry it for consumers.
        self.stream_id = stream_id

    def _arrives_next(self, sequence: int) -> bool:
        arrival = self.position.arrive(sequence, first=self._first, unread=self._unread)
        self._first = False
        if arrival is Arrival.NEXT:
            self._unread = 0
            return True
        if arrival is Arrival.DUPLICATE:
            self.context.counts.duplicates += 1
            self.flush_ack(repeat=True)
            self._nack(sequence, MessageRefused(NackCode.DUPLICATE, "acknowledged before"))
        elif arrival is Arrival.GAP:
            reason = f"sequence {self.position.expected} is expected: send from there"
            self._count_refusal("", NackCode.SEQUENCE_GAP)
            self._nack(sequence, MessageRefused(NackCode.SEQUENCE_GAP, reason))
        return False

    # --- Refusals ----------------------------------------------------------------------------------------------------

    def _refuse(
        self, data: bytes | str, message_type: str, sequence: int, error: MessageRefused, now: float, now_us: int
    ) -> None:
        """Answers a message whose sequence is known; the sequence is settled when nothing more is owed for it."""
        if self.tap is not None:
            self.tap(self, message_type, sequence, len(data), error.code.value, b"", now_us)
        if error.code in KEPT_REFUSALS and not error.harmless:
            self._count_refusal(message_type, error.code)
            self._nack(sequence, error)
            self._keep(data, message_type, sequence, error, now, now_us)
            if self.conduct.error():
                self.context.on_abuse(self)
        else:
            self._refuse_for_good(message_type, sequence, error)

    def _refuse_for_good(self, message_type: str, sequence: int, error: MessageRefused) -> None:
        self._count_refusal(message_type, error.code)
        self._nack(sequence, error)
        if sequence:
            self.position.settle(sequence)
            self.context.schedule_ack(self, False)

    def _refuse_unread(self, data: bytes | str, error: MessageRefused, admitted: bool, now: float, now_us: int) -> None:
        """Answers a frame whose sequence cannot be trusted."""
        self._unread += 1
        if not self.context.sink.available:
            self.end_unavailable(0)
        else:
            self._refuse(data, "", 0, error if admitted else self._over_rate(), now, now_us)

    def _keep(
        self, data: bytes | str, message_type: str, sequence: int, error: MessageRefused, now: float, now_us: int
    ) -> None:
        """Writes the frame as it came to failed-messages; its sequence is settled when Kafka has it."""
        failed = self.context.counts.failed_messages
        failed[error.code] = failed.get(error.code, 0) + 1
        value = data.encode(errors="surrogateescape") if isinstance(data, str) else data
        headers = [
            *self._identity_headers,
            ("reason", error.code.encode()),
            ("received_at", str(now_us).encode()),
            ("message_type", message_type[:64].encode()),
        ]
        self._publish(self.context.failed_topic, value, (self, sequence, now, None, len(value)), headers)

    def _nack(self, sequence: int, error: MessageRefused) -> None:
        self.say("gateway.nack", nack_message(sequence, error))

    def _count_refusal(self, message_type: str, code: NackCode) -> None:
        key = (message_type if message_type in self.context.routes else "", code.value)
        refusals = self.context.counts.refusals
        refusals[key] = refusals.get(key, 0) + 1

    def filtered(self, code: str, reason: str, symbols: set[str]) -> None:
        """Tells the client once of each pair whose ticks are taken out for this reason."""
        fresh = {symbol for symbol in symbols if (code, symbol) not in self._noticed}
        if fresh and len(self._noticed) < _NOTICE_LIMIT:
            self._noticed |= {(code, symbol) for symbol in fresh}
            self.notice(code, reason, {"symbols": ",".join(sorted(fresh)[:_NOTICE_LIMIT])})

    # --- What it says -------------------------------------------------------------------------------------------------

    def refuse_control(self, message_type: str, error: MessageRefused) -> None:
        """Answers a control message, which has no sequence, with a nack."""
        self._count_refusal(message_type, error.code)
        self._nack(0, error)
        if error.code in KEPT_REFUSALS and not error.harmless and self.conduct.error():
            self.context.on_abuse(self)

    def _over_rate(self) -> MessageRefused:
        reason = "over the messages a second of the plan"
        return MessageRefused(NackCode.RATE_LIMITED, reason, retry_after_ms=self.bucket.retry_after_ms())

    def welcome(self, now_us: int, token_expires_at_ms: int) -> None:
        """The first message of a connection."""
        message = control_pb2.Welcome(
            session_id=self.session_id,
            server_time_ms=now_us // 1000,
            policy=policy_message(self.policy, self.context.limits),
            ping_interval_ms=self.context.limits.ping_interval_ms,
            last_acknowledged_sequence=self.position.acknowledged,
            token_expires_at_ms=token_expires_at_ms,
        )
        self.say("gateway.welcome", message)

    def apply_policy(self, policy: UserPolicy) -> None:
        """Takes new limits over and tells the client where they differ; an older version changes nothing."""
        if policy.version > self.policy.version and not self.closed:
            is_news = policy.differs(self.policy)
            self.policy = policy
            if is_news:
                self._noticed.clear()
                self.accounts &= policy.accounts
                # A second one leaves those that run with what they began with.
                if self.account not in policy.accounts:
                    self.account = policy.only_account
                self.say("gateway.policy", policy_message(policy, self.context.limits))

    def notice(self, code: str, reason: str, detail: dict[str, str]) -> None:
        """Tells the client of something that loses nothing."""
        self.say("gateway.notice", control_pb2.Notice(code=code, reason=reason, detail=detail))

    def say(self, message_type: str, payload: Message) -> None:
        if not self.closed:
            self._send(self.form.encode(message_type, payload))

    def _send(self, data: bytes | str) -> None:
        self.context.counts.bytes_sent += len(data)
        self.peer.send(data)

    # --- Delivery ----------------------------------------------------------------------------------------------------

    def delivered(self, sequence: int, urgent: bool) -> None:
        """Kafka has a message of this session; the client hears of it now or with the next gathered acknowledgement."""
        self.in_flight -= 1
        if sequence:
            position = self.position
            position.settle(sequence)
            if urgent and position.acknowledged < sequence:
                # Held up by an earlier message: the answer is due as soon as that one is settled.
                self._urgent_at = max(self._urgent_at, sequence)
            elif self._urgent_at and position.acknowledged >= self._urgent_at:
                urgent = True
                self._urgent_at = 0
            if urgent or not self.ack_waiting:
                self.context.schedule_ack(self, urgent)
        if self._paused and self.in_flight * 2 <= self.context.limits.in_flight_limit:
            self.try_resume()

    def failed(self) -> None:
        """Kafka did not take a message of this session, or cannot say."""
        self.in_flight -= 1
        self.end_unavailable(0)
        # Also when the connection is gone already: its successor must be able to send this message again.
        self.position.rewind()

    def too_large(self, sequence: int) -> None:
        """Kafka takes no message of this size: refused for good, so nothing more is owed for it."""
        self.in_flight -= 1
        reason = "larger than the messages that Kafka takes here"
        self._refuse_for_good("", sequence, MessageRefused(NackCode.TOO_LARGE, reason))
        self.try_resume()

    def stop_reading(self) -> None:
        """Takes no more from the client for good, so that what is in flight can come to rest before a close."""
        self._stopped = True
        if not self._paused:
            self._paused = True
            self.peer.pause()

    def try_resume(self) -> None:
        """Reads on, where neither this session nor the process is full."""
        if self._stopped or not self._paused or self.context.sink.is_full:
            return
        if self.in_flight * 2 <= self.context.limits.in_flight_limit:
            self._paused = False
            if not self.closed:
                self.peer.resume()

    @property
    def is_paused(self) -> bool:
        return self._paused

    def flush_ack(self, *, repeat: bool = False) -> None:
        """Sends the cumulative acknowledgement if it has moved, or in any case with ``repeat``."""
        acknowledged = self.position.acknowledged
        if (acknowledged > self.ack_sent or repeat) and not self.closed:
            self.ack_sent = acknowledged
            self._send(self.form.ack(acknowledged))

    # --- Ends --------------------------------------------------------------------------------------------------------

    def end_unavailable(self, sequence: int) -> None:
        """Kafka is away: nacks everything without an answer and closes; the client sends it again after its return."""
        if self.closed:
            return
        error = MessageRefused(
            NackCode.BACKEND_UNAVAILABLE, "Kafka does not take messages now: reconnect and resume", retry_after_ms=2_000
        )
        self.flush_ack()
        owed = self.position.unsettled()
        if sequence >= self.position.expected:
            owed.append(sequence)
        for missing in owed:
            self._count_refusal("", error.code)
            self._nack(missing, error)
        self.position.rewind()
        self.end(
            CloseCode.BACKEND_UNAVAILABLE, "Kafka does not take messages now", retry_after_ms=2_000, jitter_ms=3_000
        )

    def end(self, code: CloseCode, reason: str, *, retry_after_ms: int = 0, jitter_ms: int = 0) -> None:
        """Tells the client why, then closes; frames that still arrive are dropped and stay unanswered."""
        if self.closed:
            return
        self.say("gateway.disconnect", disconnect_message(code, reason, retry_after_ms, jitter_ms))
        self.closed = True
        hint = f"ra={retry_after_ms};j={jitter_ms}" if retry_after_ms or jitter_ms else reason
        self.peer.close(code, hint)

    def lost(self) -> None:
        """The connection is gone; reports that are still to come only move the stream's position."""
        self.closed = True
