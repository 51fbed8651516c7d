"""What the gateway says to the client of one connection. Room: streaming.core (pure)."""

from google.protobuf.message import Message

from proto.gateway.v1 import control_pb2
from streaming.core.codes import CloseCode, NackCode, NoticeCode
from streaming.core.context import SessionContext
from streaming.core.errors import MessageRefused
from streaming.core.policy import UserPolicy, policy_message
from streaming.core.ports import Peer
from streaming.core.refused import Refusal
from streaming.core.replies import ReplyForm, disconnect_message, nack_message, welcome_message
from streaming.core.stream import StreamPosition

# Pairs whose ticks are taken out, of which a client is told once each, for one connection.
_NOTICE_LIMIT = 50


class Voice:
    """The half of a session that speaks. ``heard``: how far the client said at connect that it has heard every answer;
    None when it did not say."""

    __slots__ = (
        "_noticed", "account", "accounts", "ack_sent", "closed", "context", "form", "heard", "is_bound", "peer",
        "policy", "position", "session_id", "token_expires_at_ms",
    )  # fmt: skip

    def __init__(
        self,
        context: SessionContext,
        *,
        session_id: str,
        policy: UserPolicy,
        peer: Peer,
        form: ReplyForm,
        position: StreamPosition,
        heard: int | None,
        account: str,
        is_bound: bool,
    ) -> None:
        self.context = context
        self.session_id = session_id
        self.policy = policy
        self.peer = peer
        self.form = form
        self.position = position
        self.heard = heard
        self.closed = False
        self.ack_sent = position.acknowledged
        # What messages without an account are for, and the MT5 logins that those of this connection were for.
        self.account = account or policy.only_account
        self.is_bound = is_bound
        self.accounts: set[str] = {self.account} if self.account else set()
        # Unix milliseconds.
        self.token_expires_at_ms = 0
        self._noticed: set[tuple[NoticeCode, str]] = set()

    # --- The connection ----------------------------------------------------------------------------------------------

    def welcome(self, now_us: int, *, position_known: bool = False, fence: int = 0) -> None:
        """The first message of a connection. ``fence``: which connection of the stream this is."""
        position = self.position
        message = welcome_message(
            position.refused.runs(above=self.heard or 0),
            session_id=self.session_id,
            server_time_ms=now_us // 1000,
            policy=policy_message(self.policy, self.context.limits),
            ping_interval_ms=self.context.limits.ping_interval_ms,
            last_acknowledged_sequence=position.acknowledged,
            token_expires_at_ms=self.token_expires_at_ms,
            position_known=position_known,
            refusals_from=position.refused.complete_from,
            stream_fence=fence,
            stream_writer=position.writer,
        )
        self.say("gateway.welcome", message)

    def tell_policy(self, now_us: int) -> None:
        """The answer to a new token: the limits, and the end of that token."""
        message = policy_message(self.policy, self.context.limits)
        message.token_expires_at_ms = self.token_expires_at_ms
        message.server_time_ms = now_us // 1000
        self.say("gateway.policy", message)

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

    # --- Messages ----------------------------------------------------------------------------------------------------

    def flush_ack(self, *, repeat: bool = False) -> None:
        """Sends the cumulative acknowledgement if it has moved, or in any case with ``repeat``."""
        acknowledged = self.position.acknowledged
        if (acknowledged > self.ack_sent or repeat) and not self.closed:
            self.ack_sent = acknowledged
            self._send(self.form.ack(acknowledged))

    def nack(self, sequence: int, error: MessageRefused, *, kept: bool = False) -> None:
        self.say("gateway.nack", nack_message(sequence, error, kept=kept))

    def repeat_refusal(self, sequence: int, refusal: Refusal) -> None:
        """For a sequence that was refused before and comes again."""
        reason = f"refused before as {refusal.code}: this sequence is settled"
        self.nack(sequence, MessageRefused(refusal.code, reason, action=refusal.action), kept=refusal.kept)

    def notice(self, code: NoticeCode, reason: str, detail: dict[str, str]) -> None:
        """Tells the client of something that loses nothing."""
        self.say("gateway.notice", control_pb2.Notice(code=code, reason=reason, detail=detail))

    def filtered(self, code: NoticeCode, reason: str, symbols: set[str]) -> None:
        """Tells the client once of each pair whose ticks are taken out for this reason."""
        fresh = {symbol for symbol in symbols if (code, symbol) not in self._noticed}
        if fresh and len(self._noticed) < _NOTICE_LIMIT:
            self._noticed |= {(code, symbol) for symbol in fresh}
            self.notice(code, reason, {"symbols": ",".join(sorted(fresh)[:_NOTICE_LIMIT])})

    def say(self, message_type: str, payload: Message) -> None:
        if not self.closed:
            self._send(self.form.encode(message_type, payload))

    def _send(self, data: bytes | str) -> None:
        self.context.counts.bytes_sent += len(data)
        self.peer.send(data)

    def _count_refusal(self, message_type: str, code: NackCode) -> None:
        key = (message_type if message_type in self.context.routes else "", code.value)
        refusals = self.context.counts.refusals
        refusals[key] = refusals.get(key, 0) + 1
