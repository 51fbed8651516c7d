"""A connection gets its pings, and a new token before the present one has run out."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto.gateway.v1 import control_pb2
from tests.clients.conftest import MakeClient
from tests.clients.scripted_gateway import ScriptedGateway, until
from trading_gateway_client.backoff import Backoff
from trading_gateway_client.keeper import Keeper

# The gateway's clock is decades behind the client's own.
GATEWAY_NOW_MS = 1_000_000


@dataclass
class Run:
    """One connection under a clock that jumps from one time of the keeper to the next."""

    # The life in seconds of each token in turn; the last one is given again and again.
    lives: list[float]
    # Whether a new token is taken, by the number of its try; None: no answer comes.
    is_taken: Callable[[int], bool | None] = lambda _: True
    now: float = 1000.0
    pings: list[float] = field(default_factory=list)
    refreshes: list[float] = field(default_factory=list)
    # Seconds at which the token that was last taken ends.
    ends_at: float = 0.0

    def keep(self, seconds: float) -> "Run":
        until_at = self.now + seconds
        keeper = Keeper(self.now, *self._next_token())
        steps = 0
        while self.now < until_at:
            steps += 1
            assert steps < 100_000, "it spins"
            if keeper.must_ping(self.now):
                self.pings.append(self.now)
            if keeper.must_refresh(self.now):
                self.refreshes.append(self.now)
                keeper.sent(self.now)
                answer = self.is_taken(len(self.refreshes))
                if answer:
                    keeper.told(self.now, *self._next_token())
                elif answer is False:
                    keeper.refused(self.now)
            assert keeper.next_at > self.now
            self.now = keeper.next_at
        return self

    def _next_token(self) -> tuple[int, int]:
        life = self.lives.pop(0) if len(self.lives) > 1 else self.lives[0]
        self.ends_at = self.now + life
        return GATEWAY_NOW_MS + int(life * 1000), GATEWAY_NOW_MS


@pytest.mark.parametrize("life", [4.0, 20.0, 100.0, 3600.0])
def test_client_refreshes_its_token_before_each_expiry(life: float) -> None:
    run = Run([life])
    began = run.now
    run.keep(3.5 * life)
    assert len(run.refreshes) >= 3
    for earlier, later in zip([began, *run.refreshes], run.refreshes, strict=False):
        assert 0.5 * life < later - earlier < life


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(min_value=2.0, max_value=2_000.0), min_size=2, max_size=4))
def test_each_refresh_follows_the_life_of_the_present_token(lives: list[float]) -> None:
    run = Run(list(lives))
    began = run.now
    run.keep(sum(lives))
    waits = [later - earlier for earlier, later in zip([began, *run.refreshes], run.refreshes, strict=False)]
    for life, wait in zip(lives, waits, strict=False):
        assert 0.5 * life < wait < life


def test_first_token_of_seconds_does_not_set_the_pace_of_later_ones() -> None:
    run = Run([4.0, 3600.0]).keep(7200.0)
    assert len(run.refreshes) == 1 + 2


@settings(max_examples=40, deadline=None)
@given(st.floats(min_value=120.0, max_value=3_000.0), st.integers(min_value=1, max_value=3))
def test_refused_refresh_is_tried_again_before_the_token_ends(life: float, refusals: int) -> None:
    run = Run([life], lambda number: number > refusals)
    first_end = run.now + life
    run.keep(life)
    assert len(run.refreshes) > refusals
    assert run.refreshes[refusals] < first_end


def test_refresh_without_an_answer_is_tried_again() -> None:
    run = Run([1000.0], lambda number: True if number > 1 else None)
    first_end = run.now + 1000.0
    run.keep(1000.0)
    assert 10.0 <= run.refreshes[1] - run.refreshes[0] < 30.0
    assert run.refreshes[1] < first_end


def test_token_that_has_run_out_is_not_asked_for_all_the_time() -> None:
    for life in (-5.0, 0.0, 0.5):
        assert len(Run([life]).keep(60.0).refreshes) <= 61
    assert len(Run([100.0], lambda _: False).keep(3600.0).refreshes) < 150


def test_wait_that_the_gateway_asks_for_is_kept() -> None:
    keeper = Keeper(0.0, 100_000, 0, Backoff(base=1.0))
    assert keeper.must_refresh(80.0)
    keeper.refused(80.0, 12.0)
    assert not keeper.must_refresh(91.9)
    assert keeper.must_refresh(92.0)


def test_client_pings_at_once_and_then_every_fifteen_seconds() -> None:
    run = Run([3600.0])
    began = run.now
    run.keep(50.0)
    assert [when - began for when in run.pings] == [0.0, 15.0, 30.0, 45.0]


async def test_gateway_gets_the_refresh_on_the_connection_it_is_for(
    gateway: ScriptedGateway, make_client: MakeClient
) -> None:
    given_tokens = iter(["first", "second", "third", "fourth"])

    async def token() -> str:
        return next(given_tokens)

    client = make_client(token)
    starting = asyncio.create_task(client.start())
    session = await gateway.next_session()
    await session.welcome(lifetime_ms=1000)
    await starting
    await until(lambda: session.refreshes)
    await session.say(
        "policy",
        control_pb2.Policy(
            tier="PRO", message_rate_limit=7.0, token_expires_at_ms=9_000_000, server_time_ms=GATEWAY_NOW_MS
        ),
    )
    assert (session.token, session.refreshes) == ("Bearer first", ["second"])
    assert client.policy.message_rate_limit == 7.0
    assert client.is_connected


async def test_client_gives_up_a_gateway_that_is_silent(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trading_gateway_client.upkeep.SILENCE_LIMIT", -1.0)
    client = make_client()
    starting = asyncio.create_task(client.start())
    await (await gateway.next_session()).welcome()
    await gateway.next_session()
    await starting
    assert client.outcomes.closes == {1001: 1}
