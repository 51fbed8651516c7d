"""A connection gets its pings, and a new token before the old one has run out."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import cast

import pytest

from proto.gateway.v1 import control_pb2, envelope_pb2
from tests.clients.conftest import MakeClient
from tests.clients.scripted_gateway import OwnTime, ScriptedGateway, until
from trading_gateway_client import TokenUnavailable
from trading_gateway_client.connection import Connection
from trading_gateway_client.forms import FORMS
from trading_gateway_client.keeper import keep
from trading_gateway_client.pb import control_pb2 as own_pb2

# The gateway's clock is decades behind the client's own.
GATEWAY_NOW_MS = 1_000_000


@dataclass
class TwinConnection:
    """Notes what is sent and when, and is open until ``open_until``."""

    clock: OwnTime
    open_until: float
    heard_at: float
    answers: bool = True
    sent: list[tuple[float, str, bytes]] = field(default_factory=list)
    closed: list[tuple[int, str]] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        return not self.closed and self.clock.now < self.open_until

    def send(self, frame: bytes) -> None:
        envelope = envelope_pb2.MessageEnvelope.FromString(frame)
        self.sent.append((self.clock.now, envelope.message_type, envelope.payload))
        if self.answers:
            self.heard_at = self.clock.now

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))

    def times_of(self, message_type: str) -> list[float]:
        return [when for when, kind, _ in self.sent if kind == message_type]


class Tokens:
    """A token source: numbered tokens, after the failures it is given."""

    def __init__(self, clock: OwnTime, *failures: Exception) -> None:
        self.asked: list[float] = []
        self._clock = clock
        self._failures = list(failures)

    async def __call__(self) -> str:
        self.asked.append(self._clock.now)
        if self._failures:
            raise self._failures.pop(0)
        return f"token-{len(self.asked)}"


async def run(
    clock: OwnTime, tokens: Tokens, *, seconds: float, lifetime: float, answers: bool = True
) -> TwinConnection:
    """Keeps a connection for ``seconds`` whose token lasts ``lifetime`` seconds."""
    connection = TwinConnection(clock, clock.now + seconds, clock.now, answers)
    welcome = own_pb2.Welcome(server_time_ms=GATEWAY_NOW_MS, token_expires_at_ms=GATEWAY_NOW_MS + int(lifetime * 1000))
    await keep(cast(Connection, connection), FORMS["protobuf"], tokens, welcome)
    return connection


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> OwnTime:
    return OwnTime(monkeypatch)


@pytest.mark.parametrize("lifetime", [20.0, 100.0, 3600.0])
async def test_client_refreshes_its_token_before_each_expiry(clock: OwnTime, lifetime: float) -> None:
    tokens = Tokens(clock)
    began = clock.now
    connection = await run(clock, tokens, seconds=3.5 * lifetime, lifetime=lifetime)
    refreshes = connection.times_of("gateway.refresh")
    assert len(refreshes) >= 3
    for earlier, later in zip([began, *refreshes], refreshes, strict=False):
        assert 0.5 * lifetime < later - earlier < lifetime
    told = [own_pb2.Refresh.FromString(payload).token for _, kind, payload in connection.sent if "refresh" in kind]
    assert told == [f"token-{number}" for number in range(1, len(told) + 1)]


async def test_client_pings_at_once_and_then_every_fifteen_seconds(clock: OwnTime) -> None:
    began = clock.now
    connection = await run(clock, Tokens(clock), seconds=50.0, lifetime=3600.0)
    assert [when - began for when in connection.times_of("gateway.ping")] == [0.0, 15.0, 30.0, 45.0]
    assert connection.closed == []


async def test_client_gives_up_a_gateway_that_is_silent(clock: OwnTime) -> None:
    began = clock.now
    connection = await run(clock, Tokens(clock), seconds=600.0, lifetime=3600.0, answers=False)
    assert connection.closed == [(1001, "no answer any more")]
    assert 60.0 < clock.now - began <= 75.0


async def test_client_asks_again_when_a_new_token_cannot_be_had(
    clock: OwnTime, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens(clock, TokenUnavailable(0, "nobody"), TokenUnavailable(429, "too often", 30.0), OSError("odd"))
    with caplog.at_level(logging.WARNING):
        connection = await run(clock, tokens, seconds=240.0, lifetime=200.0)
    assert len(tokens.asked) == 4
    assert caplog.text.count("cannot be refreshed") == 3
    assert tokens.asked[2] - tokens.asked[1] >= 30.0, "as long as it was told to wait"
    assert len(connection.times_of("gateway.refresh")) == 1


async def test_client_does_not_spin_on_a_token_that_has_run_out(clock: OwnTime) -> None:
    connection = await run(clock, Tokens(clock), seconds=30.0, lifetime=-5.0)
    assert len(connection.sent) < 100


async def test_gateway_gets_the_refresh_on_the_connection_it_is_for(
    gateway: ScriptedGateway, make_client: MakeClient
) -> None:
    given = iter(["first", "second", "third", "fourth"])

    async def token() -> str:
        return next(given)

    client = make_client(token)
    starting = asyncio.create_task(client.start())
    session = await gateway.next_session()
    await session.welcome(lifetime_ms=1000)
    await starting
    await until(lambda: session.refreshes)
    await session.say("policy", control_pb2.Policy(tier="PRO", message_rate_limit=7.0))
    assert (session.token, session.refreshes[0]) == ("Bearer first", "second")
    assert client.policy.message_rate_limit == 7.0
    assert client.is_connected
