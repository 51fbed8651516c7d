"""What is not settled is sent again, under the same sequences, and nothing else is."""

from pathlib import Path

import pytest

from proto.gateway.v1 import control_pb2
from tests.clients.conftest import MakeClient
from tests.clients.scripted_gateway import ScriptedGateway, offer, start, until
from trading_gateway_client import DiskJournal


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
    assert (second.query["stream"], second.query["writer"]) == (first.query["stream"], first.query["writer"])


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


@pytest.mark.parametrize("code", ["rate_limited", "malformed", "duplicate", "backend_unavailable"])
async def test_message_that_a_forgetful_gateway_is_sent_again_is_judged_anew(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float], code: str
) -> None:
    client = make_client()
    first = await start(client, gateway)
    offer(client, 2)
    await first.nack(2, code)
    first.abort()
    second = await gateway.next_session()
    await second.welcome()
    assert second.sequences == [1, 2]
    await second.ack(2)
    assert (client.outcomes.acknowledged, client.outcomes.refused) == (2, 0)


@pytest.mark.parametrize(("code", "settled"), [("pair_not_active", (1, 1, 0)), ("rate_limited", (1, 0, 1))])
async def test_duplicate_means_that_the_refusal_heard_before_holds(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float], code: str, settled: tuple[int, int, int]
) -> None:
    client = make_client()
    first = await start(client, gateway)
    offer(client, 2)
    await first.nack(2, code)
    first.abort()
    second = await gateway.next_session()
    await second.welcome(0)
    await second.nack(1, "duplicate")
    await second.nack(2, "duplicate")
    await second.ack(2)
    outcomes = client.outcomes
    assert (outcomes.acknowledged, outcomes.refused, outcomes.reoffered) == settled


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
    assert (second.query["stream"], second.query["writer"]) == (first.query["stream"], first.query["writer"])
    await second.ack(5)
    assert settled == [(3, 0.0), (4, 0.0), (5, 0.0)]
    await second.ack(6)
    assert (client.outcomes.acknowledged, client.outcomes.unanswered) == (4, 0)


async def test_client_says_up_to_where_it_has_heard(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    client = make_client()
    first = await start(client, gateway)
    offer(client, 5)
    await first.nack(4, "pair_not_active")
    await first.ack(2)
    await first.end(1012)
    second = await gateway.next_session()
    assert [session.query["heard"] for session in (first, second)] == ["0", "2"], "3 is still open"
    await second.welcome(4)
    await second.ack(5)
    await second.end(1012)
    assert (await gateway.next_session()).query["heard"] == "5"
    assert (client.outcomes.acknowledged, client.outcomes.refused) == (4, 1)


async def test_refusals_that_were_not_heard_are_told_by_the_welcome(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    settled: list[tuple[int, str]] = []
    client = make_client(on_settled=lambda entry, seconds: settled.append((entry.sequence, entry.refusal)))
    first = await start(client, gateway)
    offer(client, 6)
    first.abort()
    second = await gateway.next_session()
    final = control_pb2.NACK_ACTION_FINAL
    refusals = [
        control_pb2.Refusal(first=2, last=3, code="pair_not_active", action=final),
        control_pb2.Refusal(first=5, last=5, code="account_unknown", action=final),
    ]
    await second.welcome(4, refusals=refusals, refusals_from=1)
    assert settled == [(1, ""), (2, "pair_not_active"), (3, "pair_not_active"), (4, ""), (5, "account_unknown")]
    assert second.sequences == [6]
    await second.ack(6)
    assert settled[5:] == [(6, "")]


async def test_what_the_gateway_has_forgotten_is_neither_acknowledged_nor_refused(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float]
) -> None:
    outcomes: list[str] = []
    client = make_client(on_settled=lambda entry, seconds: outcomes.append(entry.outcome))
    first = await start(client, gateway)
    offer(client, 5)
    first.abort()
    second = await gateway.next_session()
    refusal = control_pb2.Refusal(first=4, last=4, code="pair_limit", action=control_pb2.NACK_ACTION_FINAL)
    await second.welcome(5, refusals=[refusal], refusals_from=3)
    assert outcomes == ["unknown", "unknown", "acknowledged", "refused", "acknowledged"]
    assert (client.outcomes.unknown, client.outcomes.unanswered, client.outstanding) == (2, 0, 0)


async def test_client_without_its_journal_writes_another_incarnation(
    gateway: ScriptedGateway, make_client: MakeClient
) -> None:
    clients = [make_client(stream_id="ea-1") for _ in range(2)]
    sessions = [await start(client, gateway) for client in clients]
    for client, session in zip(clients, sessions, strict=True):
        offer(client, 1)
        await session.meet()
        assert session.sequences == [1]
    assert sessions[0].query["writer"] != sessions[1].query["writer"]


async def test_client_whose_journal_is_behind_its_stream_begins_another_incarnation(
    gateway: ScriptedGateway, make_client: MakeClient, waits: list[float], tmp_path: Path
) -> None:
    before = make_client(journal=DiskJournal(tmp_path / "journal"))
    first = await start(before, gateway)
    offer(before, 2)
    await first.meet()
    await before.close(0.0)
    # What follows was lost with the disk's last seconds: up to 41 messages went out and were acknowledged.
    client = make_client(journal=DiskJournal(tmp_path / "journal"))
    offer(client, 2)
    second = await start(client, gateway, acknowledged=41)
    assert second.sequences == []
    assert (client.outcomes.acknowledged, client.outstanding) == (2, 2)
    third = await gateway.next_session()
    await third.welcome()
    assert third.sequences == [1, 2]
    assert third.query["writer"] != second.query["writer"] == first.query["writer"]
