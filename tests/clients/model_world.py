"""The real client core against the real session core: two gateway processes, Redis, Kafka and a network, all in memory.

Nothing here waits: whoever drives it says what happens next, and may let anything be late, lost or killed.
"""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from proto.gateway.v1 import envelope_pb2, payloads_pb2
from streaming.core.breaker import Conduct
from streaming.core.codes import CloseCode
from streaming.core.context import SessionContext
from streaming.core.policy import ConnectionLimits
from streaming.core.ports import Headers, Receipt
from streaming.core.replies import FORMS as GATEWAY_FORMS
from streaming.core.replies import PROTOBUF
from streaming.core.routing import build_routes
from streaming.core.session import Session
from streaming.core.stream import StreamPosition
from streaming.core.throttle import TokenBucket
from streaming.core.volume import Volume
from streaming.sinks.memory import MemorySink, Record
from tests.streaming.core.cast import BOB, NOW_US, ROUTES
from trading_gateway_client.core import Core
from trading_gateway_client.disk import DiskJournal
from trading_gateway_client.forms import FORMS
from trading_gateway_client.pb import control_pb2
from trading_gateway_client.pb import payloads_pb2 as own_pb2

RATE = 20.0
STREAM = "ea-1"
_SIGNALS = ROUTES["trading_signal"]


class ModelSink(MemorySink):
    """Kafka as one process sees it: all of them write to the same records; one topic may take nothing."""

    def __init__(self, process: "Process", records: list[Record]) -> None:
        super().__init__(process.on_delivered, process.on_failed)
        self.records = records
        self.ill_topic = ""

    def takes(self, topic: str, key: bytes) -> bool:
        return topic != self.ill_topic

    def record_unreported(self, count: int) -> None:
        """The oldest ``count`` are recorded, and nobody here is told."""
        self.records += [record for record, _ in self._waiting[:count]]

    def publish(self, topic: str, key: bytes, value: bytes, receipt: Receipt, headers: Headers | None = None) -> None:
        super().publish(topic, key, value, receipt, headers)


class Wire:
    """One connection: what is on the way in both directions, and how it ended for the gateway."""

    def __init__(self) -> None:
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.close_code = 0
        self.is_paused = False
        self.session: Session | None = None

    def send(self, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        self.down.append(data)

    def close(self, code: CloseCode, reason: str) -> None:
        self.close_code = int(code)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False


@dataclass
class Stored:
    """What Redis has of one stream: the fence, and a position for each writer."""

    fence: int = 0
    positions: dict[str, str] = field(default_factory=dict)


class Process:
    """One gateway process: what ``Runtime``, ``Carriers`` and ``Registry`` do for one stream."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.sink = ModelSink(self, world.records)
        self.positions: dict[str, StreamPosition] = {}
        self.carrier: Wire | None = None
        self.fence = 0
        self.bucket = TokenBucket(RATE, RATE, world.now)
        self.context = SessionContext(
            routes=build_routes(ROUTES),
            failed_topic="failed-messages",
            sink=self.sink,
            limits=ConnectionLimits(in_flight_limit=12),
            schedule_ack=lambda session, urgent: self.current(session).flush_ack(),
            on_abuse=lambda session: None,
            refresh=lambda session, token: None,
            current=self.current,
        )

    def open(self, wire: Wire, writer: str, heard: int | None) -> None:
        redis = self._world.redis
        redis.fence = self.fence = max(redis.fence, self.fence) + 1
        stored = StreamPosition.from_text(redis.positions[writer]) if writer in redis.positions else None
        is_known = stored is not None or writer in self.positions
        position = self.positions.setdefault(writer, stored or StreamPosition(writer=writer))
        if stored is not None and stored is not position:
            position.catch_up(stored)
        before, self.carrier = self.carrier, wire
        wire.session = Session(
            self.context,
            session_id=f"c{self.fence}",
            policy=self._world.policy,
            bucket=self.bucket,
            conduct=Conduct(self._world.now),
            volume=Volume(),
            peer=wire,
            form=GATEWAY_FORMS[PROTOBUF],
            stream_id=STREAM,
            stream_key=("bob", STREAM, writer),
            position=position,
            heard=heard,
        )
        wire.session.welcome(NOW_US, position_known=is_known, fence=self.fence)
        if before is not None and before.session is not None:
            before.session.end(CloseCode.SESSION_REPLACED, "opened anew")

    def hear_news(self) -> None:
        """Another process has claimed the stream."""
        if self.carrier is not None and self.carrier.session is not None and self.fence < self._world.redis.fence:
            self.carrier.session.end(CloseCode.SESSION_REPLACED, "opened anew")

    def write_positions(self) -> None:
        """As the store's script does."""
        redis = self._world.redis
        if self.fence < redis.fence:
            self.hear_news()
            return
        redis.fence = self.fence
        for writer, position in self.positions.items():
            text = redis.positions.get(writer)
            if text is None or position.acknowledged >= StreamPosition.from_text(text).acknowledged:
                redis.positions[writer] = position.to_text()

    def current(self, session: Session) -> Session:
        if session.closed and self.carrier is not None and self.carrier.session is not None:
            return self.carrier.session if self.carrier.session.position is session.position else session
        return session

    def on_delivered(self, batch: list[Receipt]) -> None:
        for session, sequence, _, route, _, size in batch:
            if route is None:
                session.kept(sequence)
            else:
                session.delivered(sequence, route.urgent, size)

    def on_failed(self, batch: list[Receipt], reason: str) -> None:
        for receipt in batch:
            current = self.current(receipt[0])
            if current is not receipt[0]:
                current.end_unavailable(0)
            receipt[0].failed()


class World:
    """Everything, and what became of each message: a number from 1 on that stands in its content."""

    def __init__(self, path: Path, *, latest: bool) -> None:
        self.now = 1000.0
        self.policy = BOB
        self.records: list[Record] = []
        self.redis = Stored()
        self.processes = [Process(self), Process(self)]
        self.wire: Wire | None = None
        self.is_latest = latest
        self._path = path
        # By content: its kind, whether the gateway takes it, and the outcomes that were told.
        self.kinds: dict[int, str] = {}
        self.is_good: dict[int, bool] = {}
        self.outcomes: dict[int, list[str]] = {}
        self.doubtful: set[int] = set()
        self.core = self._new_core()

    def _new_core(self) -> Core:
        journal = DiskJournal(self._path)
        journal.open_stream(STREAM, "protobuf")
        return Core(journal, FORMS["protobuf"], latest_ticks=self.is_latest)

    # --- The client --------------------------------------------------------------------------------------------------

    def offer(self, kind: str, fault: str) -> None:
        content = len(self.kinds) + 1
        symbol = "NOSUCH" if fault == "pair" else "EURUSD"
        account = "9999" if fault == "account" else "1001"
        self.kinds[content], self.is_good[content] = kind, not fault
        self.outcomes[content] = []
        if kind == "trading_signal":
            signal = own_pb2.TradingSignal(
                symbol=symbol, action=own_pb2.TRADE_ACTION_BUY, account=account, signal_id=str(content)
            )
            self.core.offer(kind, signal, self.now, 1)
        else:
            tick = own_pb2.Tick(symbol=symbol, bid=1.0, ask=1.1, time_msc=content)
            self.core.offer(kind, own_pb2.BatchTickData(ticks=[tick], account=account), self.now, 1)
        self.flow()

    def flow(self) -> None:
        """What the client's shell does."""
        core = self.core
        if self.wire is not None:
            self.wire.up.extend(core.frames)
        core.frames.clear()
        for entry, _ in core.settled:
            content = content_of(entry.frame)
            self.outcomes[content].append(entry.outcome)
            if entry.is_doubtful:
                self.doubtful.add(content)
        core.settled.clear()
        core.dropped.clear()
        if core.close_reason and self.wire is not None:
            self.drop(1000)

    def restart_client(self) -> None:
        """kill -9: what the journal's file has is all that is left."""
        self.drop(1006)
        self.core.journal.close()
        self.core = self._new_core()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.core.tick(self.now)
        self.flow()

    # --- The network -------------------------------------------------------------------------------------------------

    def connect(self, place: int) -> None:
        if self.wire is None:
            self.wire = Wire()
            self.processes[place].open(self.wire, self.core.journal.writer, self.core.heard)

    def drop(self, code: int) -> None:
        wire, self.wire = self.wire, None
        if wire is not None:
            if wire.session is not None:
                wire.session.lost()
            self.core.ended(code, self.now)
            self.core.frames.clear()

    def carry_up(self, count: int) -> None:
        wire = self.wire
        while wire is not None and wire.session is not None and wire.up and count and not wire.is_paused:
            count -= 1
            wire.session.receive(wire.up.popleft(), self.now, NOW_US)

    def carry_down(self, count: int) -> None:
        while self.wire is not None and count:
            count -= 1
            if not self.wire.down:
                if self.wire.close_code:
                    self.drop(self.wire.close_code)
                return
            answer = FORMS["protobuf"].read(self.wire.down.popleft())
            if isinstance(answer, control_pb2.Welcome):
                self.core.connected(answer, self.now)
            elif answer is not None:
                self.core.answer(answer, self.now)
            self.flow()

    # --- The gateway -------------------------------------------------------------------------------------------------

    def kill_process(self, place: int, recorded: int) -> None:
        process = self.processes[place]
        process.sink.record_unreported(recorded)
        if self.wire is not None and self.wire is process.carrier:
            self.drop(1006)
        self.processes[place] = Process(self)

    def fail_kafka(self, place: int, recorded: int) -> None:
        sink = self.processes[place].sink
        sink.record_unreported(recorded)
        sink.fail()

    def make_ill(self, is_ill: bool) -> None:
        for process in self.processes:
            process.sink.is_ill, process.sink.ill_topic = is_ill, _SIGNALS if is_ill else ""

    # --- The end -----------------------------------------------------------------------------------------------------

    def come_to_rest(self) -> None:
        """Everything works again: whatever is owed is settled in bounded time."""
        self.make_ill(False)
        for _ in range(3_000):
            if not len(self.core.journal):
                break
            self.connect(0)
            self.carry_up(1_000)
            for process in self.processes:
                process.sink.deliver()
            self.carry_down(1_000)
            self.pass_time(0.1)
        assert not len(self.core.journal), "something is owed for ever"
        for process in self.processes:
            process.sink.deliver()

    def check(self) -> None:
        """The promises that hold at any time."""
        recorded: dict[int, list[tuple[str, int]]] = {}
        under: dict[tuple[str, int], int] = {}
        first_seen: list[int] = []
        for record in self.records:
            envelope = envelope_pb2.MessageEnvelope.FromString(record.value)
            content = content_of(record.value)
            key = (envelope.stream_writer, envelope.sequence)
            assert under.setdefault(key, content) == content, f"{key} stands for two messages"
            if content not in recorded and self.kinds[content] == "trading_signal":
                first_seen.append(content)
            recorded.setdefault(content, []).append(key)
        assert first_seen == sorted(first_seen), f"signals out of order: {first_seen}"
        for content, told in self.outcomes.items():
            assert len(told) <= 1, f"message {content} was settled twice: {told}"
            if told == ["acknowledged"]:
                assert content in recorded, f"message {content} is counted as in Kafka and is not"
                if content not in self.doubtful:
                    assert len(set(recorded[content])) == 1, f"message {content} twice: {recorded[content]}"
            if told == ["refused"]:
                assert not self.is_good[content], f"message {content} was given up"
                assert content not in recorded
            if told == ["dropped"]:
                assert self.is_latest
                assert self.kinds[content] == "tick_data"
            assert told != ["unknown"]

    def check_rest(self) -> None:
        """The promises that hold once nothing is owed."""
        self.check()
        for content, told in self.outcomes.items():
            assert told, f"message {content} is lost"
            assert self.is_good[content] or told != ["acknowledged"], f"message {content}: {told}"


def content_of(frame: bytes) -> int:
    envelope = envelope_pb2.MessageEnvelope.FromString(frame)
    if envelope.message_type == "trading_signal":
        return int(payloads_pb2.TradingSignal.FromString(envelope.payload).signal_id)
    return payloads_pb2.BatchTickData.FromString(envelope.payload).ticks[0].time_msc
