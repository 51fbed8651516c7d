"""Sends failed messages through the session core once more, as their own user. Room: streaming.tools.

The same rules as on the wire decide, with the user's limits of today: what was unknown then may be known now.
"""

from dataclasses import dataclass

from proto.gateway.v1 import control_pb2
from streaming.core.breaker import Conduct
from streaming.core.codes import CloseCode
from streaming.core.context import SessionContext
from streaming.core.policy import ConnectionLimits, UserPolicy
from streaming.core.ports import Headers, Receipt
from streaming.core.replies import FORMS, JSON, PROTOBUF
from streaming.core.routing import Route
from streaming.core.session import Session
from streaming.core.stream import StreamPosition
from streaming.core.throttle import TokenBucket
from streaming.core.volume import Volume


@dataclass(frozen=True, slots=True)
class Accepted:
    """What goes to Kafka."""

    topic: str
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """Why it is still no valid message."""

    code: str
    reason: str


class _OneMessageSink:
    available = True
    is_full = False
    is_ill = False

    def __init__(self, failed_topic: str) -> None:
        self._failed_topic = failed_topic
        self.accepted: Accepted | None = None
        # Of a frame that would be kept as failed once more.
        self.kept: Receipt | None = None

    def takes(self, _topic: str, _key: bytes) -> bool:
        return True

    def publish(self, topic: str, key: bytes, value: bytes, receipt: Receipt, _headers: Headers | None = None) -> None:
        if topic != self._failed_topic:
            self.accepted = Accepted(topic, key, value)
        else:
            self.kept = receipt


class _DeafPeer:
    """Nobody listens."""

    def send(self, _data: bytes | str) -> None:
        """Answers go to nobody."""

    def close(self, _code: CloseCode, _reason: str) -> None:
        """There is no connection."""

    def pause(self) -> None:
        """One message is never too many."""

    def resume(self) -> None:
        """See pause."""


class _ReplaySession(Session):
    """Hears its own nacks."""

    __slots__ = ("refused",)

    def say(self, message_type: str, payload: object) -> None:
        if isinstance(payload, control_pb2.Nack):
            self.refused = Refused(payload.code, payload.reason)


def _ignore(*_: object) -> None:
    """Nobody waits for acknowledgements here, and one message is no conduct."""


def judge(
    value: bytes,
    *,
    policy: UserPolicy,
    session_id: str,
    received_at: int,
    routes: dict[str, Route],
    failed_topic: str,
    account: str = "",
) -> Accepted | Refused:
    """``value``: the frame as it came; ``received_at``: Unix microseconds, kept as it was; ``account``: the MT5 login
    that its connection was opened for. Publishes nothing itself."""
    sink = _OneMessageSink(failed_topic)
    context = SessionContext(routes, failed_topic, sink, ConnectionLimits(), _ignore, _ignore, _ignore)
    # A JSON frame begins with a brace, which no MessageEnvelope does: it would open a group of field 15.
    is_text = value.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    session = _ReplaySession(
        context,
        session_id=session_id,
        policy=policy,
        bucket=TokenBucket(1.0, 2.0, 0.0),
        conduct=Conduct(0.0),
        volume=Volume(),
        peer=_DeafPeer(),
        form=FORMS[JSON if is_text else PROTOBUF],
        # Its sequence may be another message's by now, in a later incarnation of its stream.
        position=StreamPosition(writer=f"~{session_id}"),
        account=account,
    )
    session.refused = Refused("malformed", "a control message is not replayed")
    session.receive(value.decode(errors="surrogateescape") if is_text else value, 0.0, received_at)
    if sink.kept is not None:
        # It is there already; now the refusal is told.
        session.kept(sink.kept[1])
    return session.refused if sink.accepted is None else sink.accepted
