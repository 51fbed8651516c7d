"""A process without sockets: the real runtime on a sink in memory, with twins of the tenants room and of the wire."""

import asyncio
import time
import time as clock
from collections.abc import Collection, Mapping
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
from streaming.cluster.cache import AccessCache
from streaming.cluster.link import Link, new_process_id
from streaming.consumers import TerminalConsumer
from streaming.core.codes import CloseCode
from streaming.core.policy import ConnectionLimits
from streaming.core.routing import build_routes
from streaming.fleet import Fleet, FleetSettings
from streaming.limits import RuntimeLimits
from streaming.positions import PositionStore
from streaming.registry import Connection, Registry
from streaming.runtime import ManagedSink, Runtime
from streaming.sinks.memory import MemorySink
from tenants import access as tenants_access
from tenants.access import Actor, NotVisible, SourceBan, TerminalAccess, ban_source, earned_by
from tenants.tokens import Keyring
from tests.streaming.core.cast import ROUTES, RecordingPeer, ticks
from tests.tenants.cast import secret_item
from usage import recording
from usage.recording import Amount

KEYRING = Keyring.from_setting(secret_item("one"))
ORIGIN = "https://terminal.example"
BOB = TerminalAccess(
    user_id="bob",
    username="bob",
    company_id="alpha",
    tier="PRO",
    access_version=3,
    refusal="",
    access_until=float("inf"),
    message_rate_limit=50.0,
    connection_limit=2,
    company_connection_limit=200,
    pair_limit=20,
    account_limit=10,
    monthly_data_limit=50_000_000_000,
    refuses_over_quota=True,
    active_pairs=frozenset({"EURUSD", "XAUUSD"}),
    accounts=frozenset({"1001"}),
    features=frozenset({"signals", "alerts"}),
    api_keys={},
)
ALICE = replace(BOB, user_id="alice", username="alice")
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


def token_of(
    user_id: str = "bob",
    company_id: str = "alpha",
    *,
    ttl: float = 86_400,
    now: float | None = None,
    api_key: str = "",
    account: str = "",
) -> str:
    """Good for a day: parameters of tests are made when they are collected, and a whole run may come between."""
    now = time.time() if now is None else now
    return KEYRING.issue(
        user_id=user_id, company_id=company_id, tier="PRO", ttl=ttl, now=now, api_key=api_key, account=account
    )


class Tenants:
    """The twin of the database: the rows of the tenants room and of the usage room, in memory."""

    def __init__(self) -> None:
        self.users: dict[str, TerminalAccess] = {"bob": BOB, "alice": ALICE}
        self.revoked: list[tuple[int, str, float]] = []
        self.kicked: list[tuple[int, str, str, float]] = []
        # (user id, reason, starts_at, until, repeat)
        self.bans: list[tuple[str, str, float, float, int]] = []
        # Of each: account, id of the key, session id, whether it is for the whole user.
        self.blamed: list[tuple[str, str, str, bool]] = []
        # Company id -> bytes of this month, and the percent that somebody was told of.
        self.used: dict[str, int] = {}
        self.noticed: dict[str, int] = {}
        # The users that were asked for, in order, and all questions.
        self.visits: list[str] = []
        self.questions = 0
        self.is_down = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("terminal_access", "terminal_accesses", "access_versions", "revoked_tokens", "kicks", "ban"):
            monkeypatch.setattr(tenants_access, name, getattr(self, "_ban" if name == "ban" else name))
        for name in ("add", "notice"):
            monkeypatch.setattr(recording, name, getattr(self, name))

    # --- What the tests do -------------------------------------------------------------------------------------------

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

    def kick(self, user_id: str, session_id: str = "") -> tuple[int, str, str, float]:
        """The row that was written."""
        self.kicked.append((len(self.kicked) + 1, session_id, user_id, time.time()))
        return self.kicked[-1]

    # --- What the stream asks ----------------------------------------------------------------------------------------

    def terminal_access(self, user_id: str) -> TerminalAccess | None:
        return self.terminal_accesses([user_id]).get(user_id)

    def terminal_accesses(self, user_ids: Collection[str]) -> dict[str, TerminalAccess]:
        self.visits += user_ids
        self._check()
        return {user_id: self.users[user_id] for user_id in user_ids if user_id in self.users}

    def access_versions(self, company_ids: Collection[str]) -> dict[str, int]:
        self._check()
        return {a.company_id: a.access_version for a in self.users.values() if a.company_id in company_ids}

    def revoked_tokens(self, after_id: int) -> list[tuple[int, str, float]]:
        """The last ones come again, as from the real room."""
        self._check()
        return [row for row in self.revoked if row[0] > after_id - 200]

    def kicks(self, after_id: int) -> list[tuple[int, str, str, float]]:
        self._check()
        return [row for row in self.kicked if row[0] > after_id - 200]

    def _ban(
        self,
        _actor: Actor,
        user_id: str,
        reason: str,
        *,
        starts_at: float,
        until: float,
        repeat: int,
        account: str,
        api_key: str,
        session_id: str,
        is_for_all: bool,
    ) -> None:
        self._check()
        if user_id not in self.users:
            raise NotVisible("there is no such user")
        self.bans.append((user_id, reason, starts_at, until, repeat))
        self.blamed.append((account, api_key, session_id, is_for_all))
        user = self.users[user_id]
        if is_for_all:
            standing: dict[str, Any] = {"banned_until": max(until, user.banned_until), "ban_reason": reason}
        else:
            row = SourceBan(ban_source(account, api_key), reason, until, earned_by(account, api_key, session_id))
            standing = {"source_bans": (*user.source_bans, row)}
        self.change(user_id, bans=user.bans + 1, **standing)

    def add(self, amounts: Mapping[str, Amount]) -> dict[str, int]:
        self._check()
        for company_id, amount in amounts.items():
            self.used[company_id] = self.used.get(company_id, 0) + amount.size
        return {company_id: self.used[company_id] for company_id in amounts}

    def notice(self, company_id: str, percent: int, _used: int, _limit: int) -> bool:
        self._check()
        before = self.noticed.get(company_id, 0)
        self.noticed[company_id] = max(before, percent)
        return percent > before

    def _check(self) -> None:
        self.questions += 1
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
    process_id: str = ""
    # librdkafka's settings of a client, and the topic where changes of companies are told; empty: no Kafka.
    kafka: Mapping[str, Any] = field(default_factory=dict)
    subscription_topic: str = ""
    fleet: Fleet = field(init=False)
    runtime: Runtime = field(init=False)
    sink: ShellSink = field(init=False)

    def __post_init__(self) -> None:
        registry = Registry(self.user_rate_limit)
        link = Link(self.redis_url, self.process_id or new_process_id())
        shared = AccessCache(link, self.access_ttl) if self.redis_url else None
        directory = AccessDirectory(ttl=self.access_ttl, poll_interval=60.0, shared=shared)
        directory.is_loaded = True
        settings = FleetSettings(
            redis_url=self.redis_url, kafka=self.kafka, subscription_topic=self.subscription_topic, usage_interval=60.0
        )
        self.fleet = Fleet(link, registry, directory, settings)
        desk = AdmissionDesk(
            keyring=KEYRING,
            directory=directory,
            registry=registry,
            fleet=self.fleet,
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
            fleet=self.fleet,
            desk=desk,
        )
        runtime = self.runtime
        self.sink = ShellSink(runtime.on_delivered, runtime.on_failed, runtime.on_room, runtime.on_refused)
        # The protocol's attribute is a property of the twin.
        self.runtime.attach_sink(cast("ManagedSink", self.sink))

    async def poll(self) -> None:
        """One round of the poll that brings changes of access."""
        await self.fleet.directory.poll(self.fleet.cutoff)

    async def follow(self) -> None:
        """What the news that has come means to the connections; fails when none has come."""
        async with asyncio.timeout(5.0):
            await self.fleet.directory.follow(self.fleet.cutoff)

    async def connect(self, token: str = "", *, query: str = "stream=s1", **scope: Any) -> "Live":
        """A terminal of Bob's that is let in; raises AdmissionRefused otherwise."""
        handshake = Handshake.from_scope(upgrade(token or token_of(), query=query, **scope))
        self.runtime.check_open()
        admission = await self.runtime.desk.admit(handshake)
        claim = await self.runtime.claim(admission)
        peer = ShellPeer()
        return Live(self, peer, self.runtime.open(admission, peer, claim))

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
        # It goes on where the machine's own stands: a bucket must not see time run backwards.
        self._began = clock.monotonic()
        for module in modules:
            monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return self._began + self.elapsed

    def time(self) -> float:
        return 1_800_000_000.0 + self.elapsed

    def time_ns(self) -> int:
        return int(self.time() * 1e9)


async def turns(count: int = 5) -> None:
    """Lets everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)
