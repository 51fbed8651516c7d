"""A client comes back after anything but a refusal for good, when the gateway says so."""

import pytest

from proto.gateway.v1 import control_pb2
from tests.clients.conftest import MakeClient
from tests.clients.scripted_gateway import ScriptedGateway, offer, start, until
from trading_gateway_client import ConnectionEnded, HandshakeRefused, TokenUnavailable


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1009, 1011, 1012, 1013, 4000, 4001, 4003, 4499])
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


@pytest.mark.parametrize("code", [4500, 4502, 4508, 4999])
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


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "stream_invalid"),
        (402, "payment_required"),
        (403, "user_disabled"),
        (403, "company_suspended"),
        (403, "account_not_allowed"),
    ],
)
async def test_client_gives_up_when_it_may_not_connect(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float], status: int, code: str
) -> None:
    gateway.refusals.append((status, {}, {"code": code, "detail": "not you"}))
    client = make_client()
    with pytest.raises(HandshakeRefused, match="not you") as raised:
        await client.start()
    assert (raised.value.code, gateway.connects, waits) == (code, 1, [])


@pytest.mark.parametrize("body", ["not a problem document", {"detail": "no code"}, {"code": "news", "detail": "?"}])
@pytest.mark.parametrize("status", [301, 307, 400, 401, 402, 403, 404, 405, 408, 421, 425, 431, 451, 500, 502, 511])
async def test_client_tries_again_after_whatever_is_not_the_gateways_own_final_word(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float], status: int, body: object
) -> None:
    gateway.refusals += [(status, {"Location": "/elsewhere"}, body)] * 3
    client = make_client()
    await start(client, gateway)
    assert client.outcomes.handshakes_refused == {status: 3}
    assert waits == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("before", [({}, "a page of a proxy"), ({}, {"code": "token_expired", "detail": "it ran out"})])
async def test_fresh_token_is_refused_twice_before_the_client_gives_up_whatever_came_before(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float], before: tuple[dict[str, str], object]
) -> None:
    async def token() -> str:
        return "new"

    gateway.refusals += [(401, *before), (401, {}, {"code": "token_invalid", "detail": "from the future"})]
    client = make_client(token)
    await start(client, gateway)
    assert client.outcomes.handshakes_refused == {401: 2}


async def test_code_of_a_document_of_another_type_is_not_the_gateways(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    body = {"code": "user_disabled", "detail": "says a proxy"}
    gateway.refusals.append((403, {"Content-Type": "application/json"}, body))
    await start(make_client(), gateway)


async def test_one_token_that_has_run_out_stops_the_client(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    gateway.refusals += [(401, {}, {"code": "token_expired", "detail": "it ran out"})] * 3
    with pytest.raises(HandshakeRefused, match="it ran out"):
        await make_client().start()
    assert gateway.connects == 2


async def test_source_that_lags_behind_is_asked_until_it_has_a_token_that_lasts(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    async def cached() -> str:
        return "the same for a while"

    gateway.refusals += [(401, {}, {"code": "token_expired", "detail": "it ran out"})] * 5
    client = make_client(cached)
    await start(client, gateway)
    assert client.outcomes.handshakes_refused == {401: 5}


async def test_client_whose_stream_is_taken_comes_back_ever_more_rarely(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[int, float]] = []

    def note(reason: Exception, seconds: float) -> None:
        assert isinstance(reason, ConnectionEnded)
        told.append((reason.code, seconds))

    client = make_client(on_disconnect=note)
    session = await start(client, gateway)
    for _ in range(8):
        hint = control_pb2.Disconnect(code=4006, reason="opened anew", reconnect=True, retry_after_ms=5000)
        await session.end(4006, told=hint)
        session = await gateway.next_session()
        await session.welcome()
    assert waits == [5.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0]
    assert told == [(4006, wait) for wait in waits]
    assert caplog.text.count("4006 opened anew") == 8
    assert client.error is None


async def test_message_that_is_too_big_for_the_way_is_refused_alone(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    settled: list[tuple[int, str]] = []
    client = make_client(on_settled=lambda entry, seconds: settled.append((entry.sequence, entry.refusal)))
    session = await start(client, gateway)
    offer(client, 4)
    await session.meet()
    # A proxy that ends the connection at the third message, whichever way it comes.
    await session.ack(1)
    await session.end(1009)
    session = await gateway.next_session()
    await session.welcome(1)
    assert session.sequences == [2], "one at a time"
    await session.ack(2)
    assert session.sequences == [2, 3]
    await session.end(1009)
    session = await gateway.next_session()
    await session.welcome(2)
    void = session.envelopes[0]
    assert (void.sequence, void.message_type, void.payload) == (3, "void", b"")
    await session.nack(3, "unknown_type")
    await session.ack(3)
    await session.ack(4)
    assert settled == [(1, ""), (2, ""), (3, "too_large"), (4, "")]
    assert client.error is None


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


async def test_failing_token_source_is_asked_again(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[Exception] = [LookupError("no such vault"), OSError("no network"), TimeoutError()]

    async def token() -> str:
        if failures:
            raise failures.pop(0)
        return "t"

    await start(make_client(token), gateway)
    assert "no such vault" in caplog.text
    assert waits == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("refusal", [TokenUnavailable(403, "not you"), TokenUnavailable(418, "not you", is_final=True)])
async def test_token_source_that_has_a_final_refusal_stops_the_client(
    make_client: MakeClient, waits: list[float], refusal: TokenUnavailable
) -> None:
    async def token() -> str:
        raise refusal

    with pytest.raises(TokenUnavailable, match="not you"):
        await make_client(token).start()
    assert waits == []
