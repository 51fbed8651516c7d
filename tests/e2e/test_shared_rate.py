"""One user's rate over several gateway processes, with Redis and without it for a while."""

import asyncio
import time
from collections.abc import Callable

import pytest

from benchmarks.steady import Outcome, SteadyTerminal, flood
from tests.support.flood import Outcome as Answers
from tests.support.flood import listen, open_terminal, send_at
from tests.support.gateway import Gateway
from tests.support.valkey import Valkey

MakeGateway = Callable[..., Gateway]

# Of a bench user without GATEWAY_BENCHMARK: the ceiling of all plans.
RATE = 100.0
OUTAGE = 10.0


async def _flood(gateways: list[Gateway], token: str, seconds: float) -> None:
    """The user at ten times the rate, half of it at each gateway."""
    outcomes = [Answers() for _ in gateways]
    connections = [await open_terminal(gateway.url, token) for gateway in gateways]
    listening = [asyncio.create_task(listen(c, o)) for c, o in zip(connections, outcomes, strict=True)]
    await asyncio.gather(
        *(send_at(c, o, 10 * RATE / len(gateways), seconds) for c, o in zip(connections, outcomes, strict=True))
    )
    await asyncio.sleep(1.0)
    for connection in connections:
        await connection.close()
    await asyncio.gather(*listening)


def _accepted(gateways: list[Gateway]) -> float:
    return sum(g.metric("gateway_messages_total", type="tick_data", result="accepted") for g in gateways)


@pytest.mark.parametrize("processes", [2, 4])
def test_user_over_the_plan_gets_the_plan_s_rate_once_over_all_processes(
    make_gateway: MakeGateway, processes: int
) -> None:
    gateway = make_gateway().start("--processes", str(processes))
    seconds = 8.0
    outcome = asyncio.run(flood(gateway.port, gateway.users[0].token, 5.0, seconds, connections=8))
    assert outcome.plan == RATE
    assert set(outcome.refused) == {"rate_limited"}
    accepted = outcome.offered - outcome.rate_limited
    # The rate, and a second of it at first.
    assert 0.95 * RATE * seconds <= accepted <= 1.05 * RATE * (outcome.lasted + 1.0)


def test_terminal_at_95_percent_of_the_plan_is_never_refused_by_two_processes_while_resets_move_it_and_redis_goes(
    make_gateway: MakeGateway, own_valkey: Valkey
) -> None:
    gateway = make_gateway(REDIS_URL=own_valkey.url).start("--processes", "2")

    async def run() -> Outcome:
        terminal = SteadyTerminal(gateway.port, gateway.users[0].token, "ea-95", 0.95)
        running = asyncio.create_task(terminal.run(12.0, 1.5))
        await asyncio.sleep(4.0)
        await asyncio.to_thread(own_valkey.stop)
        await asyncio.sleep(4.0)
        await asyncio.to_thread(own_valkey.start)
        return await running

    outcome = asyncio.run(run())
    assert (outcome.rate_limited, outcome.open) == (0, 0)
    assert outcome.offered >= 0.9 * 0.95 * RATE * 12
    assert outcome.resets >= 6
    # Also none whose answer was lost with its connection.
    assert gateway.metric("gateway_refusals_total", code="rate_limited") == 0


def test_user_gets_at_most_twice_the_rate_while_redis_is_away(make_gateway: MakeGateway, own_valkey: Valkey) -> None:
    gateways = [make_gateway(REDIS_URL=own_valkey.url).start() for _ in range(2)]
    token = gateways[0].users[0].token
    marks: list[tuple[float, float]] = []

    async def outage() -> None:
        await asyncio.sleep(4.0)
        await asyncio.to_thread(own_valkey.stop)
        marks.append((time.monotonic(), await asyncio.to_thread(_accepted, gateways)))
        await asyncio.sleep(OUTAGE)
        marks.append((time.monotonic(), await asyncio.to_thread(_accepted, gateways)))
        await asyncio.to_thread(own_valkey.start)
        await asyncio.sleep(3.0)
        marks.append((time.monotonic(), await asyncio.to_thread(_accepted, gateways)))
        await asyncio.sleep(6.0)
        marks.append((time.monotonic(), await asyncio.to_thread(_accepted, gateways)))

    async def both() -> None:
        await asyncio.gather(_flood(gateways, token, 26.0), outage())

    asyncio.run(both())
    (gone, at_gone), (back, at_back), (settled, at_settled), (end, at_end) = marks
    assert 0 < at_back - at_gone <= 2.0 * RATE * (back - gone)
    # Afterwards it is one limit again.
    assert 0.9 * RATE * (end - settled) <= at_end - at_settled <= 1.1 * RATE * (end - settled)
    for gateway in gateways:
        events = [event["event"] for event in gateway.events()]
        assert "redis_down" in events
        assert "redis_back" in events
        assert gateway.errors() == []
