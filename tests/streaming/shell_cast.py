"""A process without sockets: the real runtime on a sink in memory, with twins of the tenants room and of the wire."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, cast

import msgspec
import pytest
from django.db import OperationalError
from google.protobuf.message import Message

from proto.gateway.v1 import control_pb2, envelope_pb2
from streaming.access import AccessDirectory
from streaming.admission import AdmissionDesk, Handshake
from streaming.consumers import TerminalConsumer
from streaming.core.codes import CloseCode
from streaming.core.policy import ConnectionLimits
from streaming.core.routing import build_routes
from streaming.limits import RuntimeLimits
from streaming.positions import PositionStore
from streaming.registry import Connection, Registry
from streaming.runtime import ManagedSink, Runtime
from streaming.sinks.memory import MemorySink
from tenants import access as tenants_access
from tenants.access import TerminalAccess
from tenants.tokens import Keyring
from tests.streaming.core.cast import ROUTES, RecordingPeer, ticks
from tests.tenants.cast import secret_item

KEYRING = Keyring.from_setting(secret_item("one"))
ORIGIN = "https://terminal.example"
BOB = TerminalAccess(
    user_id="bob",
    company_id="alpha",
    tier="PRO",
    access_version=3,
    refusal="",
    access_until=float("inf"),
    message_rate_limit=50.0,
    connection_limit=2,
    pair_limit=20,
    account_limit=10,
    active_pairs=frozenset({"EURUSD", "XAUUSD"}),
    accounts=frozenset({"1001"}),
    features=frozenset({"signals", "alerts"}),
)
ALICE = replace(BOB, user_id="alice")
LIMITS = RuntimeLimits(
    ack_interval=0.01,
    token_grace=25.0,
    ping_interval=20.0,
    pong_timeout=10.0,
    outbound_timeout=10.0,
    outbound_max_size=65_536,
    drain_timeout=0.1,
    drain_spread=0.0,
)
Event = dict[str, Any]


def token_of(user_id: str = "bob", company_id: str = "alpha", *, ttl: float = 600, now: float | None = None) -> str:
    now = time.time() if now is None else now
    return KEYRING.issue(user_id=user_id, company_id=company_id, tier="PRO", ttl=ttl, now=now)


class Tenants:
    """The twin of the tenants room: rows in memory, and how often each user was asked for."""

    def __init__(self) -> None:
        self.users: dict[str, TerminalAccess] = {"bob": BOB, "alice": ALICE}
        self.revoked: list[tuple[int, str, float]] = []
        self.visits: list[str] = []
        self.is_down = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("terminal_access", "access_versions", "revoked_tokens"):
            monkeypatch.setattr(tenants_access, name, getattr(self, name))

    def change(self, user_id: str, **fields: Any) -> None:
        """A write there: the company's version rises for all its users."""
        changed = replace(self.users[user_id], **fields)
        version = max(access.access_version for access in self.users.values()) + 1
        self.users[user_id] = changed
        for name, access in self.users.items():
            if access.company_id == changed.company_id:
                self.users[name] = replace(access, access_version=version)

    def revoke(self, jti: str, expires_in: float = 600) -> None:
        self.revoked.append((len(self.revoked) + 1, jti, time.time() + expires_in))

    def terminal_access(self, user_id: str) -> TerminalAccess | None:
        self.visits.append(user_id)
        self._check()
        return self.users.get(user_id)

    def access_versions(self, company_ids: Collection[str]) -> dict[str, int]:
        self._check()
        return {a.company_id: a.access_version for a in self.users.values() if a.company_id in company_ids}

    def revoked_tokens(self, after_id: int) -> list[tuple[int, str, float]]:
        """The last ones come again, as from the real room."""
        self._check()
        return [row for row in self.revoked if row[0] > after_id - 200]

    def _check(self) -> None:
        if self.is_down:
            raise OperationalError("the database is away")


class ShellPeer(RecordingPeer):
    """A peer of which the test says whether it still answers."""

    def __init__(self) -> None:
        super().__init__()
        self.verdict: CloseCode | None = None
        self.is_aborted = False

    def check(self, _ping_interval: float, _pong_timeout: float, _outbound_timeout: float) -> CloseCode | None:
        return self.verdict

    def abort(self) -> None:
        self.is_aborted = True


class ShellSink(MemorySink):
    def start(self) -> None: ...

    async def close(self, timeout: float) -> None: ...


@dataclass
class Process:
    """One gateway process of the tests; ``sink`` and ``tenants`` are in the hands of the test."""

    tenants: Tenants
    redis_url: str = ""
    limits: RuntimeLimits = LIMITS
    connection_limit: int = 100
    address_rate_limit: float = 100.0
    user_rate_limit: float = 100.0
    access_ttl: float = 60.0
    in_flight_limit: int = 256
    runtime: Runtime = field(init=False)
    sink: ShellSink = field(init=False)

    def __post_init__(self) -> None:
        registry = Registry(self.user_rate_limit)
        directory = AccessDirectory(ttl=self.access_ttl, poll_interval=60.0)
        directory.is_loaded = True
        desk = AdmissionDesk(
            keyring=KEYRING,
            directory=directory,
            registry=registry,
            allowed_origins=frozenset({ORIGIN}),
            address_rate_limit=self.address_rate_limit,
            connection_limit=self.connection_limit,
        )
        self.runtime = Runtime(
            routes=build_routes(ROUTES),
            failed_topic="failed-messages",
            limits=self.limits,
            connection_limits=ConnectionLimits(in_flight_limit=self.in_flight_limit),
            registry=registry,
            positions=PositionStore(self.redis_url, registry, interval=60.0, ttl=600.0),
            directory=directory,
            desk=desk,
        )
        self.sink = ShellSink(self.runtime.on_delivered, self.runtime.on_failed, self.runtime.on_room)
        # The protocol's attribute is a property of the twin.
        self.runtime.attach_sink(cast("ManagedSink", self.sink))

    async def connect(self, token: str = "", *, query: str = "stream=s1", **scope: Any) -> "Live":
        """A terminal of Bob's that is let in; raises AdmissionRefused otherwise."""
        handshake = Handshake.from_scope(upgrade(token or token_of(), query=query, **scope))
        self.runtime.check_open()
        admission = await self.runtime.desk.admit(handshake)
        acknowledged = await self.runtime.positions.look_up((admission.policy.user_id, admission.stream_id))
        peer = ShellPeer()
        return Live(self, peer, self.runtime.open(admission, peer, acknowledged))

    async def ask(self, scope: Event, *, fails_at: str = "") -> "Answer":
        """What a client gets from the whole consumer; ``fails_at``: the event whose sending breaks."""
        answer = Answer()
        waiting: list[Event] = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001}]

        async def receive() -> Event:
            return waiting.pop(0)

        async def send(event: Event) -> None:
            if event["type"] == fails_at:
                raise ConnectionResetError
            answer.events.append(event)

        await TerminalConsumer(runtime=lambda: self.runtime)(scope, receive, send)
        return answer


@dataclass
class Answer:
    """The events that came back from one handshake."""

    events: list[Event] = field(default_factory=list)

    @property
    def is_accepted(self) -> bool:
        return bool(self.events) and self.events[0]["type"] == "websocket.accept"

    @property
    def status(self) -> int:
        return int(self.events[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.events[0]["headers"]}

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = msgspec.json.decode(self.events[1]["body"])
        return body


@dataclass(eq=False)
class Live:
    """One open connection."""

    process: Process
    peer: ShellPeer
    connection: Connection

    def send(self, message_type: str = "tick_data", payload: Message | None = None, **fields: Any) -> None:
        data = (ticks() if payload is None else payload).SerializeToString()
        envelope = envelope_pb2.MessageEnvelope(message_type=message_type, payload=data, **fields)
        self.connection.session.receive(envelope.SerializeToString(), time.monotonic(), time.time_ns() // 1000)

    def heard(self, name: str) -> list[Any]:
        """The control messages of one name, such as ``Ack``, in order."""
        envelopes = [envelope_pb2.MessageEnvelope.FromString(cast("bytes", data)) for data in self.peer.sent]
        parse = getattr(control_pb2, name).FromString
        return [parse(e.payload) for e in envelopes if e.message_type == f"gateway.{name.lower()}"]

    def acks(self) -> list[int]:
        return [ack.sequence for ack in self.heard("Ack")]

    @property
    def close_code(self) -> int:
        """0 while it is open."""
        return 0 if self.peer.closed is None else int(self.peer.closed[0])

    def leave(self, code: int = 1000) -> None:
        """The connection is gone."""
        self.process.runtime.close(self.connection, code)


def upgrade(
    token: str = "",
    *,
    query: str = "",
    origin: str = "",
    subprotocols: Collection[str] = (),
    address: str = "192.0.2.1",
    headers: Collection[tuple[bytes, bytes]] = (),
) -> Event:
    """The scope of an upgrade request."""
    all_headers = list(headers)
    if token:
        all_headers.append((b"authorization", f"Bearer {token}".encode()))
    if origin:
        all_headers.append((b"origin", origin.encode()))
    return {
        "type": "websocket",
        "path": "/ws/mt5",
        "query_string": query.encode(),
        "headers": all_headers,
        "subprotocols": list(subprotocols),
        "client": (address, 50_000),
        "extensions": {"websocket.http.response": {}},
    }


class Clock:
    """Stands in for ``time`` in the modules it is installed in; moves when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
        self.elapsed = 0.0
        for module in modules:
            monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return 10_000.0 + self.elapsed

    def time(self) -> float:
        return 1_800_000_000.0 + self.elapsed


async def turns(count: int = 5) -> None:
    """Lets everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)
