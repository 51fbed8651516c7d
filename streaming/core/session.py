"""One terminal's connection: every frame ends in a topic, in failed-messages or in a nack. Room: streaming.core (pure).

The session takes frames and delivery reports and speaks through its two ports; it never waits, locks, logs or looks
at a clock. Its caller serialises the calls.
"""

from google.protobuf.message import DecodeError

from proto.gateway.v1 import envelope_pb2
from streaming.core.answers import Answering
from streaming.core.breaker import Conduct
from streaming.core.codes import NackAction, NackCode
from streaming.core.context import SessionContext
from streaming.core.control import CONTROL_TYPES, answer
from streaming.core.errors import MessageRefused
from streaming.core.json_form import PayloadProblem, empty_frame, read_json
from streaming.core.policy import UserPolicy
from streaming.core.ports import Peer
from streaming.core.replies import ReplyForm
from streaming.core.stream import SEQUENCE_LIMIT, StreamPosition, is_stream_id
from streaming.core.throttle import TokenBucket
from streaming.core.unread import Answer, read_sequence
from streaming.core.volume import Volume

_CORRELATION_ID_LIMIT = 64
_parse_envelope = envelope_pb2.MessageEnvelope.FromString


class Session(Answering):
    """The life of one connection between accept and close."""

    __slots__ = ("_stopped", "_urgent_at", "ack_waiting", "messages", "stream_id", "stream_key", "volume")

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
        stream_key: tuple[str, str, str] | None = None,
        position: StreamPosition | None = None,
        heard: int | None = None,
        account: str = "",
        is_bound: bool = False,
        endpoint: str = "/ws/mt5",
    ) -> None:
        """``stream_key``: by which the position is kept, None for a stream that was not named at connect; ``heard``: up
        to where the client has heard every answer of its stream, None when it has not said; ``account``: the MT5 login
        that the connection was opened for; ``is_bound``: no message is for another."""
        position = position or StreamPosition()
        if heard is not None:
            position.hear(heard)
        super().__init__(
            context,
            session_id=session_id,
            policy=policy,
            bucket=bucket,
            conduct=conduct,
            peer=peer,
            form=form,
            position=position,
            heard=heard,
            account=account,
            is_bound=is_bound,
            endpoint=endpoint,
        )
        # Shared by all sessions of the company in this process.
        self.volume = volume
        # Messages accepted on this connection.
        self.messages = 0
        self.stream_id = stream_id
        self.stream_key = stream_key
        # Set by whoever schedules acknowledgements.
        self.ack_waiting = False
        self._urgent_at = 0
        self._stopped = False

    # --- Frames ------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes | str, now: float, now_us: int) -> None:
        """Takes one complete WebSocket message; bytes of text that are no UTF-8 come as ``surrogateescape`` makes them.

        ``now``: seconds of the monotonic clock; ``now_us``: Unix microseconds. Never raises for what a client can send.
        """
        if self.closed:
            return
        context = self.context
        self.conduct.messages += 1
        problem: MessageRefused | None = None
        size = len(data)
        try:
            if isinstance(data, str):
                if not data.isascii():
                    size = len(data.encode(errors="surrogateescape"))
                context.counts.bytes_received += size
                envelope = read_json(data)
            else:
                context.counts.bytes_received += size
                if not data:
                    # Protobuf reads a message out of nothing.
                    raise empty_frame()
                envelope = _parse_envelope(data)
        except PayloadProblem as error:
            envelope, problem = error.envelope, error.refusal
        except MessageRefused as error:
            self._refuse_unread(data, size, error, read_sequence(data), now, now_us)
            return
        except DecodeError:
            unread = MessageRefused(NackCode.MALFORMED, "the frame is not a MessageEnvelope")
            self._refuse_unread(data, size, unread, read_sequence(data), now, now_us)
            return

        message_type = envelope.message_type
        route = context.routes.get(message_type)
        if route is None and message_type in CONTROL_TYPES:
            answer(self, message_type, envelope.payload, problem, now, now_us)
            return
        sequence = envelope.sequence
        stream_id = envelope.stream_id
        if stream_id != self.stream_id or sequence > SEQUENCE_LIMIT:
            try:
                self._check_stream(stream_id, sequence)
            except MessageRefused as error:
                self._refuse_unread(data, size, error, 0, now, now_us)
                return
        sink = context.sink
        if not sink.available:
            self.end_unavailable(sequence)
            return
        if sequence and not self._arrives_next(sequence, now):
            if self.tap is not None:
                verdict = NackCode.SEQUENCE_GAP if sequence >= self.position.expected else NackCode.DUPLICATE
                self.tap(self, message_type, sequence, size, verdict.value, b"", now_us)
            return
        try:
            if self._hold is not None and route is not None and route.urgent:
                raise self._held_back(self._hold)
            if not self.bucket.take(now):
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
            if sink.is_ill and not sink.takes(route.topic, self._key):
                raise _unavailable_here()
        except MessageRefused as error:
            if error.action is NackAction.REOFFER and sequence and route is not None and route.urgent:
                self._hold_behind(sequence, error)
            self._refuse(data, size, message_type, sequence, error, now, now_us)
            return
        envelope.DiscardUnknownFields()
        policy = self.policy
        envelope.user_id = policy.user_id
        envelope.company_id = policy.company_id
        envelope.received_at = now_us
        envelope.session_id = self.session_id
        envelope.stream_writer = self.stream_writer
        if stream_id != self.stream_id:
            envelope.stream_id = self.stream_id
        value = envelope.SerializeToString()
        route.accepted += 1
        self.messages += 1
        if self.tap is not None:
            self.tap(self, message_type, sequence, size, "accepted", value, now_us)
        self._publish(route.topic, value, (self, sequence, now, route, len(value), size))

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

    # --- Delivery ----------------------------------------------------------------------------------------------------

    def delivered(self, sequence: int, urgent: bool, size: int) -> None:
        """Kafka has a message of this session, ``size`` bytes as it was received; the client hears of it now or with
        the next gathered acknowledgement."""
        self.in_flight -= 1
        volume = self.volume
        volume.messages += 1
        volume.size += size
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

    def kept(self, token: int) -> None:
        """Kafka has a frame of this session in failed-messages: its refusal is told now."""
        self.in_flight -= 1
        self._settle_due(token, kept=True)
        if self.position.acknowledged < token:
            self._urgent_at = max(self._urgent_at, token)
        self.context.schedule_ack(self, True)
        self.try_resume()

    def not_recorded(self, sequence: int, error: MessageRefused, *, is_ordered: bool = False) -> None:
        """Kafka certainly does not have a record of this session and never will: it is refused with ``error``.

        ``sequence``: as in its receipt, of a message or of a frame for failed-messages. ``is_ordered``: of a message
        whose route is urgent.
        """
        self.in_flight -= 1
        if sequence in self._due:
            self._settle_due(sequence, kept=False)
        else:
            self._count_refusal("", error.code)
            if is_ordered and sequence and error.action is NackAction.REOFFER:
                self.context.current(self)._hold_behind(sequence, error)
            self._answer([Answer(sequence, error, False)])
        self.try_resume()

    def failed(self) -> None:
        """Kafka did not take a message of this session, or cannot say."""
        self.in_flight -= 1
        self.end_unavailable(0)
        # Also when the connection is gone already: its successor must be able to send this message again.
        self.position.rewind()

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


def _unavailable_here() -> MessageRefused:
    """For one topic or partition that takes nothing, while the rest of Kafka does."""
    return MessageRefused(
        NackCode.BACKEND_UNAVAILABLE,
        "Kafka does not take this message now: offer it anew",
        retry_after_ms=2_000,
        action=NackAction.REOFFER,
    )
