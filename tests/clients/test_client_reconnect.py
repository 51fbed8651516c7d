"""A client comes back after anything but a refusal for good, when the gateway says so."""

import logging

import pytest

from proto.gateway.v1 import control_pb2
from tests.clients.conftest import MakeClient
from tests.clients.scripted_gateway import ScriptedGateway, offer, start, until
from trading_gateway_client import ConnectionEnded, GatewayClientError, HandshakeRefused, TokenUnavailable


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 4000, 4001, 4003, 4006, 4499])
async def test_client_returns_after_a_close_code_that_asks_for_it(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float], code: int
) -> None:
    client = make_client()
    await (await start(client, gateway)).end(code)
    second = await gateway.next_session()
    await second.welcome()
    assert client.is_connected
    assert client.outcomes.closes == {code: 1}
    assert waits == [1.0], "without a hint, by the backoff"


@pytest.mark.parametrize("code", [1009, 4500, 4502, 4508, 4999])
async def test_client_stays_away_after_a_close_code_that_forbids_it(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float], code: int
) -> None:
    client = make_client()
    session = await start(client, gateway)
    offer(client, 1)
    await session.end(code, reason="not again")
    await until(lambda: client.error)
    with pytest.raises(ConnectionEnded, match="not again") as raised:
        offer(client, 1)
    assert (raised.value.code, raised.value.retryable) == (code, False)
    assert not await client.drain(60.0), "nothing is waited for any more"
    assert not await client.close()
    assert (gateway.connects, waits, client.outstanding) == (1, [], 1)


async def test_client_stays_away_when_it_is_told_so(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    client = make_client()
    session = await start(client, gateway)
    await session.end(4006, told=control_pb2.Disconnect(code=4006, reason="a newer login", reconnect=False))
    await until(lambda: client.error)
    with pytest.raises(ConnectionEnded, match="4006 a newer login"):
        offer(client, 1)
    assert gateway.connects == 1


async def test_client_waits_as_the_hint_says_with_its_jitter(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    client = make_client()
    session = await start(client, gateway)
    for retry_after_ms, jitter_ms in ((7000, 3000), (0, 500), (250, 0), (0, 0)):
        told = control_pb2.Disconnect(code=1012, reconnect=True, retry_after_ms=retry_after_ms, jitter_ms=jitter_ms)
        await session.end(1012, told=told)
        session = await gateway.next_session()
        await session.welcome()
    assert waits == [10.0, 0.5, 0.25, 1.0]


async def test_hint_of_one_connection_is_not_taken_for_the_next(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    client = make_client()
    session = await start(client, gateway)
    await session.end(4003, told=control_pb2.Disconnect(code=4003, reconnect=True, retry_after_ms=9000))
    for _ in range(3):
        session = await gateway.next_session()
        await session.welcome()
        session.abort()
    await gateway.next_session()
    assert waits == [9.0, 1.0, 2.0, 4.0], "then the backoff of connections that do not last"


async def test_client_takes_one_new_token_when_the_old_one_is_refused(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    tokens = iter(["old", "new", "unused"])

    async def token() -> str:
        return next(tokens)

    gateway.refusals.append((401, {}, {"code": "token_expired", "detail": "it ran out"}))
    client = make_client(token)
    session = await start(client, gateway)
    assert session.token == "Bearer new"
    assert client.outcomes.handshakes_refused == {401: 1}


async def test_client_gives_up_when_the_new_token_is_refused_as_well(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    gateway.refusals += [(401, {}, {"code": "token_invalid", "detail": "wrong key"})] * 3
    client = make_client()
    with pytest.raises(HandshakeRefused, match="wrong key") as raised:
        await client.start()
    assert (raised.value.status, raised.value.code, gateway.connects) == (401, "token_invalid", 2)


async def test_client_gives_up_when_it_may_not_connect(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    gateway.refusals.append((402, {}, "not a problem document"))
    client = make_client()
    with pytest.raises(HandshakeRefused, match="HTTP 402"):
        await client.start()
    assert (gateway.connects, waits) == (1, [])


async def test_client_waits_as_long_as_a_refused_connect_says(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    gateway.refusals += [(429, {"Retry-After": "30"}, {}), (503, {"Retry-After": "5"}, {}), (503, {}, {})]
    await start(make_client(), gateway)
    assert waits == [31.0, 7.0, 4.0], "its own jitter comes on top"


async def test_client_asks_again_for_a_token_that_cannot_be_had(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    refusals = [TokenUnavailable(0, "nobody there"), TokenUnavailable(429, "too often", 20.0)]

    async def token() -> str:
        if refusals:
            raise refusals.pop(0)
        return "t"

    await start(make_client(token), gateway)
    assert waits == [1.0, 22.0]


async def test_failing_token_source_stops_the_client_with_its_reason(
    make_client: MakeClient, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    async def token() -> str:
        raise LookupError("no such vault")

    with caplog.at_level(logging.CRITICAL), pytest.raises(GatewayClientError, match="no such vault") as raised:
        await make_client(token).start()
    assert isinstance(raised.value.__cause__, LookupError)


async def test_unreadable_answer_makes_the_client_begin_anew(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    client = make_client()
    session = await start(client, gateway)
    offer(client, 1)
    await session.send_raw(b"\xff\xff")
    second = await gateway.next_session()
    await second.welcome()
    assert second.sequences == [1]
    assert client.outcomes.closes == {1002: 1}
