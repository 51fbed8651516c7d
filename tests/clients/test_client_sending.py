"""A client knows for each message whether the gateway has it."""

import asyncio
import logging

import pytest

from proto.gateway.v1 import control_pb2
from tests.clients.conftest import MakeClient
from tests.clients.scripted_gateway import ScriptedGateway, offer, start
from trading_gateway_client import (
    Entry,
    GatewayClientError,
    Journal,
    JournalFull,
    MessageTooLarge,
    Notification,
    Tick,
    TradingSignal,
    UserEvent,
)


async def test_client_sends_each_kind_of_message_counted_up_by_one(
    gateway: ScriptedGateway, make_client: MakeClient
) -> None:
    client = make_client(stream_id="ea-1")
    session = await start(client, gateway)
    assert await client.send_ticks([Tick(symbol="EURUSD")], account="1001") == 1
    assert await client.send_signal(TradingSignal(symbol="EURUSD", action="TRADE_ACTION_SELL")) == 2
    assert await client.send_event(UserEvent(event_type="login")) == 3
    assert await client.send_notification(Notification(title="Margin")) == 4
    await session.meet()
    sent = [envelope for envelope in session.envelopes if envelope.sequence]
    assert [(envelope.sequence, envelope.message_type, envelope.stream_id) for envelope in sent] == [
        (1, "tick_data", "ea-1"),
        (2, "trading_signal", "ea-1"),
        (3, "user_event", "ea-1"),
        (4, "notification", "ea-1"),
    ]
    assert session.path == "/ws/mt5"
    assert session.query == {"stream": "ea-1", "writer": session.query["writer"], "heard": "0"}
    assert session.token == "Bearer t"


async def test_client_keeps_to_the_window_of_its_policy(gateway: ScriptedGateway, make_client: MakeClient) -> None:
    client = make_client()
    session = await start(client, gateway, window=3)
    offer(client, 10)
    await session.meet()
    assert session.sequences == [1, 2, 3]
    await session.ack(1)
    assert session.sequences == [1, 2, 3, 4]
    await session.ack(4)
    assert session.sequences == [1, 2, 3, 4, 5, 6, 7]
    await session.nack(5, "rate_limited")
    assert len(session.sequences) == 7, "a refusal settles nothing before its acknowledgement"


async def test_client_follows_a_window_that_changes(gateway: ScriptedGateway, make_client: MakeClient) -> None:
    client = make_client()
    session = await start(client, gateway, window=4)
    offer(client, 10)
    await session.say("policy", control_pb2.Policy(message_rate_limit=10_000, in_flight_limit=2))
    await session.ack(2)
    assert session.sequences == [1, 2, 3, 4]
    await session.ack(3)
    assert session.sequences == [1, 2, 3, 4, 5]
    assert client.policy.in_flight_limit == 2


async def test_cumulative_ack_settles_everything_before_it(gateway: ScriptedGateway, make_client: MakeClient) -> None:
    settled: list[Entry] = []
    client = make_client(on_settled=lambda entry, seconds: settled.append(entry))
    session = await start(client, gateway)
    offer(client, 5)
    await session.ack(4)
    assert [(entry.sequence, entry.refusal, entry.attempts) for entry in settled] == [(n, "", 1) for n in range(1, 5)]
    assert (client.outcomes.acknowledged, client.outcomes.unanswered, client.outstanding) == (4, 1, 1)
    await session.ack(2)
    await session.ack(4)
    assert client.outcomes.acknowledged == 4


async def test_ack_of_what_was_never_sent_settles_nothing_more(
    gateway: ScriptedGateway, make_client: MakeClient
) -> None:
    client = make_client()
    session = await start(client, gateway, window=2)
    offer(client, 5)
    await session.ack(1000)
    assert (client.outcomes.acknowledged, client.outstanding) == (2, 3)
    assert session.sequences == [1, 2, 3, 4]


async def test_nack_is_counted_with_its_code(gateway: ScriptedGateway, make_client: MakeClient) -> None:
    settled: list[tuple[int, str]] = []
    client = make_client(on_settled=lambda entry, seconds: settled.append((entry.sequence, entry.refusal)))
    session = await start(client, gateway)
    offer(client, 4)
    await session.nack(2, "pair_not_active")
    await session.nack(3, "quota_exceeded")
    assert (client.outcomes.refused, client.outstanding) == (0, 4)
    await session.ack(4)
    assert settled == [(1, ""), (2, "pair_not_active"), (3, "quota_exceeded"), (4, "")]
    outcomes = client.outcomes
    assert (outcomes.sent, outcomes.acknowledged, outcomes.refused, outcomes.unanswered) == (4, 2, 2, 0)
    assert outcomes.refusals == {"pair_not_active": 1, "quota_exceeded": 1}


async def test_nack_without_a_sequence_is_counted_alone(gateway: ScriptedGateway, make_client: MakeClient) -> None:
    client = make_client()
    session = await start(client, gateway)
    offer(client, 1)
    await session.nack(0, "malformed")
    await session.nack(99, "malformed")
    await session.ack(1)
    assert (client.outcomes.acknowledged, client.outcomes.refused) == (1, 0)
    assert client.outcomes.refusals == {"malformed": 2}


async def test_sender_waits_while_the_journal_is_full(gateway: ScriptedGateway, make_client: MakeClient) -> None:
    client = make_client(journal=Journal(count_limit=2))
    session = await start(client, gateway)
    offer(client, 2)
    with pytest.raises(JournalFull):
        offer(client, 1)
    waiting = asyncio.create_task(client.send_event(UserEvent(event_type="login")))
    given_up = asyncio.create_task(client.send_event(UserEvent(event_type="logout")))
    await session.meet()
    given_up.cancel()
    assert not waiting.done()
    await session.ack(1)
    assert await waiting == 3
    await session.meet()
    assert session.sequences == [1, 2, 3]
    assert client.outcomes.sent == 3


async def test_message_above_the_size_limit_is_not_queued(gateway: ScriptedGateway, make_client: MakeClient) -> None:
    client = make_client()
    session = await start(client, gateway)
    with pytest.raises(MessageTooLarge):
        await client.send_notification(Notification(body="x" * 5000))
    assert await client.send_notification(Notification(body="x" * 500)) == 1
    await session.meet()
    assert (session.sequences, client.outcomes.sent) == ([1], 1)


async def test_callbacks_that_raise_stop_nothing(
    gateway: ScriptedGateway, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("of the caller")

    client = make_client(on_settled=fail, on_notice=fail)
    session = await start(client, gateway)
    offer(client, 3)
    with caplog.at_level(logging.ERROR):
        await session.say("notice", control_pb2.Notice(code="quota"))
        await session.ack(3)
    assert client.outcomes.acknowledged == 3
    assert client.is_connected
    assert [record.getMessage() for record in caplog.records] == (["on_notice failed"] + ["on_settled failed"] * 3)


async def test_callback_may_send(gateway: ScriptedGateway, make_client: MakeClient) -> None:
    def go_on(entry: Entry, seconds: float) -> None:
        if entry.sequence < 3:
            offer(client, 1)

    client = make_client(on_settled=go_on)
    session = await start(client, gateway, window=1)
    offer(client, 1)
    await session.ack(1)
    await session.ack(2)
    assert session.sequences == [1, 2, 3]


async def test_closing_client_settles_what_is_outstanding(gateway: ScriptedGateway, make_client: MakeClient) -> None:
    client = make_client()
    session = await start(client, gateway)
    offer(client, 2)
    closing = asyncio.create_task(client.close())
    await session.meet()
    with pytest.raises(GatewayClientError, match="closed"):
        offer(client, 1)
    assert not closing.done()
    await session.ack(2)
    assert await closing
    assert (client.outcomes.acknowledged, client.is_connected) == (2, False)
    with pytest.raises(RuntimeError):
        await client.start()


async def test_closing_client_tells_that_something_was_left(gateway: ScriptedGateway, make_client: MakeClient) -> None:
    client = make_client()
    session = await start(client, gateway)
    offer(client, 2)
    await session.ack(1)
    assert not await client.close(0.0)
    assert (client.outcomes.unanswered, client.outstanding) == (1, 1)
