"""One user's rate over two gateway processes, with Redis and without it for a while."""

import asyncio
import time
from collections.abc import Callable

from tests.support.flood import Outcome, listen, open_terminal, send_at
from tests.support.gateway import Gateway
from tests.support.valkey import Valkey

MakeGateway = Callable[..., Gateway]

# Of a bench user without GATEWAY_BENCHMARK: the ceiling of all plans.
RATE = 100.0
OUTAGE = 10.0


async def _flood(gateways: list[Gateway], token: str, seconds: float) -> tuple[list[Outcome], float]:
    """The user at ten times the rate, half of it at each gateway; and for how many seconds it was in truth."""
    outcomes, began = [Outcome() for _ in gateways], time.monotonic()
    connections = [await open_terminal(gateway.url, token) for gateway in gateways]
    listening = [asyncio.create_task(listen(c, o)) for c, o in zip(connections, outcomes, strict=True)]
    await asyncio.gather(
        *(send_at(c, o, 10 * RATE / len(gateways), seconds) for c, o in zip(connections, outcomes, strict=True))
    )
    lasted = time.monotonic() - began
    await asyncio.sleep(1.0)
    for connection in connections:
        await connection.close()
    await asyncio.gather(*listening)
    return outcomes, lasted


def _accepted(gateways: list[Gateway]) -> float:
    return sum(g.metric("gateway_messages_total", type="tick_data", result="accepted") for g in gateways)


def test_user_gets_the_plan_s_rate_once_over_two_processes(make_gateway: MakeGateway) -> None:
    gateways = [make_gateway().start(), make_gateway().start()]
    seconds = 30.0
    outcomes, lasted = asyncio.run(_flood(gateways, gateways[0].users[0].token, seconds))
    accepted = _accepted(gateways)
    assert 0.95 * RATE * seconds <= accepted <= 1.05 * RATE * lasted
    for outcome in outcomes:
        assert outcome.code == 1000
        assert set(outcome.nacks) == {"rate_limited"}
    sent = sum(outcome.sent for outcome in outcomes)
    assert accepted + sum(outcome.nacks.total() for outcome in outcomes) == sent


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
