"""What a client may ask of the gateway itself: its delay, and to go on with a new token. Room: streaming.core.

These cost nothing of the plan's rate, so that a terminal at its limit can still measure and stay; they have bounds of
their own.
"""

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from proto.gateway.v1 import control_pb2
from streaming.core.codes import CloseCode, NackCode
from streaming.core.errors import MessageRefused, RefreshRefused
from streaming.core.throttle import TokenBucket

if TYPE_CHECKING:
    from streaming.core.session import Session

CONTROL_TYPES = frozenset({"gateway.ping", "gateway.refresh"})
# A second and at once, for one connection; refreshes are looked at by the database and are rarer.
_RATE, _BURST = 5.0, 20.0
_REFRESH_RATE, _REFRESH_BURST = 0.2, 3.0


class ControlBuckets:
    """What one connection may ask; made when it asks for the first time."""

    __slots__ = ("_all", "_refreshes")

    def __init__(self, now: float) -> None:
        self._all = TokenBucket(_RATE, _BURST, now)
        self._refreshes = TokenBucket(_REFRESH_RATE, _REFRESH_BURST, now)

    def take(self, message_type: str, now: float) -> None:
        """Raises MessageRefused (``rate_limited``)."""
        for bucket in (self._all, self._refreshes) if message_type == "gateway.refresh" else (self._all,):
            if not bucket.take(now):
                reason = f"too many {message_type} messages of this connection"
                raise MessageRefused(NackCode.RATE_LIMITED, reason, retry_after_ms=bucket.retry_after_ms())


def answer(
    session: "Session", message_type: str, payload: bytes, problem: MessageRefused | None, now: float, now_us: int
) -> None:
    """Answers one message of CONTROL_TYPES; ``problem``: what is known to be wrong with it already.

    ``now``: seconds of the monotonic clock; ``now_us``: Unix microseconds. Never raises for what a client can send.
    """
    try:
        session.take_control(message_type, now)
        if problem is not None:
            raise problem
        if message_type == "gateway.ping":
            ping = control_pb2.Ping.FromString(payload)
            if ping.heard_sequence:
                session.hear(ping.heard_sequence)
            pong = control_pb2.Pong(client_time_ms=ping.client_time_ms, server_time_ms=now_us // 1000)
            session.say("gateway.pong", pong)
        else:
            session.context.refresh(session, control_pb2.Refresh.FromString(payload).token)
            session.tell_policy(now_us)
    except DecodeError:
        reason = "the payload is not of its message_type"
        session.refuse_control(message_type, MessageRefused(NackCode.PAYLOAD_MISMATCH, reason))
    except RefreshRefused as refused:
        session.refuse_control(message_type, MessageRefused(NackCode.TOKEN_INVALID, refused.reason))
        if refused.fatal:
            session.end(CloseCode.TOKEN_INVALID, refused.reason)
    except MessageRefused as error:
        session.refuse_control(message_type, error)
