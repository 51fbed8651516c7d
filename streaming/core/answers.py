"""Which message of a connection is looked at, and how every other one is answered. Room: streaming.core (pure).

A refusal is told when it is settled: at once, or when Kafka has the frame in failed-messages. Each is told before an
acknowledgement passes over its sequence.
"""

from typing import TYPE_CHECKING, cast

from streaming.core.breaker import Conduct
from streaming.core.codes import KEPT_REFUSALS, CloseCode, NackAction, NackCode, NoticeCode
from streaming.core.context import SessionContext
from streaming.core.control import ControlBuckets
from streaming.core.errors import MessageRefused
from streaming.core.policy import UserPolicy
from streaming.core.ports import Peer, Receipt, Tap
from streaming.core.refused import Refusal
from streaming.core.replies import ReplyForm
from streaming.core.stream import Arrival, StreamPosition
from streaming.core.throttle import TokenBucket
from streaming.core.unread import EXPLAINED_LIMIT, Answer, UnreadFrames
from streaming.core.voice import Voice

if TYPE_CHECKING:
    from streaming.core.session import Session


class Answering(Voice):
    """The half of a session that keeps account of sequences."""

    __slots__ = (
        "_controls", "_due", "_first", "_held", "_hold", "_hold_at", "_identity_headers", "_key", "_paused", "_repeats",
        "_tokens", "_told", "_unread", "bucket", "conduct", "endpoint", "in_flight", "stream_writer", "tap",
    )  # fmt: skip

    def __init__(
        self,
        context: SessionContext,
        *,
        session_id: str,
        policy: UserPolicy,
        bucket: TokenBucket,
        conduct: Conduct,
        peer: Peer,
        form: ReplyForm,
        position: StreamPosition,
        heard: int | None,
        account: str,
        is_bound: bool,
        endpoint: str,
    ) -> None:
        super().__init__(
            context, session_id=session_id, policy=policy, peer=peer, form=form, position=position, heard=heard,
            account=account, is_bound=is_bound,
        )  # fmt: skip
        # Shared by all sessions of the user in this process.
        self.bucket = bucket
        self.conduct = conduct
        # Set while somebody follows the user's messages.
        self.tap: Tap | None = None
        self.stream_writer = position.writer
        self.endpoint = endpoint
        self.in_flight = 0
        # Whether the client may still say where its stream goes on, and what the welcome tells it of that.
        self._first = heard is None
        self._told = position.acknowledged
        # Refusals that are told when Kafka has the frame: by sequence, or by the token of one without.
        self._due: dict[int, MessageRefused] = {}
        self._tokens = 0
        self._unread: UnreadFrames | None = None
        # How ordered messages are refused until the client has heard of ``_hold_at``; None while they are taken.
        self._hold: MessageRefused | None = None
        self._hold_at = 0
        # Ordered messages that were refused since the hold began: all of them come again.
        self._held = 0
        if heard is not None:
            self._hold_behind_unheard()
        self._controls: ControlBuckets | None = None
        self._repeats: TokenBucket | None = None
        self._paused = False
        self._key = policy.user_id.encode()
        self._identity_headers = [
            ("user_id", policy.user_id.encode()),
            ("company_id", policy.company_id.encode()),
            ("session_id", session_id.encode()),
            ("endpoint", endpoint.encode()),
            *((("account", account.encode()),) if account else ()),
        ]

    @property
    def _session(self) -> "Session":
        """Itself: nothing else is made of this."""
        return cast("Session", self)

    # --- Sequences ---------------------------------------------------------------------------------------------------

    def _arrives_next(self, sequence: int, now: float) -> bool:
        """Whether the message is to be looked at; answers it otherwise."""
        unread = self._unread
        if unread is None:
            arrival = self.position.arrive(sequence, first=self._first, told=self._told)
        else:
            arrival = self.position.arrive(
                sequence, first=self._first, told=self._told, unread=min(unread.count, EXPLAINED_LIMIT)
            )
        if arrival is Arrival.NEXT:
            self._first = False
            if unread is not None:
                unread.forget()
            return True
        return self._arrives_otherwise(sequence, arrival, now)

    def _arrives_otherwise(self, sequence: int, arrival: Arrival, now: float) -> bool:
        position = self.position
        if arrival is Arrival.RESTART:
            self._restart()
            return self._arrives_next(sequence, now)
        self._first = False
        if arrival is Arrival.EXPLAINED and self._unread is not None:
            self._answer(self._unread.explain(position.pass_over(sequence)))
        elif arrival is Arrival.JUMP:
            self._jump(sequence)
        elif arrival is Arrival.DUPLICATE or arrival is Arrival.REFUSED:
            self.context.counts.duplicates += 1
            self.flush_ack(repeat=True)
            refusal = position.refused.get(sequence)
            if refusal is not None:
                self.repeat_refusal(sequence, refusal)
            else:
                self.nack(sequence, MessageRefused(NackCode.DUPLICATE, "this sequence is settled already"))
        elif arrival is Arrival.GAP:
            reason = f"sequence {position.expected} is expected: send from there"
            self._count_refusal("", NackCode.SEQUENCE_GAP)
            self.nack(sequence, MessageRefused(NackCode.SEQUENCE_GAP, reason))
        if not arrival.is_new:
            self._count_repeat(now)
        return arrival.is_new

    def _jump(self, sequence: int) -> None:
        """What could not be read before it has most likely used up the sequences right before it."""
        position, unread = self.position, self._unread
        expected = position.expected
        count = min(unread.count, EXPLAINED_LIMIT) if unread is not None else 0
        missing = position.jump(sequence, unread=count)
        skipped = (missing[0] if missing else sequence) - 1
        reason = f"sequence {expected} was expected: those up to {skipped} count as never sent"
        self.notice(NoticeCode.SEQUENCE_JUMP, reason, {"expected": str(expected), "sequence": str(sequence)})
        if unread is not None:
            self._answer(unread.explain(missing))

    def _count_repeat(self, now: float) -> None:
        """A message that is sent again costs nothing of the plan's rate: a client that has lost its connection does so
        rightly, up to a window at once. More than that counts as flooding."""
        if self._repeats is None:
            rate = self.policy.message_rate_limit
            self._repeats = TokenBucket(rate, max(rate, 2.0 * self.context.limits.in_flight_limit), now)
        if not self._repeats.take(now):
            self.conduct.over_rate += 1

    def _restart(self) -> None:
        """The client counts from 1 again: what it sends is another incarnation of the stream, and no repetition."""
        known = self.position.acknowledged
        self.stream_writer = f"~{self.session_id}"
        self.position = StreamPosition(writer=self.stream_writer)
        self.ack_sent = 0
        self.context.on_restart(self._session)
        reason = f"the stream was known up to {known} and begins anew: records carry another stream_writer from now on"
        self.notice(
            NoticeCode.STREAM_RESTARTED, reason, {"acknowledged": str(known), "stream_writer": self.stream_writer}
        )

    def hear(self, sequence: int) -> None:
        """The client says that it has heard every answer up to and including ``sequence``."""
        self.position.forget(sequence)
        if self._hold is not None and sequence >= self._hold_at:
            self._hold, self._held = None, 0

    def _hold_behind(self, sequence: int, error: MessageRefused) -> None:
        """An ordered message was refused and will come again: those behind it wait, or they would overtake it. Only a
        client that says what it has heard can end that."""
        if self.heard is not None:
            self._hold = error
            self._hold_at = max(self._hold_at, sequence)
            self._held += 1

    def _hold_behind_unheard(self) -> None:
        """What was refused on an earlier connection comes again as well, once the client has heard of it."""
        for run in self.position.refused.runs():
            if run.action is NackAction.REOFFER:
                self._hold_behind(run.last, MessageRefused(run.code, "refused before", action=run.action))

    def _held_back(self, first: MessageRefused) -> MessageRefused:
        """How a message is refused that must not overtake an earlier one, which was refused as ``first``.

        Whoever waits for the longest of these hints has room for all that were refused, up to a burst: offered anew too
        early, each would be refused again and again.
        """
        self.conduct.over_rate += 1
        is_rate = first.code is NackCode.RATE_LIMITED
        retry_after_ms = self.bucket.retry_after_ms(self._held + 1) if is_rate else first.retry_after_ms
        reason = "held back behind a refused one: send gateway.ping with heard_sequence, then offer all of them anew"
        return MessageRefused(first.code, reason, retry_after_ms=retry_after_ms, action=NackAction.REOFFER)

    # --- Refusals ----------------------------------------------------------------------------------------------------

    def _refuse(
        self, data: bytes | str, size: int, message_type: str, sequence: int, error: MessageRefused, now: float,
        now_us: int, *, is_unread: bool = False,
    ) -> None:  # fmt: skip
        """Answers a message; its sequence (0: none) is settled when nothing more is owed for it."""
        if self.tap is not None:
            self.tap(self._session, message_type, sequence, size, error.code.value, b"", now_us)
        self._count_refusal(message_type, error.code)
        if error.code not in KEPT_REFUSALS or error.harmless:
            if is_unread:
                self._unread_frames().note(error)
            self._answer([Answer(sequence, error, False)])
            return
        token = sequence
        if not sequence:
            self._tokens += 1
            token = -self._tokens
            if is_unread:
                self._unread_frames().note(error, token)
        self._due[token] = error
        self._keep(data, message_type, token, error, now, now_us)
        if self.conduct.error():
            self.context.on_abuse(self._session)

    def _refuse_unread(
        self, data: bytes | str, size: int, error: MessageRefused, sequence: int, now: float, now_us: int
    ) -> None:
        """Answers a frame that could not be read; ``sequence``: what seems to stand in it, 0 when nothing does."""
        if not self.context.sink.available:
            self.end_unavailable(0)
            return
        if not self.bucket.take(now):
            error = self._over_rate()
        if sequence and self._is_believed(sequence):
            if self._arrives_next(sequence, now):
                self._refuse(data, size, "", sequence, error, now, now_us)
            elif self.conduct.error():
                self.context.on_abuse(self._session)
        else:
            self._refuse(data, size, "", 0, error, now, now_us, is_unread=True)

    def _is_believed(self, sequence: int) -> bool:
        """Bytes that are broken may say anything: only what is expected now, what was refused before, and what comes
        right behind the frames that could not be read."""
        position = self.position
        if sequence == position.expected or sequence in position.refused:
            return True
        if sequence == 1 and self._first and position.acknowledged > 0:
            return True
        count = self._unread.count if self._unread is not None else 0
        if not 0 < count <= EXPLAINED_LIMIT or sequence < position.expected:
            return False
        arrival = position.arrive(sequence, unread=count)
        return arrival is Arrival.EXPLAINED and len(position.unsettled(position.expected, sequence)) == count

    def _unread_frames(self) -> UnreadFrames:
        if self._unread is None:
            self._unread = UnreadFrames()
        return self._unread

    def _keep(
        self, data: bytes | str, message_type: str, token: int, error: MessageRefused, now: float, now_us: int
    ) -> None:
        """Writes the frame as it came to failed-messages; its sequence is settled when Kafka has it."""
        sink, topic = self.context.sink, self.context.failed_topic
        if sink.is_ill and not sink.takes(topic, self._key):
            self._settle_due(token, kept=False)
            return
        value = data.encode(errors="surrogateescape") if isinstance(data, str) else data
        headers = [
            *self._identity_headers,
            ("reason", error.code.encode()),
            ("received_at", str(now_us).encode()),
            ("message_type", message_type[:64].encode()),
        ]
        self._publish(topic, value, (self._session, token, now, None, len(value), len(value)), headers)

    def _settle_due(self, token: int, *, kept: bool) -> None:
        """Tells and settles a refusal whose frame is in failed-messages, or certainly is not."""
        error = self._due.pop(token, None)
        if error is None:
            return
        counts = self.context.counts.failed_messages if kept else self.context.counts.not_kept
        counts[error.code] = counts.get(error.code, 0) + 1
        if token > 0:
            self._answer([Answer(token, error, kept)])
        elif self._unread is not None and self._unread.holds(token):
            self._answer(self._unread.settle(token, kept=kept))
        else:
            self._answer([Answer(0, error, kept)])

    def _answer(self, answers: list[Answer]) -> None:
        """Says each refusal, to whoever carries the stream now, and settles its sequence."""
        current = self.context.current(self._session)
        for sequence, error, kept in answers:
            current.nack(sequence, error, kept=kept)
            if sequence:
                self.position.refuse(sequence, Refusal(error.code, error.action, kept))
                self.context.schedule_ack(self._session, False)

    def refuse_control(self, message_type: str, error: MessageRefused) -> None:
        """Answers a control message, which has no sequence, with a nack."""
        self._count_refusal(message_type, error.code)
        self.nack(0, error)
        if error.code in KEPT_REFUSALS and not error.harmless and self.conduct.error():
            self.context.on_abuse(self._session)

    def take_control(self, message_type: str, now: float) -> None:
        """Raises MessageRefused for more control messages than a connection needs."""
        if self._controls is None:
            self._controls = ControlBuckets(now)
        try:
            self._controls.take(message_type, now)
        except MessageRefused:
            self.conduct.over_rate += 1
            raise

    def _over_rate(self) -> MessageRefused:
        # Whatever it is and however it is answered.
        self.conduct.over_rate += 1
        reason = "over the messages a second of the plan"
        return MessageRefused(NackCode.RATE_LIMITED, reason, retry_after_ms=self.bucket.retry_after_ms())

    def _publish(
        self, topic: str, value: bytes, receipt: Receipt, headers: list[tuple[str, bytes]] | None = None
    ) -> None:
        self.in_flight += 1
        self.context.sink.publish(topic, self._key, value, receipt, headers)
        if not self._paused and (self.in_flight >= self.context.limits.in_flight_limit or self.context.sink.is_full):
            self._paused = True
            self.peer.pause()

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
            self.nack(missing, error)
        for token in self._due:
            if token < 0:
                self.nack(0, error)
        self.position.rewind()
        self.end(
            CloseCode.BACKEND_UNAVAILABLE, "Kafka does not take messages now", retry_after_ms=2_000, jitter_ms=3_000
        )
