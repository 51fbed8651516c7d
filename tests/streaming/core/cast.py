"""Recording twins of the ports, and a terminal to drive a session with."""

from typing import Any

from google.protobuf.message import Message

from proto.gateway.v1 import control_pb2, envelope_pb2, payloads_pb2
from streaming.core.breaker import Conduct
from streaming.core.codes import CloseCode
from streaming.core.context import SessionContext
from streaming.core.errors import RefreshRefused
from streaming.core.policy import ConnectionLimits, UserPolicy
from streaming.core.ports import Receipt
from streaming.core.replies import FORMS, PROTOBUF
from streaming.core.routing import build_routes
from streaming.core.session import Session
from streaming.core.stream import StreamPosition
from streaming.core.throttle import TokenBucket
from streaming.core.volume import Volume
from streaming.sinks.memory import MemorySink

ROUTES = {
    "tick_data": "tick-data",
    "user_event": "user-events",
    "trading_signal": "trading-signals",
    "notification": "notifications",
}
NOW_US = 1_700_000_000_000_000
# The end of the token "good".
GOOD_UNTIL_MS = NOW_US // 1000 + 3_600_000
BOB = UserPolicy(
    user_id="bob",
    company_id="alpha",
    tier="PRO",
    version=3,
    message_rate_limit=50.0,
    connection_limit=10,
    company_connection_limit=200,
    pair_limit=20,
    account_limit=10,
    active_pairs=frozenset({"EURUSD", "XAUUSD"}),
    accounts=frozenset({"1001"}),
    features=frozenset({"signals", "alerts"}),
    monthly_data_limit=50_000_000_000,
)
_CONTROL: dict[str, type[Message]] = {
    "gateway.welcome": control_pb2.Welcome,
    "gateway.ack": control_pb2.Ack,
    "gateway.nack": control_pb2.Nack,
    "gateway.notice": control_pb2.Notice,
    "gateway.policy": control_pb2.Policy,
    "gateway.disconnect": control_pb2.Disconnect,
    "gateway.pong": control_pb2.Pong,
}


class RecordingPeer:
    def __init__(self) -> None:
        self.sent: list[bytes | str] = []
        self.closed: tuple[CloseCode, str] | None = None
        self.is_paused = False

    def send(self, data: bytes | str) -> None:
        self.sent.append(data)

    def close(self, code: CloseCode, reason: str) -> None:
        self.closed = (code, reason)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False


class Terminal:
    """One connection of Bob's: sends frames into a session and reads what comes back."""

    def __init__(
        self,
        policy: UserPolicy = BOB,
        *,
        limits: ConnectionLimits | None = None,
        stream_id: str = "s1",
        position: StreamPosition | None = None,
        heard: int | None = None,
        form: str = PROTOBUF,
        in_flight_limit: int = 40_000,
        account: str = "",
        is_bound: bool = False,
    ) -> None:
        self.sink = MemorySink(self._delivered, self._failed, in_flight_limit=in_flight_limit)
        self.tokens: list[str] = []
        # The sessions that were found to be abusive, in order.
        self.abusers: list[Session] = []
        # Those whose client has begun its stream anew.
        self.restarted: list[Session] = []
        self.context = SessionContext(
            routes=build_routes(ROUTES),
            failed_topic="failed-messages",
            sink=self.sink,
            limits=limits or ConnectionLimits(),
            schedule_ack=self._schedule_ack,
            on_abuse=self.abusers.append,
            refresh=self._refresh,
            on_restart=self.restarted.append,
        )
        self.peer = RecordingPeer()
        self.bucket = TokenBucket(policy.message_rate_limit, policy.message_rate_limit, 0.0)
        self.conduct = Conduct(0.0)
        self.volume = Volume()
        self.session = Session(
            self.context,
            session_id="c0ffee",
            policy=policy,
            bucket=self.bucket,
            conduct=self.conduct,
            volume=self.volume,
            peer=self.peer,
            form=FORMS[form],
            stream_id=stream_id,
            position=position,
            heard=heard,
            account=account,
            is_bound=is_bound,
        )
        self.now = 0.0

    def send(self, message_type: str = "tick_data", payload: Message | bytes | None = None, **fields: Any) -> None:
        payload = ticks() if payload is None else payload
        data = payload if isinstance(payload, bytes) else payload.SerializeToString()
        self.frame(envelope_pb2.MessageEnvelope(message_type=message_type, payload=data, **fields).SerializeToString())

    def frame(self, data: bytes | str) -> None:
        self.session.receive(data, self.now, NOW_US)

    def heard(self, message_type: str) -> list[Any]:
        """The payloads of one type that were sent to the client, in order (protobuf form)."""
        found = []
        for data in self.peer.sent:
            assert isinstance(data, bytes)
            envelope = envelope_pb2.MessageEnvelope.FromString(data)
            if envelope.message_type == message_type:
                found.append(_CONTROL[message_type].FromString(envelope.payload))
        return found

    def nacks(self) -> list[tuple[int, str]]:
        return [(nack.sequence, nack.code) for nack in self.heard("gateway.nack")]

    def acks(self) -> list[int]:
        return [ack.sequence for ack in self.heard("gateway.ack")]

    def records(self, topic: str) -> list[envelope_pb2.MessageEnvelope]:
        parse = envelope_pb2.MessageEnvelope.FromString
        return [parse(record.value) for record in self.sink.records if record.topic == topic]

    def _delivered(self, batch: list[Receipt]) -> None:
        for receipt in batch:
            session, sequence, _, route, _, size = receipt
            if route is None:
                session.kept(sequence)
            else:
                session.delivered(sequence, route.urgent, size)

    def _failed(self, batch: list[Receipt], _reason: str) -> None:
        for receipt in batch:
            receipt[0].failed()

    def _schedule_ack(self, session: Session, _urgent: bool) -> None:
        session.flush_ack()

    def _refresh(self, session: Session, token: str) -> None:
        if token == "forged":
            raise RefreshRefused("this token is not valid", fatal=True)
        if token == "late":
            raise RefreshRefused("this token has expired", fatal=False)
        self.tokens.append(token)
        session.token_expires_at_ms = GOOD_UNTIL_MS


def ticks(*symbols: str, account: str = "1001", bid: float = 1.1) -> payloads_pb2.BatchTickData:
    batch = [payloads_pb2.Tick(symbol=s, bid=bid, ask=1.2, time_msc=1, volume=1) for s in symbols or ("EURUSD",)]
    return payloads_pb2.BatchTickData(ticks=batch, account=account)


def signal(symbol: str = "EURUSD", **fields: Any) -> payloads_pb2.TradingSignal:
    return payloads_pb2.TradingSignal(symbol=symbol, action=payloads_pb2.TRADE_ACTION_BUY, **fields)
