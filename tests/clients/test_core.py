"""What a client does upon each answer: the nack's action decides, not its code."""

from collections import deque
from collections.abc import Iterable

import pytest

from streaming.core.breaker import Conduct
from streaming.core.context import SessionContext
from streaming.core.policy import ConnectionLimits
from streaming.core.ports import Receipt
from streaming.core.replies import FORMS as GATEWAY_FORMS
from streaming.core.replies import PROTOBUF
from streaming.core.routing import build_routes
from streaming.core.session import Session
from streaming.core.stream import StreamPosition
from streaming.core.throttle import TokenBucket
from streaming.core.volume import Volume
from streaming.sinks.memory import MemorySink
from tests.clients.model_world import Wire, content_of
from tests.streaming.core.cast import BOB, NOW_US, ROUTES
from trading_gateway_client.core import Core
from trading_gateway_client.forms import FORMS
from trading_gateway_client.holds import FINAL, REOFFER, RESEND
from trading_gateway_client.journal import Entry, Journal
from trading_gateway_client.pb import control_pb2, envelope_pb2, payloads_pb2

CODES = ["rate_limited", "quota_exceeded", "backend_unavailable", "malformed", "a_code_of_tomorrow"]


class Client:
    """A core whose clock and gateway are the test's."""

    def __init__(self, *, form: str = "protobuf", window: int = 100, rate: float = 10_000.0, **options: bool) -> None:
        self.journal = Journal()
        self.journal.open_stream("ea-1", form)
        self.form = FORMS[form]
        self.core = Core(self.journal, self.form, **options)
        self.window, self.rate = window, rate
        self.now = 1000.0
        self.settled: list[Entry] = []

    def connect(self, acknowledged: int | None = None, *refusals: control_pb2.Refusal) -> "Client":
        welcome = control_pb2.Welcome(
            policy=control_pb2.Policy(message_rate_limit=self.rate, in_flight_limit=self.window),
            position_known=acknowledged is not None,
            last_acknowledged_sequence=acknowledged or 0,
            refusals=refusals,
        )
        self.core.connected(welcome, self.now)
        return self

    def offer(self, kinds: str, *symbols: str) -> None:
        """s: a signal, t: ticks of the symbols."""
        for kind in kinds:
            if kind == "s":
                signal = payloads_pb2.TradingSignal(symbol="EURUSD", action=payloads_pb2.TRADE_ACTION_BUY)
                self.core.offer("trading_signal", signal, self.now, 1)
            else:
                ticks = [payloads_pb2.Tick(symbol=symbol, bid=1.0, ask=1.1) for symbol in symbols or ("EURUSD",)]
                self.core.offer("tick_data", payloads_pb2.BatchTickData(ticks=ticks), self.now, 1)

    def sent(self) -> list[tuple[str, int]]:
        """Letters and sequences that went out since the last call; p: a ping with what it says was heard."""
        frames, self.core.frames = self.core.frames, []
        found = []
        for envelope in map(envelope_pb2.MessageEnvelope.FromString, frames):
            if envelope.message_type == "gateway.ping":
                found.append(("p", control_pb2.Ping.FromString(envelope.payload).heard_sequence))
            else:
                found.append(({"tick_data": "t", "trading_signal": "s"}[envelope.message_type], envelope.sequence))
        return found

    def nack(self, sequence: int, code: str, action: int, retry_after_ms: int = 0) -> None:
        nack = control_pb2.Nack(sequence=sequence, code=code, retry_after_ms=retry_after_ms)
        nack.action = action  # type: ignore[assignment]  # an int by its number
        self.core.answer(nack, self.now)

    def ack(self, sequence: int) -> None:
        self.core.answer(control_pb2.Ack(sequence=sequence), self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.core.tick(self.now)

    def outcomes(self) -> list[tuple[int, str]]:
        """Numbers and outcomes of everything that was settled."""
        self.settled += [entry for entry, _ in self.core.settled]
        self.core.settled.clear()
        return [(entry.number, entry.outcome) for entry in self.settled]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(("action", "outcome"), [(FINAL, "refused"), (REOFFER, ""), (RESEND, "")])
def test_action_decides_whatever_the_code_says(code: str, action: int, outcome: str) -> None:
    client = Client().connect()
    client.offer("ss")
    client.sent()
    client.nack(1, code, action)
    if action == RESEND:
        client.wait(0.2)
        assert client.core.close_reason, "it is sent again from the front of another connection"
        client.core.ended(1000, client.now)
        client.connect(0)
        assert client.sent() == [("s", 1), ("s", 2)]
        return
    client.ack(2)
    if outcome:
        assert client.outcomes() == [(1, outcome), (2, "acknowledged")]
        assert client.settled[0].refusal == code
    else:
        assert client.outcomes() == [(2, "acknowledged")]
        client.wait(0.2)
        assert client.sent() == [("p", 2), ("s", 3)]
        client.ack(3)
        assert client.outcomes() == [(2, "acknowledged"), (1, "acknowledged")], "once, over all its offers"
        assert client.core.outcomes.reoffered == 1


def test_refused_signals_are_offered_anew_in_their_order_and_before_later_ones() -> None:
    client = Client(window=6).connect()
    client.offer("ststss")
    client.offer("sts")
    client.sent()
    for sequence in (3, 5, 6):
        client.nack(sequence, "rate_limited", REOFFER, 400)
    client.ack(6)
    assert client.sent() == [], "the rate is everybody's"
    client.wait(0.39)
    assert client.sent() == []
    client.wait(0.02)
    client.wait(0.5)
    sent = client.sent()
    assert sent[0] == ("p", 6), "what was refused is heard"
    assert [kind for kind, _ in sent[1:]] == ["s", "s", "s", "s", "t", "s"]
    assert [entry.number for entry in client.journal.owed] == [3, 5, 6, 7, 8, 9]
    assert [entry.sequence for entry in client.journal.owed] == [7, 8, 9, 10, 11, 12]


def test_gateway_is_not_told_that_a_refusal_was_heard_before_those_behind_it_are_answered() -> None:
    client = Client().connect()
    client.offer("sss")
    client.nack(2, "rate_limited", REOFFER, 100)
    client.ack(2)
    assert (client.core.heard, client.outcomes()) == (1, [(1, "acknowledged")])
    client.wait(5.0)
    assert ("p", 2) not in client.sent()
    client.nack(3, "rate_limited", REOFFER, 100)
    assert client.core.heard == 3
    client.wait(5.0)
    assert client.sent() == [("p", 3), ("s", 4), ("s", 5)]


def test_connection_that_breaks_in_between_keeps_the_order() -> None:
    client = Client().connect()
    client.offer("sss")
    client.nack(1, "rate_limited", REOFFER, 100)
    client.core.ended(1006, client.now)
    client.sent()
    assert client.core.heard == 0
    client.connect(1, control_pb2.Refusal(first=1, last=1, code="rate_limited", action=REOFFER))
    client.wait(0.2)
    assert client.sent() == [("s", 2), ("s", 3)]
    client.nack(2, "rate_limited", REOFFER, 100)
    client.nack(3, "rate_limited", REOFFER, 100)
    client.wait(2.0)
    assert client.sent() == [("p", 3), ("s", 4), ("s", 5), ("s", 6)]
    assert [entry.number for entry in client.journal.owed] == [1, 2, 3]


def test_topic_that_takes_no_signals_keeps_back_no_ticks() -> None:
    client = Client().connect()
    client.offer("st")
    client.sent()
    client.nack(1, "backend_unavailable", REOFFER, 2_000)
    client.ack(2)
    client.offer("tst")
    assert client.sent() == [("t", 3), ("t", 4)]
    client.wait(2.1)
    assert client.sent() == [("p", 2), ("s", 5), ("s", 6)]


def test_rounds_without_success_come_ever_more_rarely() -> None:
    client = Client().connect()
    client.offer("s")
    waits, began = [], client.now
    for sequence in range(1, 12):
        client.nack(sequence, "backend_unavailable", REOFFER)
        client.sent()
        while not any(kind == "s" for kind, _ in client.sent()):
            client.wait(max(0.0, client.core.next_at - client.now))
        waits.append(round(client.now - began, 3))
        began = client.now
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0, 10.0]


def test_load_tool_counts_what_is_refused_and_holds_nothing_back() -> None:
    client = Client(reoffer=False).connect()
    assert client.core.heard is None
    client.offer("ss")
    client.nack(1, "rate_limited", REOFFER, 1_000)
    client.ack(2)
    client.offer("s")
    assert client.sent() == [("s", 1), ("s", 2), ("s", 3)]
    assert client.outcomes() == [(1, "refused"), (2, "acknowledged")]
    assert client.core.outcomes.refused == 1


@pytest.mark.parametrize("form", ["protobuf", "json"])
def test_newest_tick_of_each_symbol_stands_for_the_older_ones(form: str) -> None:
    client = Client(latest_ticks=True, form=form).connect()
    client.offer("t", "EURUSD", "GBPUSD", "GBPUSD")
    client.offer("t", "EURUSD")
    client.offer("t", "XAUUSD")
    client.offer("t", "XAUUSD")
    client.core.frames.clear()
    for sequence in (1, 2, 3):
        client.nack(sequence, "rate_limited", REOFFER, 100)
    client.ack(4)
    assert client.outcomes() == [(3, "dropped"), (4, "acknowledged")], "a newer tick of its only symbol went out"
    dropped = [(entry.number, [tick.symbol for tick in older]) for entry, older in client.core.dropped]
    assert dropped == [(1, ["EURUSD", "GBPUSD"]), (3, ["XAUUSD"])]
    client.wait(1.0)
    again = [client.form.ticks_of(frame) for frame in client.core.frames]
    assert [[tick.symbol for tick in batch.ticks] for batch in again] == [["GBPUSD"], ["EURUSD"]]
    client.ack(6)
    outcomes = client.core.outcomes
    assert (outcomes.sent, outcomes.acknowledged, outcomes.dropped, outcomes.unanswered) == (4, 3, 1, 0)


@pytest.mark.parametrize("form", ["protobuf", "json"])
def test_message_that_is_offered_anew_differs_in_its_sequence_alone(form: str) -> None:
    client = Client(form=form).connect()
    client.offer("st")
    first = list(client.core.frames)
    client.core.frames.clear()
    client.nack(1, "rate_limited", REOFFER)
    client.nack(2, "rate_limited", REOFFER)
    client.wait(1.0)
    again = [frame for frame in client.core.frames if b"gateway.ping" not in frame]
    assert [client.form.reframed(frame, sequence) for sequence, frame in enumerate(again, start=1)] == first


class Bridges:
    """Clients of one user, each with a stream of its own, on one gateway process that holds them to one rate."""

    def __init__(self, backlogs: Iterable[int], rate: float) -> None:
        self.now = 1000.0
        self.bucket = TokenBucket(rate, rate, self.now)
        self.sink = MemorySink(self._delivered, lambda batch, reason: None)
        self.context = SessionContext(
            routes=build_routes(ROUTES),
            failed_topic="failed-messages",
            sink=self.sink,
            limits=ConnectionLimits(),
            schedule_ack=lambda session, urgent: session.flush_ack(),
            on_abuse=lambda session: None,
            refresh=lambda session, token: None,
        )
        self.ends: dict[int, float] = {}
        self.cores: list[Core] = []
        self.wires: list[Wire] = []
        for place, count in enumerate(backlogs):
            journal = Journal()
            journal.open_stream(f"ea-{place}", "protobuf")
            core = Core(journal, FORMS["protobuf"])
            for number in range(1, count + 1):
                signal = payloads_pb2.TradingSignal(
                    symbol="EURUSD", action=payloads_pb2.TRADE_ACTION_BUY, signal_id=str(number), account="1001"
                )
                core.offer("trading_signal", signal, self.now, 1)
            wire = Wire()
            wire.session = Session(
                self.context, session_id=f"c{place}", policy=BOB, bucket=self.bucket, conduct=Conduct(0.0),
                volume=Volume(), peer=wire, form=GATEWAY_FORMS[PROTOBUF], stream_id=f"ea-{place}",
                position=StreamPosition(writer=journal.writer), heard=0,
            )  # fmt: skip
            policy = control_pb2.Policy(message_rate_limit=rate, in_flight_limit=256)
            core.connected(control_pb2.Welcome(policy=policy), self.now)
            self.cores.append(core)
            self.wires.append(wire)

    def run(self, seconds: float, delay: float = 0.03) -> None:
        """Until all are done; ``delay``: seconds of each way."""
        up: deque[tuple[float, int, bytes]] = deque()
        down: deque[tuple[float, int, bytes]] = deque()
        end = self.now + seconds
        while self.now < end and len(self.ends) < len(self.cores):
            self.now += 0.005
            while up and up[0][0] <= self.now:
                _, place, frame = up.popleft()
                session = self.wires[place].session
                assert session is not None
                session.receive(frame, self.now, NOW_US)
            self.sink.deliver()
            for place, core in enumerate(self.cores):
                down.extend((self.now + delay, place, frame) for frame in self.wires[place].down)
                self.wires[place].down.clear()
                core.tick(self.now)
                up.extend((self.now + delay, place, frame) for frame in core.frames)
                core.frames.clear()
                if not len(core.journal):
                    self.ends.setdefault(place, self.now - 1000.0)
            while down and down[0][0] <= self.now:
                _, place, frame = down.popleft()
                answer = FORMS["protobuf"].read(frame)
                assert answer is not None
                self.cores[place].answer(answer, self.now)

    def _delivered(self, batch: list[Receipt]) -> None:
        for session, sequence, _, _, _, size in batch:
            session.delivered(sequence, True, size)


@pytest.mark.parametrize("backlogs", [(600, 600), (600, 300, 300), (1200,), (1000, 20)])
def test_bridges_of_one_user_with_backlogs_all_come_to_their_end(backlogs: tuple[int, ...]) -> None:
    bridges = Bridges(backlogs, rate=50.0)
    total = sum(backlogs)
    bridges.run(seconds=2.0 * total / 50.0)
    assert len(bridges.ends) == len(backlogs), f"after {bridges.ends}"
    assert [core.outcomes.acknowledged for core in bridges.cores] == list(backlogs)
    assert sum(core.outcomes.refused for core in bridges.cores) == 0
    refusals = sum(core.outcomes.refusals.total() for core in bridges.cores)
    assert refusals < total / 2, "the rate is learnt, not found out with each message"
    for place in range(len(backlogs)):
        own = [record for record in bridges.sink.records if f"ea-{place}".encode() in record.value]
        assert [content_of(record.value) for record in own] == list(range(1, backlogs[place] + 1))
