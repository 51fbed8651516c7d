"""What is not settled is sent again, under the same sequences, and nothing else is."""

import asyncio
from pathlib import Path

import pytest

from tests.clients.conftest import MakeClient
from tests.clients.scripted_gateway import ScriptedGateway, offer, start, until
from trading_gateway_client import DiskJournal, GatewayClientError


async def test_client_resends_only_what_was_not_acknowledged(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    client = make_client()
    first = await start(client, gateway, window=4)
    offer(client, 6)
    await first.ack(1)
    assert first.sequences == [1, 2, 3, 4, 5]
    first.abort()
    second = await gateway.next_session()
    # The gateway has settled more than the client has heard of.
    await second.welcome(3, window=4)
    assert second.sequences == [4, 5, 6]
    sent = {envelope.sequence: frame for envelope, frame in zip(first.envelopes, first.frames, strict=True)}
    again = {envelope.sequence: frame for envelope, frame in zip(second.envelopes, second.frames, strict=True)}
    assert (again[4], again[5]) == (sent[4], sent[5]), "byte for byte"
    await second.ack(6)
    assert (client.outcomes.acknowledged, client.outcomes.resent, client.outcomes.connects) == (6, 2, 2)
    assert client.outcomes.closes == {1006: 1}
    assert second.path == first.path


async def test_message_offered_while_away_goes_after_what_is_owed(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    client = make_client()
    first = await start(client, gateway)
    offer(client, 2)
    await first.end(1012)
    await until(lambda: not client.is_connected)
    offer(client, 2)
    second = await gateway.next_session()
    await second.welcome()
    assert second.sequences == [1, 2, 3, 4]
    assert client.outcomes.resent == 2


async def test_refusal_of_the_backend_leaves_the_message_owed(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    client = make_client()
    first = await start(client, gateway)
    offer(client, 2)
    await first.nack(1, "backend_unavailable")
    await first.nack(2, "backend_unavailable")
    await first.end(4003)
    second = await gateway.next_session()
    await second.welcome()
    assert second.sequences == [1, 2]
    await second.ack(2)
    assert (client.outcomes.acknowledged, client.outcomes.refused) == (2, 0)
    assert client.outcomes.refusals == {"backend_unavailable": 2}


async def test_sequence_gap_makes_the_client_begin_anew(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    client = make_client()
    first = await start(client, gateway)
    offer(client, 3)
    await first.meet()
    await first.nack(2, "sequence_gap")
    second = await gateway.next_session()
    await second.welcome(1)
    assert second.sequences == [2, 3]


@pytest.mark.parametrize(
    ("code", "settled"),
    [("rate_limited", (1, 0)), ("malformed", (0, 1)), ("duplicate", (1, 0)), ("backend_unavailable", (1, 0))],
)
async def test_resent_message_is_judged_anew_unless_its_fault_lasts(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float], code: str, settled: tuple[int, int]
) -> None:
    client = make_client()
    first = await start(client, gateway)
    offer(client, 1)
    await first.nack(1, code)
    first.abort()
    second = await gateway.next_session()
    await second.welcome()
    await second.ack(1)
    assert (client.outcomes.acknowledged, client.outcomes.refused) == settled


async def test_duplicate_means_that_the_earlier_answer_holds(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    client = make_client()
    first = await start(client, gateway)
    offer(client, 2)
    await first.nack(1, "rate_limited")
    first.abort()
    second = await gateway.next_session()
    await second.welcome()
    await second.nack(1, "duplicate")
    await second.nack(2, "duplicate")
    await second.ack(2)
    assert (client.outcomes.acknowledged, client.outcomes.refused) == (1, 1)


async def test_restarted_client_resumes_with_its_journal(
    gateway: ScriptedGateway, make_client: MakeClient, tmp_path: Path
) -> None:
    before = make_client(journal=DiskJournal(tmp_path / "journal"))
    first = await start(before, gateway)
    offer(before, 5)
    await first.ack(2)
    assert not await before.close(0.0)

    settled: list[tuple[int, float]] = []
    journal = DiskJournal(tmp_path / "journal")
    client = make_client(journal=journal, on_settled=lambda entry, delay: settled.append((entry.sequence, delay)))
    assert (client.stream_id, client.outcomes.sent, client.outstanding) == (before.stream_id, 3, 3)
    offer(client, 1)
    second = await start(client, gateway, acknowledged=3)
    assert second.sequences == [4, 5, 6]
    assert second.frames[:2] == first.frames[-2:]
    assert second.path == first.path
    await second.ack(5)
    assert settled == [(3, 0.0), (4, 0.0), (5, 0.0)]
    await second.ack(6)
    assert (client.outcomes.acknowledged, client.outcomes.unanswered) == (4, 0)


async def test_client_without_its_journal_counts_on_where_the_gateway_is(
    gateway: ScriptedGateway, make_client: MakeClient
) -> None:
    client = make_client(stream_id="ea-1")
    session = await start(client, gateway, acknowledged=41)
    offer(client, 1)
    await session.meet()
    assert session.sequences == [42]


async def test_client_whose_journal_is_lost_does_not_take_old_answers_for_new_messages(
    gateway: ScriptedGateway, make_client: MakeClient
) -> None:
    client = make_client(stream_id="ea-1")
    offer(client, 2)
    starting = asyncio.create_task(client.start())
    await (await gateway.next_session()).welcome(41)
    with pytest.raises(GatewayClientError, match="its journal is lost"):
        await starting
    assert (client.outcomes.acknowledged, client.outstanding) == (0, 2)
