"""One process as its terminals see it: acknowledgements, ends and changes of access; on a sink in memory."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proto.gateway.v1 import control_pb2
from streaming.admission import Handshake
from streaming.core.codes import CloseCode
from streaming.core.errors import MessageRefused, RefreshRefused
from streaming.core.session import Session
from streaming.positions import Claim
from tests.streaming import shell_cast
from tests.streaming.core.cast import signal, ticks
from tests.streaming.shell_cast import BOB, LIMITS, Clock, Live, Process, ShellPeer, Tenants, token_of, turns, upgrade


@pytest.fixture
async def process(tenants: Tenants) -> AsyncIterator[Process]:
    """Nothing is acknowledged by the clock: ``flush`` is the end of an interval."""
    made = Process(tenants, limits=dataclasses.replace(LIMITS, ack_interval=600.0))
    yield made
    await made.runtime.stop()


def flush(process: Process) -> None:
    process.runtime._flush_acks()


# --- Acknowledgements -------------------------------------------------------------------------------------------------


async def test_acknowledgements_of_ticks_are_gathered(process: Process) -> None:
    bob, alice = await process.connect(), await process.connect(token_of("alice"))
    for sequence in (1, 2, 3):
        bob.send(sequence=sequence)
        alice.send(sequence=sequence)
        process.sink.deliver()
    assert (bob.acks(), alice.acks()) == ([], [])
    flush(process)
    assert (bob.acks(), alice.acks()) == ([3], [3])
    flush(process)
    assert (bob.acks(), alice.acks()) == ([3], [3])


async def test_gathered_acknowledgements_come_by_themselves(tenants: Tenants) -> None:
    process = Process(tenants, limits=dataclasses.replace(LIMITS, ack_interval=0.001))
    bob = await process.connect()
    for sequence in (1, 2):
        bob.send(sequence=sequence)
        process.sink.deliver()
        while not bob.acks() or bob.acks()[-1] < sequence:
            await asyncio.sleep(0.001)
    assert bob.acks() == [1, 2]


async def test_signal_is_acknowledged_at_once_with_all_before_it(process: Process) -> None:
    bob = await process.connect()
    bob.send(sequence=1)
    bob.send("trading_signal", signal(), sequence=2)
    bob.send("trading_signal", signal(), sequence=3)
    process.sink.deliver(2)
    assert bob.acks() == [2]
    process.sink.deliver()
    flush(process)
    assert bob.acks() == [2, 3]


async def test_message_kept_as_failed_is_acknowledged_at_once(process: Process) -> None:
    bob = await process.connect()
    bob.send("nonsense", ticks(), sequence=1)
    process.sink.deliver()
    assert bob.acks() == [1]


async def test_connection_that_takes_over_hears_of_messages_of_the_one_before(process: Process) -> None:
    old = await process.connect()
    old.send("trading_signal", signal(), sequence=1)
    new = await process.connect()
    assert [welcome.last_acknowledged_sequence for welcome in new.heard("Welcome")] == [0]
    new.send("trading_signal", signal(), sequence=1)
    process.sink.deliver()
    flush(process)
    assert (old.acks(), new.acks(), len(process.sink.records)) == ([], [1], 1)


async def test_connection_that_takes_over_is_ended_when_kafka_did_not_take_what_it_repeats(process: Process) -> None:
    old = await process.connect()
    old.send("trading_signal", signal(), sequence=1)
    new = await process.connect()
    new.send("trading_signal", signal(), sequence=1)
    process.sink.fail()
    assert new.close_code == 4003


async def test_partition_that_fails_ends_only_the_connections_that_wait_for_it(process: Process) -> None:
    bob, alice = await process.connect(), await process.connect(token_of("alice"))
    for one in (bob, alice):
        one.send(sequence=1)
    process.sink.make_ill("tick-data", b"bob")
    process.sink.deliver()
    assert (bob.close_code, alice.close_code) == (4003, 0)
    flush(process)
    assert (bob.acks(), alice.acks()) == ([], [1])


async def test_message_that_its_topic_refuses_is_settled_and_told_and_the_connection_goes_on(process: Process) -> None:
    bob = await process.connect()
    bob.send("trading_signal", signal(), sequence=1)
    process.sink.make_ill("trading-signals")
    bob.send(sequence=2)
    process.sink.deliver()
    flush(process)
    [nack] = bob.heard("Nack")
    assert (nack.sequence, nack.code, nack.settled, nack.action) == (
        1,
        "backend_unavailable",
        True,
        control_pb2.NACK_ACTION_REOFFER,
    )
    assert (bob.acks(), bob.close_code) == ([2], 0)
    assert process.runtime.routes["trading_signal"].unrecorded == 1


async def test_session_that_crashes_over_a_refusal_keeps_it_from_nobody(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob, alice = await process.connect(), await process.connect(token_of("alice"))
    process.sink.make_ill("trading-signals")
    for one in (bob, alice):
        one.send("trading_signal", signal(), sequence=1)

    real = Session.not_recorded

    def crash(session: Session, sequence: int, error: MessageRefused) -> None:
        if session is bob.connection.session:
            raise RuntimeError("a session's own mistake")
        real(session, sequence, error)

    monkeypatch.setattr(Session, "not_recorded", crash)
    process.sink.deliver()
    assert len(alice.heard("Nack")) == 1


# --- Ends -------------------------------------------------------------------------------------------------------------


async def test_replaced_stream_is_told_so_and_only_it(process: Process) -> None:
    old, other = await process.connect(query="stream=s1"), await process.connect(query="stream=s2")
    new = await process.connect(query="stream=s1")
    assert (old.close_code, other.close_code, new.close_code) == (4006, 0, 0)
    assert [message.reconnect for message in old.heard("Disconnect")] == [True]


async def test_same_stream_id_of_another_user_replaces_nobody(process: Process) -> None:
    bob, alice = await process.connect(), await process.connect(token_of("alice"))
    assert (bob.close_code, alice.close_code) == (0, 0)


@pytest.mark.parametrize(("late", "code"), [(-0.5, 0), (0.5, 4000)])
async def test_connection_ends_when_its_token_and_the_grace_are_over(process: Process, late: float, code: int) -> None:
    issued = int(time.time())
    bob = await process.connect(token_of(ttl=60, now=issued))
    over = time.monotonic() + issued + 60 - time.time() + LIMITS.token_grace
    process.runtime.sweep(over + late)
    assert bob.close_code == code


async def test_new_token_moves_the_end(process: Process) -> None:
    bob = await process.connect(token_of(ttl=60))
    refresh(bob, token_of(ttl=600))
    process.runtime.sweep(time.monotonic() + 500)
    assert (bob.close_code, len(bob.heard("Policy"))) == (0, 1)
    process.runtime.sweep(time.monotonic() + 600 + LIMITS.token_grace + 1)
    assert bob.close_code == 4000


@pytest.mark.parametrize(
    ("query", "is_told"),
    [("stream=s1&heard=0&writer=w&account=1001", False), ("stream=s1&herad=0", True), ("Stream=s1", True)],
)
async def test_client_whose_query_is_misspelt_is_told(process: Process, query: str, is_told: bool) -> None:
    bob = await process.connect(query=query)
    assert [notice.code for notice in bob.heard("Notice")] == (["query_unknown"] if is_told else [])


def refresh(bob: Live, token: str) -> None:
    bob.send("gateway.refresh", control_pb2.Refresh(token=token))


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (token_of("alice"), 4500),
        (token_of("bob", "beta"), 4500),
        (token_of()[:-2], 4500),
        ("", 4500),
        (token_of(ttl=1, now=time.time() - 60), 0),
    ],
)
async def test_token_that_is_not_taken_ends_the_connection_unless_it_is_only_late(
    process: Process, token: str, code: int
) -> None:
    bob = await process.connect()
    refresh(bob, token)
    assert [nack.code for nack in bob.heard("Nack")] == ["token_invalid"]
    assert bob.close_code == code


async def test_answer_to_a_new_token_says_when_it_ends(process: Process) -> None:
    bob = await process.connect(token_of(ttl=60))
    issued = int(time.time())
    refresh(bob, token_of(ttl=600, now=issued))
    [policy] = bob.heard("Policy")
    assert policy.token_expires_at_ms == (issued + 600) * 1000
    assert abs(policy.server_time_ms - time.time() * 1000) < 60_000


async def test_refreshes_with_an_unknown_key_make_the_process_look_once(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    monkeypatch.setattr(process.runtime.directory, "look_at_everything", lambda: looks.append(time.monotonic()))
    bobs = [await process.connect(query=f"stream=s{number}") for number in range(2)]
    for _ in range(50):
        for bob in bobs:
            refresh(bob, token_of(api_key="revoked"))
    assert len(looks) == 1
    codes = [nack.code for nack in bobs[0].heard("Nack")]
    assert (codes.count("token_invalid"), codes.count("rate_limited")) == (3, 47)
    process.runtime._looked_at -= 3.0
    bobs[1].connection.session._controls = None
    refresh(bobs[1], token_of(api_key="revoked"))
    assert (len(looks), bobs[1].close_code) == (2, 0)


@pytest.mark.parametrize(("verdict", "code"), [(CloseCode.SLOW_CONSUMER, 4001), (CloseCode.IDLE_TIMEOUT, 4002)])
async def test_unresponsive_client_is_ended_with_a_hint(process: Process, verdict: CloseCode, code: int) -> None:
    bob, alice = await process.connect(), await process.connect(token_of("alice"))
    bob.peer.verdict = verdict
    process.runtime.sweep(time.monotonic())
    assert (bob.close_code, alice.close_code) == (code, 0)
    [told] = bob.heard("Disconnect")
    assert (told.reconnect, told.retry_after_ms, told.jitter_ms) == (True, 1_000, 2_000)


async def test_client_that_offers_no_form_of_ours_is_told_which(process: Process) -> None:
    bob = await process.connect(subprotocols=["mqtt"])
    [told] = bob.heard("Disconnect")
    assert (bob.close_code, told.reconnect) == (4507, False)
    assert "gateway.v1.protobuf" in told.reason


# --- Whatever fails at the beginning ----------------------------------------------------------------------------------


def traces(process: Process) -> dict[str, Any]:
    """All that a connection leaves in a process."""
    registry = process.runtime.registry
    return {
        "connections": len(registry.connections),
        "tokens": len(registry.tokens),
        "carriers": len(registry.carriers),
        "carried": [entry.connection for entry in registry.streams.values() if entry.connection is not None],
        "held": (registry.held_by_user("bob"), registry.held_by_company("alpha")),
        "reserved": sum(entry.reserved for entry in registry.users.values()),
        "live": set(process.fleet.live._opened),
        "followed": process.runtime.samples()[0],
    }


FAILS_AT = [
    "streaming.core.voice.Voice.welcome",
    "streaming.core.session.Session.__init__",
    "streaming.carriers.Carriers.position",
    "streaming.carriers.Carriers.settle",
    "streaming.fleet.Fleet.opened",
    "streaming.cluster.live.LiveList.opened",
    "streaming.cutoff.Cutoff.adopt",
    "streaming.cutoff.Cutoff.check_new",
    "streaming.taps.Taps.attach",
    "streaming.positions.PositionStore.claim",
]


@pytest.mark.parametrize("place", FAILS_AT)
async def test_whatever_fails_at_the_beginning_of_a_connection_leaves_nothing_behind(
    process: Process, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    before = traces(process)
    with monkeypatch.context() as patch:
        patch.setattr(place, lambda *_, **__: 1 / 0)
        for _ in range(3):
            if place.endswith("claim"):
                with pytest.raises(ZeroDivisionError):
                    await process.ask(upgrade(token_of(), query="stream=s1"))
            else:
                answer = await process.ask(upgrade(token_of(), query="stream=s1"))
                assert answer.is_accepted
                assert answer.events[-1] == {"type": "websocket.close", "code": 1011, "reason": ""}
    assert traces(process) == before
    # Bob has all his places.
    bobs = [await process.connect(query=f"stream=s{number}") for number in range(BOB.connection_limit)]
    assert [bob.close_code for bob in bobs] == [0] * BOB.connection_limit


# --- Changes of access ------------------------------------------------------------------------------------------------


async def test_new_limits_reach_every_connection_of_the_user(
    process: Process, tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await process.connect(), await process.connect(query="stream=s2")
    alice = await process.connect(token_of("alice"))
    tenants.change("bob", message_rate_limit=2.0, active_pairs=frozenset({"GBPUSD"}))
    await process.poll()
    for bob in (first, second):
        [policy] = bob.heard("Policy")
        assert (policy.message_rate_limit, list(policy.active_pairs)) == (2.0, ["GBPUSD"])
    # Of the same company, and nothing is different for her.
    assert (alice.heard("Policy"), alice.connection.session.policy.version) == ([], 4)
    # All at one moment: nothing flows in between.
    Clock(monkeypatch, shell_cast)
    for sequence in (1, 2, 3):
        first.send("user_event", signal(), sequence=sequence)
    assert [nack.code for nack in first.heard("Nack")][-1] == "rate_limited"
    await process.poll()
    assert len(first.heard("Policy")) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"refusal": "user_disabled"}, 4504),
        ({"refusal": "company_suspended"}, 4503),
        ({"refusal": "payment_required"}, 4502),
    ],
)
async def test_user_who_may_no_longer_stream_is_cut_off(
    process: Process, tenants: Tenants, change: dict[str, Any], code: int
) -> None:
    bobs = [await process.connect(query=f"stream=s{n}") for n in range(2)]
    alice = await process.connect(token_of("alice"))
    tenants.change("bob", **change)
    await process.poll()
    assert ([bob.close_code for bob in bobs], alice.close_code) == ([code, code], 0)
    [told] = bobs[0].heard("Disconnect")
    assert (told.code, told.reconnect) == (code, False)


async def test_user_who_is_deleted_is_cut_off(process: Process, tenants: Tenants) -> None:
    bob = await process.connect()
    tenants.change("alice")
    del tenants.users["bob"]
    await process.poll()
    assert bob.close_code == 4504


async def test_user_who_has_moved_to_another_company_needs_a_new_token(process: Process, tenants: Tenants) -> None:
    bob = await process.connect()
    tenants.change("alice")
    tenants.users["bob"] = dataclasses.replace(BOB, company_id="beta")
    await process.poll()
    assert bob.close_code == 4501


@pytest.mark.parametrize(("late", "code"), [(-0.5, 0), (0.5, 4502)])
async def test_connection_ends_when_the_paid_time_is_over(
    process: Process, tenants: Tenants, late: float, code: int
) -> None:
    until = time.time() + 60
    tenants.change("bob", access_until=until)
    bob = await process.connect()
    process.runtime.sweep(time.monotonic() + until - time.time() + late)
    assert bob.close_code == code


async def test_payment_moves_the_end(process: Process, tenants: Tenants) -> None:
    tenants.change("bob", access_until=time.time() + 60)
    bob = await process.connect()
    tenants.change("bob", access_until=time.time() + 3_600)
    await process.poll()
    process.runtime.sweep(time.monotonic() + 100)
    assert bob.close_code == 0


async def test_revoked_token_ends_its_connections_and_no_other(process: Process, tenants: Tenants) -> None:
    token = token_of()
    one, same = await process.connect(token), await process.connect(token, query="stream=s2")
    alice = await process.connect(token_of("alice"))
    tenants.revoke(one.connection.jti)
    await process.poll()
    assert (one.close_code, same.close_code, alice.close_code) == (4501, 4501, 0)
    with pytest.raises(RefreshRefused):
        process.runtime.refresh(alice.connection.session, token)


async def test_token_revoked_during_its_handshake_gets_no_connection(
    process: Process, tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = token_of()

    async def claim(_key: object) -> Claim:
        # What takes time between the check of the token and accept.
        tenants.revoke(process.runtime.desk.verify(token).jti)
        await process.poll()
        return Claim(1)

    monkeypatch.setattr(process.runtime.positions, "claim", claim)
    bob = await process.connect(token)
    assert process.runtime.directory.is_revoked(bob.connection.jti)
    assert bob.close_code == 4501


# --- Drain ------------------------------------------------------------------------------------------------------------


async def test_drain_waits_for_kafka_then_closes_with_a_hint(process: Process) -> None:
    bobs = [await process.connect(query=f"stream=s{n}") for n in range(2)]
    for sequence in (1, 2, 3):
        bobs[0].send(sequence=sequence)
    draining = asyncio.create_task(process.runtime.drain())
    while not bobs[1].close_code:
        await asyncio.sleep(0.001)
    assert (bobs[0].close_code, bobs[0].peer.is_paused) == (0, True)
    process.sink.deliver()
    while not bobs[0].close_code:
        await asyncio.sleep(0.001)
    for bob in bobs:
        assert bob.close_code == 1012
        [told] = bob.heard("Disconnect")
        assert (told.reconnect, told.retry_after_ms, told.jitter_ms) == (True, 500, 1_000)
        bob.leave()
    assert bobs[0].acks() == [3]
    await draining
    assert process.runtime.problems() == ["draining"]


async def test_drain_ends_in_time_when_kafka_does_not_answer(process: Process) -> None:
    bob = await process.connect()
    bob.send(sequence=1)
    await process.runtime.drain()
    assert (bob.close_code, bob.acks()) == (1012, [])


async def test_terminal_let_in_before_the_drain_that_opens_during_it_is_sent_on(process: Process) -> None:
    admission = await process.runtime.desk.admit(Handshake.from_scope(upgrade(token_of())))
    draining, peer = asyncio.create_task(process.runtime.drain()), ShellPeer()
    await turns()
    process.runtime.open(admission, peer, None)
    await draining
    assert peer.closed is not None and peer.closed[0] == 1012
