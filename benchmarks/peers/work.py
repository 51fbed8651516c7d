"""What every peer does with one frame: the gateway's own work, written down once. Room: benchmarks.

Parse the envelope, stamp who sent it, check the symbols, route, serialise.
"""

import os
import time

from proto.gateway.v1 import envelope_pb2, payloads_pb2

KAFKA = os.environ.get("BENCH_KAFKA", "")
# message_type to topic, as in "tick_data=a,trading_signal=b".
ROUTES = dict(pair.split("=", 1) for pair in os.environ.get("BENCH_ROUTES", "").split(",") if pair)
ACTIVE_PAIRS = frozenset(os.environ.get("BENCH_SYMBOLS", "").split(","))


class Refused(Exception):
    """A frame that is not passed on."""


def prepare(data: bytes, user_id: str, company_id: str) -> tuple[str, bytes]:
    """The topic and the record value of one frame; raises Refused or protobuf's DecodeError."""
    envelope = envelope_pb2.MessageEnvelope.FromString(data)
    kind = envelope.message_type
    topic = ROUTES.get(kind)
    if topic is None:
        raise Refused(kind)
    if kind == "tick_data":
        batch = payloads_pb2.BatchTickData.FromString(envelope.payload)
        kept = [tick for tick in batch.ticks if tick.symbol in ACTIVE_PAIRS]
        if not kept:
            raise Refused(kind)
        if len(kept) != len(batch.ticks):
            envelope.payload = payloads_pb2.BatchTickData(ticks=kept, account=batch.account).SerializeToString()
    elif (
        kind == "trading_signal" and payloads_pb2.TradingSignal.FromString(envelope.payload).symbol not in ACTIVE_PAIRS
    ):
        raise Refused(kind)
    envelope.user_id = user_id
    envelope.company_id = company_id
    envelope.received_at = time.time_ns() // 1000
    return topic, envelope.SerializeToString()
