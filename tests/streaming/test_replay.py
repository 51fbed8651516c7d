"""What becomes of a failed message that is sent through the rules once more."""

import pytest

from proto.gateway.v1 import envelope_pb2
from streaming.core.routing import build_routes
from streaming.tools.replay import Accepted, Refused, judge
from tests.streaming.core.cast import BOB, NOW_US, ROUTES, ticks


def replay(value: bytes) -> Accepted | Refused:
    return judge(
        value,
        policy=BOB,
        session_id="c0ffee",
        received_at=NOW_US,
        routes=build_routes(ROUTES),
        failed_topic="failed-messages",
    )


def frame(message_type: str = "tick_data", symbol: str = "EURUSD") -> bytes:
    payload = ticks(symbol).SerializeToString()
    envelope = envelope_pb2.MessageEnvelope(message_type=message_type, payload=payload, sequence=57, stream_id="s1")
    return envelope.SerializeToString()


def test_message_that_is_valid_now_is_accepted_under_a_writer_of_its_own() -> None:
    accepted = replay(frame())
    assert isinstance(accepted, Accepted)
    envelope = envelope_pb2.MessageEnvelope.FromString(accepted.value)
    assert (accepted.topic, envelope.sequence, envelope.received_at) == ("tick-data", 57, NOW_US)
    # 57 of the stream may have been recorded since, of a terminal that began anew.
    assert envelope.stream_writer == "~c0ffee"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (frame("nonsense"), "unknown_type"),
        (b"\xff\xff", "malformed"),
        (b'{"message_type":"tick_data","sequence":57,"ticks":[1,]}', "malformed"),
        (frame(symbol="BTCUSD"), "pair_not_active"),
    ],
)
def test_message_that_is_still_invalid_says_why(value: bytes, code: str) -> None:
    refused = replay(value)
    assert isinstance(refused, Refused) and refused.code == code
