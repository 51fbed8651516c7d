"""What a client may ask of the gateway itself: its delay, and to go on with a new token. Room: streaming.core."""

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from proto.gateway.v1 import control_pb2
from streaming.core.codes import CloseCode, NackCode
from streaming.core.errors import MessageRefused, RefreshRefused
from streaming.core.policy import policy_message

if TYPE_CHECKING:
    from streaming.core.session import Session

CONTROL_TYPES = frozenset({"gateway.ping", "gateway.refresh"})


def answer(session: "Session", message_type: str, payload: bytes, problem: MessageRefused | None, now_us: int) -> None:
    """Answers one message of CONTROL_TYPES; ``problem``: what is known to be wrong with it already.

    ``now_us``: Unix microseconds. Never raises for what a client can send.
    """
    try:
        if problem is not None:
            raise problem
        if message_type == "gateway.ping":
            client_time_ms = control_pb2.Ping.FromString(payload).client_time_ms
            session.say("gateway.pong", control_pb2.Pong(client_time_ms=client_time_ms, server_time_ms=now_us // 1000))
        else:
            session.context.refresh(session, control_pb2.Refresh.FromString(payload).token)
            session.say("gateway.policy", policy_message(session.policy, session.context.limits))
    except DecodeError:
        reason = "the payload is not of its message_type"
        session.refuse_control(message_type, MessageRefused(NackCode.PAYLOAD_MISMATCH, reason))
    except RefreshRefused as refused:
        session.refuse_control(message_type, MessageRefused(NackCode.TOKEN_INVALID, refused.reason))
        if refused.fatal:
            session.end(CloseCode.TOKEN_INVALID, refused.reason)
    except MessageRefused as error:
        session.refuse_control(message_type, error)
