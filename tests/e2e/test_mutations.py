"""Ten thousand broken frames: each ends in a topic, in failed-messages or in a nack, and nothing else happens."""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from proto.gateway.v1 import control_pb2, envelope_pb2, payloads_pb2
from streaming.core.errors import MessageRefused
from streaming.core.json_form import PayloadProblem, read_json
from streaming.core.unread import read_sequence
from tests.support.gateway import Gateway, until
from tests.support.kafka import KafkaBroker
from tests.support.raw_client import BINARY, CLOSE, TEXT, RawClient
from tests.support.topics import Topics

COUNT = 10_000
# Frames of one connection: none of them may be made to wait for Kafka.
BATCH = 50
GOOD = envelope_pb2.MessageEnvelope(
    message_type="user_event", payload=payloads_pb2.UserEvent(event_type="login").SerializeToString()
).SerializeToString()


def valid_frames() -> list[tuple[int, bytes]]:
    """One of each type in both forms."""
    payloads = {
        "tick_data": payloads_pb2.BatchTickData(
            ticks=[payloads_pb2.Tick(symbol="EURUSD", bid=1.1, ask=1.2, time_msc=1_700_000_000_000, volume=1.0)] * 3
        ),
        "trading_signal": payloads_pb2.TradingSignal(symbol="EURUSD", action="TRADE_ACTION_BUY", price=1.1),
        "user_event": payloads_pb2.UserEvent(event_type="login", attributes={"build": "4000"}),
        "notification": payloads_pb2.Notification(title="Margin call", body="Level 50 %"),
    }
    frames = [
        (
            BINARY,
            envelope_pb2.MessageEnvelope(
                message_type=kind,
                payload=payload.SerializeToString(),
                timestamp=1_700_000_000_000,
                correlation_id="c-1",
            ).SerializeToString(),
        )
        for kind, payload in payloads.items()
    ]
    tick = {"symbol": "EURUSD", "bid": 1.1, "ask": 1.2, "time_msc": 1_700_000_000_000, "volume": 1}
    bodies = [
        {"message_type": "tick_data", "sequence": 0, "timestamp": 1_700_000_000_000, "ticks": [tick] * 3},
        {"message_type": "trading_signal", "payload": {"symbol": "EURUSD", "action": "BUY", "price": 1.1}},
        {"message_type": "user_event", "payload": {"event_type": "login", "attributes": {"build": "4000"}}},
        {"message_type": "notification", "payload": {"title": "Margin call", "severity": "WARNING"}},
    ]
    return frames + [(TEXT, json.dumps(body).encode()) for body in bodies]


def mutated(source: random.Random, data: bytes) -> bytes:
    """One to four flipped bits."""
    broken = bytearray(data)
    for _ in range(source.randint(1, 4)):
        broken[source.randrange(len(broken))] ^= 1 << source.randrange(8)
    return bytes(broken)


def sequence_of(opcode: int, data: bytes) -> int:
    """The sequence that a flipped bit may have made, also of a frame that is broken; 0 when there is none."""
    try:
        if opcode == BINARY:
            return envelope_pb2.MessageEnvelope.FromString(data).sequence
        return read_json(data.decode()).sequence
    except PayloadProblem as problem:
        return problem.envelope.sequence
    except (MessageRefused, DecodeError, UnicodeDecodeError):
        return read_sequence(data if opcode == BINARY else data.decode(errors="surrogateescape"))


@dataclass
class Prober:
    """Sends frame after frame, some on each connection, and hears what became of them: a goodbye is answered when all
    that came before it has its answers."""

    gateway: Gateway
    outcomes: Counter[str] = field(default_factory=Counter)
    client: RawClient | None = None
    # Frames of this connection.
    sent: int = 0

    def probe(self, opcode: int, data: bytes) -> None:
        has_sequence = sequence_of(opcode, data) > 0
        if has_sequence:
            # Unreadable ones before it would explain what is missing before it, and be answered once more.
            self.hang_up()
        if self.client is None:
            self.client = RawClient(self.gateway.port)
            assert self.client.open(self.gateway.users[0].token, subprotocol="gateway.v1.protobuf") == 101
        # As many good ones: whose messages are mostly invalid is let go.
        self.client.send(BINARY, GOOD)
        self.client.send(opcode, data)
        self.sent += 2
        is_broken_text = opcode == TEXT and not is_utf8(data)
        # A sequence of its own would make the next frame a gap or a duplicate, and text that is no UTF-8 is the last.
        if is_broken_text or has_sequence or self.sent >= BATCH:
            self.hang_up(1007 if is_broken_text else 1000)

    def hang_up(self, code: int = 1000) -> None:
        if self.client is None:
            return
        self.client.send(CLOSE, (1000).to_bytes(2, "big"))
        # Whether each says that its frame is kept: one that says nothing at all is not.
        nacks: list[bool] = []
        while (received := self.client.read()) is not None and received.opcode != CLOSE:
            envelope = envelope_pb2.MessageEnvelope.FromString(received.payload)
            if envelope.message_type == "gateway.nack":
                nacks.append(control_pb2.Nack.FromString(envelope.payload).kept)
        assert received is not None and received.close_code == code
        assert len(nacks) <= self.sent // 2, "one frame, two nacks"
        self.outcomes["topic"] += self.sent - len(nacks)
        for is_kept in nacks:
            self.outcomes["failed" if is_kept else "nack"] += 1
        self.client.close()
        self.client, self.sent = None, 0


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_ten_thousand_mutated_frames_are_all_accounted_for(
    make_gateway: Callable[..., Gateway], kafka: KafkaBroker
) -> None:
    topics = Topics(kafka.bootstrap)
    gateway = make_gateway(**topics.settings, GATEWAY_BENCHMARK="1").start()
    source = random.Random(20_240_229)
    frames = valid_frames()
    prober = Prober(gateway)
    for number in range(COUNT):
        opcode, data = frames[number % len(frames)]
        prober.probe(opcode, mutated(source, data))
    prober.hang_up()

    outcomes = prober.outcomes
    assert outcomes.total() == 2 * COUNT
    assert min(outcomes["topic"] - COUNT, outcomes["failed"], outcomes["nack"]) > 50, outcomes
    until(lambda: gateway.metric("gateway_in_flight_messages") == 0, 20, "everything settled")
    assert len(topics.read()) == outcomes["topic"]
    assert len(topics.read_failed()) == outcomes["failed"]
    assert gateway.errors() == []
    # What reaches a topic is what its schema says, and nothing a client added.
    for record in topics.read():
        envelope = record.envelope
        assert envelope.user_id == gateway.users[0].user_id
        known = envelope_pb2.MessageEnvelope.FromString(record.value)
        known.DiscardUnknownFields()
        assert known.SerializeToString(deterministic=True) == envelope.SerializeToString(deterministic=True)
