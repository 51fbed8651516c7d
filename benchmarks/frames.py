"""The messages that the load generator sends, serialised ahead of time. Room: benchmarks."""

import random

from proto.gateway.v1 import envelope_pb2, payloads_pb2

TICKS_IN_BATCH = 5
DEFAULT_SYMBOLS = ("EURUSD", "GBPUSD", "USDJPY", "AUDUSD", "USDCHF", "USDCAD", "NZDUSD", "XAUUSD")
# Tags of MessageEnvelope.timestamp (5) and .sequence (8), both varints, and .stream_id (9), a string: what differs from
# message to message is appended to an envelope that was serialised ahead of time.
_TIMESTAMP_TAG = b"\x28"
_SEQUENCE_TAG = b"\x40"
_STREAM_TAG = b"\x4a"
_VARIANTS = 64


def varint(value: int) -> bytes:
    """Protobuf's encoding of a whole number of at least 0."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def stream_field(stream_id: str) -> bytes:
    """The envelope's stream_id, of fewer than 128 characters, to append to a serialised envelope."""
    return _STREAM_TAG + varint(len(stream_id)) + stream_id.encode()


def stamped(body: bytes, stream: bytes, timestamp: int, sequence: int) -> bytes:
    """An envelope of ``tick_bodies`` or ``signal_bodies`` made complete; sequence 0 asks for no acknowledgement.

    The timestamp is written in microseconds, a thousand times finer than clients do: the gateway passes it on as it
    is, and latencies of a few milliseconds need it.
    """
    if sequence:
        return b"%b%b%b%b%b%b" % (body, stream, _TIMESTAMP_TAG, varint(timestamp), _SEQUENCE_TAG, varint(sequence))
    return b"%b%b%b%b" % (body, stream, _TIMESTAMP_TAG, varint(timestamp))


def websocket_frame(payload: bytes) -> bytes:
    """One binary client frame of at most 65,535 bytes, ready for the socket.

    The mask is zero, so the payload stands as it is; the server applies the mask all the same.
    """
    size = len(payload)
    if size < 126:
        return b"\x82" + bytes([0x80 | size]) + b"\0\0\0\0" + payload
    return b"\x82\xfe" + size.to_bytes(2, "big") + b"\0\0\0\0" + payload


def tick_bodies(symbols: list[str]) -> list[bytes]:
    """Serialised tick_data envelopes without stream_id, timestamp and sequence, five ticks each, of a random walk."""
    source = random.Random(1)
    bodies = []
    for index in range(_VARIANTS):
        batch = payloads_pb2.BatchTickData()
        for place in range(TICKS_IN_BATCH):
            bid = round(source.uniform(1.0, 1.5), 5)
            batch.ticks.add(
                symbol=symbols[(index + place) % len(symbols)],
                bid=bid,
                ask=round(bid + 0.00012, 5),
                time_msc=1_700_000_000_000 + index * 100 + place,
                volume=float(source.randint(1, 50)),
            )
        bodies.append(_envelope("tick_data", batch.SerializeToString()))
    return bodies


def signal_bodies(symbols: list[str]) -> list[bytes]:
    """Serialised trading_signal envelopes without stream_id, timestamp and sequence."""
    source = random.Random(1)
    bodies = []
    for index in range(_VARIANTS):
        signal = payloads_pb2.TradingSignal(
            signal_id=f"signal-{index}",
            symbol=symbols[index % len(symbols)],
            action=payloads_pb2.TRADE_ACTION_BUY if index % 2 else payloads_pb2.TRADE_ACTION_SELL,
            price=round(source.uniform(1.0, 1.5), 5),
            stop_loss=0.99,
            take_profit=1.61,
            volume=0.1,
            time_msc=1_700_000_000_000 + index,
            magic=4711,
        )
        bodies.append(_envelope("trading_signal", signal.SerializeToString()))
    return bodies


def _envelope(message_type: str, payload: bytes) -> bytes:
    envelope = envelope_pb2.MessageEnvelope(message_type=message_type, payload=payload)
    return envelope.SerializeToString()
