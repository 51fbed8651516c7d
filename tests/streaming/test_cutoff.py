"""Changes of access and abuse arrive at live connections, whichever way they come, and end those they concern."""

import dataclasses
import math
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from proto.gateway.v1 import control_pb2
from streaming import cutoff, fleet
from streaming.admission import AdmissionRefused, Handshake
from streaming.core.breaker import FLOOD_FACTOR, WINDOW
from tests.streaming import shell_cast
from tests.streaming.cluster.cast import until
from tests.streaming.core.cast import ticks
from tests.streaming.shell_cast import BOB, LIMITS, Clock, Live, Process, ShellPeer, Tenants, token_of, upgrade
from tests.support.valkey import Valkey

MakeProcess = Callable[..., Process]
# More than one connection fits, so that what ends one and leaves another can be seen.
ROOMY = dataclasses.replace(BOB, connection_limit=10)


@pytest.fixture
async def make_process(tenants: Tenants) -> AsyncIterator[MakeProcess]:
    tenants.users["bob"] = ROOMY
    made: list[Process] = []

    def make(**options: Any) -> Process:
        made.append(Process(tenants, limits=dataclasses.replace(LIMITS, ack_interval=600.0), **options))
        return made[-1]

    yield make
    for process in made:
        await process.runtime.stop()


@pytest.fixture
async def process(make_process: MakeProcess) -> Process:
    return make_process()


@pytest.fixture
async def pair(
    make_process: MakeProcess, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> tuple[Process, Process]:
    """Two processes at work on one Valkey; the names decide whose surplus connections end."""
    monkeypatch.setattr(fleet, "_SYNC_INTERVAL", 0.1)
    two = [make_process(redis_url=own_valkey.url, process_id=name) for name in ("a", "b")]
    for process in two:
        process.fleet.start()
    await until(lambda: all(process.fleet._news._listener.is_connected for process in two))
    return two[0], two[1]


async def bring(process: Process, way: str, tenants: Tenants) -> None:
    """Brings the change of Alpha to the process: by the poll, by fast news, or by the events of Kafka."""
    if way == "poll":
        await process.poll()
        return
    version = max(access.access_version for access in tenants.users.values())
    process.fleet._news.heard({"kind": "access", "company_id": "alpha", "version": version})
    await process.follow()


async def connect(process: Process, number: int = 2, **options: Any) -> list[Live]:
    return [await process.connect(query=f"stream=s{n}", **options) for n in range(number)]


async def synced(*processes: Process) -> None:
    """Each has told and heard the numbers that were there when this was called."""
    wanted = [process.fleet._syncs + 2 for process in processes]
    await until(lambda: all(p.fleet._syncs >= n for p, n in zip(processes, wanted, strict=True)), seconds=15.0)


def codes(*connections: Live) -> list[int]:
    return [one.close_code for one in connections]


# --- Access -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["poll", "news"])
@pytest.mark.parametrize(
    ("refusal", "code"), [("user_disabled", 4504), ("company_suspended", 4503), ("payment_required", 4502)]
)
async def test_user_who_may_no_longer_stream_is_cut_off_whichever_way_it_is_told(
    process: Process, tenants: Tenants, way: str, refusal: str, code: int
) -> None:
    bobs, alice = await connect(process), await process.connect(token_of("alice"))
    tenants.change("bob", refusal=refusal)
    await bring(process, way, tenants)
    assert codes(*bobs, alice) == [code, code, 0]
    [told] = bobs[0].heard("Disconnect")
    assert (told.code, told.reconnect, bool(told.reason)) == (code, False, True)
    # Once: what comes later changes nothing.
    await process.poll()
    assert len(bobs[0].heard("Disconnect")) == 1


@pytest.mark.parametrize("way", ["poll", "news"])
@pytest.mark.parametrize("left", [{}, {"other": math.inf}, {"vps": 1_000_000_000.0}], ids=["gone", "other", "expired"])
async def test_connection_of_a_revoked_or_expired_key_ends_and_no_other(
    process: Process, tenants: Tenants, way: str, left: dict[str, float]
) -> None:
    tenants.change("bob", api_keys={"vps": math.inf})
    by_key = await process.connect(token_of(api_key="vps"))
    by_token = await process.connect(query="stream=s2")
    tenants.change("bob", api_keys=left)
    await bring(process, way, tenants)
    assert codes(by_key, by_token) == [4501, 0]
    assert "API key" in by_key.heard("Disconnect")[0].reason


async def test_connection_of_a_key_that_is_still_good_goes_on(process: Process, tenants: Tenants) -> None:
    tenants.change("bob", api_keys={"vps": time.time() + 600, "old": math.inf})
    by_key = await process.connect(token_of(api_key="vps"))
    tenants.change("bob", api_keys={"vps": time.time() + 600})
    await process.poll()
    assert codes(by_key) == [0]


async def test_token_of_a_revoked_key_moves_no_deadline_and_a_new_key_s_does(
    process: Process, tenants: Tenants
) -> None:
    tenants.change("bob", api_keys={"old": math.inf})
    bob = await process.connect(token_of(api_key="old", ttl=60))
    tenants.change("bob", api_keys={"old": math.inf, "new": math.inf})
    token = token_of(api_key="new", ttl=600)
    bob.send("gateway.refresh", control_pb2.Refresh(token=token))
    assert [nack.code for nack in bob.heard("Nack")] == ["token_invalid"]
    assert codes(bob) == [0]
    # The process has looked meanwhile.
    await process.follow()
    bob.send("gateway.refresh", control_pb2.Refresh(token=token))
    process.runtime.sweep(time.monotonic() + 500)
    assert (codes(bob), len(bob.heard("Nack"))) == ([0], 1)


@pytest.mark.parametrize("way", ["poll", "news"])
async def test_connection_for_an_account_that_was_removed_ends_and_no_other(
    process: Process, tenants: Tenants, way: str
) -> None:
    tenants.change("bob", accounts=frozenset({"1001", "1002"}))
    first = await process.connect(query="stream=s1&account=1001")
    second = await process.connect(query="stream=s2&account=1002")
    unnamed = await process.connect(query="stream=s3")
    tenants.change("bob", accounts=frozenset({"1001"}))
    await bring(process, way, tenants)
    assert codes(first, second, unnamed) == [0, 4506, 0]


async def test_answer_of_the_database_that_was_overtaken_changes_nothing(process: Process, tenants: Tenants) -> None:
    [bob, _] = await connect(process)
    tenants.change("bob", message_rate_limit=20.0, monthly_data_limit=1_000, refusal="payment_required")
    overtaken = tenants.users["bob"]
    tenants.change("bob", message_rate_limit=80.0, monthly_data_limit=2_000, refusal="")
    await process.poll()
    # Two looks may be under way at once, the poll's and that of news.
    process.fleet.cutoff.access_changed("bob", overtaken)
    entry = bob.connection.entry
    assert (entry.rate_limit, entry.company.monthly_data_limit) == (80.0, 2_000)
    assert codes(bob) == [0]
    tenants.change("bob", message_rate_limit=30.0)
    await process.poll()
    assert entry.rate_limit == 30.0


async def test_revoked_token_that_was_exchanged_before_ends_nothing(process: Process, tenants: Tenants) -> None:
    old, new = token_of(), token_of()
    bob = await process.connect(old)
    bob.send("gateway.refresh", control_pb2.Refresh(token=new))
    for token, code in ((old, 0), (new, 4501)):
        jti = process.runtime.desk.verify(token).jti
        process.fleet._news.heard({"kind": "token", "jti": jti, "expires_at": time.time() + 600})
        assert codes(bob) == [code]


@pytest.mark.parametrize("way", ["poll", "news"])
async def test_user_moved_to_another_company_is_cut_off_though_a_new_connection_is_there_already(
    process: Process, tenants: Tenants, way: str
) -> None:
    [before, _] = await connect(process)
    moved = dataclasses.replace(tenants.users["bob"], company_id="beta")
    tenants.change("alice")
    tenants.users["bob"] = moved
    # Whoever connects is looked up anew after a while.
    process.fleet.directory._cache.clear()
    since = await process.connect(token_of("bob", "beta"), query="stream=s9")
    await bring(process, way, tenants)
    assert codes(before, since) == [4501, 0]


async def test_token_revoked_by_news_ends_its_connections_once_and_no_other(process: Process, tenants: Tenants) -> None:
    token = token_of()
    one, same = await connect(process, token=token)
    other = await process.connect(query="stream=s9")
    tenants.revoke(one.connection.jti)
    process.fleet._news.heard({"kind": "token", "jti": one.connection.jti, "expires_at": time.time() + 600})
    assert codes(one, same, other) == [4501, 4501, 0]
    await process.poll()
    assert len(one.heard("Disconnect")) == 1
    with pytest.raises(AdmissionRefused, match="token_revoked"):
        await process.connect(token)


@pytest.mark.parametrize("way", ["poll", "news"])
async def test_removed_pair_is_told_and_holds_for_the_next_message(
    process: Process, tenants: Tenants, way: str
) -> None:
    [bob, _] = await connect(process)
    bob.send(payload=ticks("XAUUSD"), sequence=1)
    tenants.change("bob", active_pairs=frozenset({"EURUSD"}))
    await bring(process, way, tenants)
    bob.send(payload=ticks("XAUUSD"), sequence=2)
    bob.send(payload=ticks("EURUSD"), sequence=3)
    [policy] = bob.heard("Policy")
    assert (list(policy.active_pairs), policy.version) == (["EURUSD"], 4)
    assert [(nack.sequence, nack.code) for nack in bob.heard("Nack")] == [(2, "pair_not_active")]


@pytest.mark.parametrize("way", ["poll", "news"])
async def test_change_that_leaves_the_user_as_before_is_not_told(process: Process, tenants: Tenants, way: str) -> None:
    bobs = await connect(process)
    tenants.change("alice", message_rate_limit=1.0)
    await bring(process, way, tenants)
    assert [bob.heard("Policy") for bob in bobs] == [[], []]
    # It is noted all the same: the next look has nothing to do.
    assert [bob.connection.session.policy.version for bob in bobs] == [4, 4]
    before = len(tenants.visits)
    await process.poll()
    assert len(tenants.visits) == before


async def test_lower_rate_holds_at_once_for_all_connections_of_the_user(
    process: Process, tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await connect(process)
    tenants.change("bob", message_rate_limit=2.0)
    await process.poll()
    # All at one moment: nothing flows in between.
    Clock(monkeypatch, shell_cast)
    for one in (first, second, first, second):
        one.send()
    assert [nack.code for one in (first, second) for nack in one.heard("Nack")] == ["rate_limited"] * 2


@pytest.mark.parametrize("has_redis", [True, False])
async def test_connections_above_a_lowered_limit_end_after_the_patience_newest_first(
    make_process: MakeProcess, tenants: Tenants, valkey: Valkey, monkeypatch: pytest.MonkeyPatch, has_redis: bool
) -> None:
    clock = Clock(monkeypatch, cutoff)
    user = f"lowered-{has_redis}"
    tenants.users[user] = dataclasses.replace(ROOMY, user_id=user)
    process = make_process(redis_url=valkey.url if has_redis else "")
    lives = await connect(process, 4, token=token_of(user))
    for number, one in enumerate(lives):
        one.connection.opened_at = 1_000.0 + number
    tenants.change(user, connection_limit=2)
    await process.poll()
    await process.fleet.places.sync()
    clock.elapsed = cutoff._SURPLUS_PATIENCE - 0.1
    await process.fleet.places.sync()
    assert codes(*lives) == [0] * 4
    clock.elapsed = cutoff._SURPLUS_PATIENCE
    await process.fleet.places.sync()
    assert codes(*lives) == [0, 0, 4505, 4505]
    assert "2 connections" in lives[3].heard("Disconnect")[0].reason


async def test_limit_that_is_raised_again_within_the_patience_ends_nothing(
    make_process: MakeProcess, tenants: Tenants, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, cutoff)
    tenants.users["raised"] = dataclasses.replace(ROOMY, user_id="raised")
    process = make_process(redis_url=valkey.url)
    lives = await connect(process, 3, token=token_of("raised"))
    tenants.change("raised", connection_limit=1)
    await process.poll()
    await process.fleet.places.sync()
    tenants.change("raised", connection_limit=3)
    await process.poll()
    await process.fleet.places.sync()
    clock.elapsed = cutoff._SURPLUS_PATIENCE
    await process.fleet.places.sync()
    assert codes(*lives) == [0, 0, 0]
    assert process.fleet.cutoff._surplus == {}


async def test_surplus_over_two_processes_ends_in_the_one_that_comes_last_by_name(
    pair: tuple[Process, Process], tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, cutoff)
    first, second = pair
    here = await connect(first)
    there = [await second.connect(query=f"stream=t{n}") for n in range(2)]
    there[0].connection.opened_at, there[1].connection.opened_at = 1_000.0, 2_000.0
    tenants.change("bob", connection_limit=3)
    for process in pair:
        await process.poll()
    await until(lambda: bool(second.fleet.cutoff._surplus), seconds=15.0)
    clock.elapsed = cutoff._SURPLUS_PATIENCE
    await until(lambda: there[1].close_code != 0, seconds=15.0)
    there[1].leave()
    for _ in range(2):
        await synced(*pair)
        clock.elapsed += cutoff._SURPLUS_PATIENCE
    await synced(*pair)
    assert codes(*here, *there) == [0, 0, 0, 4505]


# --- Kicks ------------------------------------------------------------------------------------------------------------


async def test_kick_of_one_connection_ends_it_with_a_hint_to_come_back(process: Process, tenants: Tenants) -> None:
    one, other = await connect(process)
    tenants.kick("bob", one.connection.session.session_id)
    await process.poll()
    assert codes(one, other) == [4006, 0]
    [told] = one.heard("Disconnect")
    assert (told.reconnect, told.retry_after_ms, told.jitter_ms) == (True, 5_000, 5_000)
    await process.connect(query="stream=s0")


async def test_kick_of_all_ends_those_opened_before_and_none_opened_since(process: Process, tenants: Tenants) -> None:
    before, alice = await connect(process), await process.connect(token_of("alice"))
    row, _, _, at = tenants.kick("bob")
    since = await process.connect(query="stream=s9")
    assert since.connection.opened_at >= at
    news = {"kind": "kick", "id": row, "user_id": "bob", "session_id": "", "at": at}
    process.fleet._news.heard(news)
    assert codes(*before, alice, since) == [4006, 4006, 0, 0]
    process.fleet._news.heard(news)
    await process.poll()
    assert codes(since) == [0]
    assert len(before[0].heard("Disconnect")) == 1


# --- Bans -------------------------------------------------------------------------------------------------------------


def note(user_id: str = "bob", reason: str = "errors", seconds: float = 60.0) -> dict[str, Any]:
    now = time.time()
    return {"kind": "ban", "user_id": user_id, "reason": reason, "starts_at": now, "until": now + seconds, "repeat": 1}


@pytest.mark.parametrize(("reason", "code"), [("errors", 4005), ("flooding", 4004), ("operator", 4005), ("new", 4005)])
async def test_user_banned_by_another_process_is_cut_off_here_and_stays_out(
    process: Process, reason: str, code: int
) -> None:
    bobs, alice = await connect(process), await process.connect(token_of("alice"))
    process.fleet._news.heard(note(reason=reason))
    assert codes(*bobs, alice) == [code, code, 0]
    [told] = bobs[0].heard("Disconnect")
    assert told.reconnect and 55_000 < told.retry_after_ms <= 60_000
    assert 0 < told.jitter_ms <= 12_000
    with pytest.raises(AdmissionRefused) as refused:
        await process.connect()
    assert (refused.value.status, refused.value.code) == (429, "banned")
    assert 55 < refused.value.retry_after <= 60


async def test_user_is_let_in_again_as_soon_as_the_ban_is_lifted(process: Process) -> None:
    process.fleet._news.heard(note())
    process.fleet._news.heard({"kind": "unban", "user_id": "bob", "at": time.time()})
    await process.connect()


async def test_ban_in_the_database_ends_connections_and_keeps_the_user_out(process: Process, tenants: Tenants) -> None:
    [bob, _] = await connect(process)
    tenants.change("bob", banned_until=time.time() + 60)
    await process.poll()
    assert codes(bob) == [4005]
    with pytest.raises(AdmissionRefused, match="banned"):
        await process.connect()


async def test_user_banned_during_the_handshake_gets_no_connection(process: Process) -> None:
    admission = await process.runtime.desk.admit(Handshake.from_scope(upgrade(token_of())))
    process.fleet._news.heard(note())
    peer = ShellPeer()
    process.runtime.open(admission, peer, None)
    assert peer.closed is not None and peer.closed[0] == 4005


async def test_change_during_the_handshake_is_looked_at_again(process: Process, tenants: Tenants) -> None:
    admission = await process.runtime.desk.admit(Handshake.from_scope(upgrade(token_of())))
    await process.connect(token_of("alice"))
    tenants.change("bob", refusal="user_disabled")
    await process.poll()
    peer = ShellPeer()
    process.runtime.open(admission, peer, None)
    await process.follow()
    assert peer.closed is not None and peer.closed[0] == 4504


# --- Abuse ------------------------------------------------------------------------------------------------------------


async def test_user_who_sends_nothing_valid_is_let_go_on_all_connections_and_banned(
    process: Process, tenants: Tenants
) -> None:
    bobs, alice = await connect(process), await process.connect(token_of("alice"))
    with capture_logs() as logs:
        for number in range(20):
            bobs[number % 2].send("nonsense")
    assert codes(*bobs, alice) == [4005, 4005, 0]
    [entry] = [entry for entry in logs if entry["event"] == "user_banned"]
    assert (entry["user_id"], entry["reason"], entry["messages"], entry["errors"]) == ("bob", "errors", 20, 20)
    await until(lambda: len(tenants.bans) == 1)
    with pytest.raises(AdmissionRefused, match="banned"):
        await process.connect()


async def test_each_ban_of_a_day_is_longer_than_the_one_before(process: Process, tenants: Tenants) -> None:
    tenants.change("bob", message_rate_limit=1_000.0)
    lengths = []
    for repeat in (1, 2, 3):
        bob = await process.connect()
        for _ in range(20):
            bob.send("nonsense")
        await until(lambda repeat=repeat: len(tenants.bans) == repeat)  # type: ignore[misc]
        bob.leave()
        lengths.append(tenants.bans[-1][3] - tenants.bans[-1][2])
        process.fleet.cutoff.heard_unban("bob", time.time())
        tenants.change("bob", banned_until=0.0, source_bans=())
        await process.poll()
    assert [row[4] for row in tenants.bans] == [1, 2, 3]
    assert lengths[0] < lengths[1] < lengths[2]


async def test_mostly_invalid_messages_are_found_by_the_look_once_a_second(process: Process) -> None:
    [bob, alice] = [await process.connect(), await process.connect(token_of("alice"))]
    conduct = bob.connection.session.conduct
    conduct.messages, conduct.errors = 1_000, 510
    alice.connection.session.conduct.messages = 1_000
    now = time.monotonic()
    for second in range(6):
        assert codes(bob) == [0]
        process.fleet.cutoff.judge(now + second)
    assert codes(bob, alice) == [4005, 0]


@pytest.mark.parametrize(("above", "code"), [(0, 0), (1, 4004)])
async def test_flooding_user_is_let_go(process: Process, above: int, code: int) -> None:
    [bob, alice] = [await process.connect(), await process.connect(token_of("alice"))]
    beyond = int(FLOOD_FACTOR * BOB.message_rate_limit * WINDOW) + above
    conduct = bob.connection.session.conduct
    conduct.messages, conduct.over_rate = beyond + 100, beyond
    process.fleet.cutoff.judge(time.monotonic())
    assert codes(bob, alice) == [code, 0]


@pytest.mark.parametrize(("above", "code"), [(0, 0), (1, 4004)])
async def test_flood_that_is_spread_over_two_processes_is_found_by_each_in_its_part(
    process: Process, above: int, code: int
) -> None:
    bob = await process.connect()
    process.fleet.places.process_count = 2
    bob.connection.entry.mirror.part = 0.6
    beyond = int(FLOOD_FACTOR * BOB.message_rate_limit * 0.6 * WINDOW) + above
    conduct = bob.connection.session.conduct
    conduct.messages, conduct.over_rate = beyond + 100, beyond
    process.fleet.cutoff.judge(time.monotonic())
    assert codes(bob) == [code]


@pytest.mark.parametrize("part", [0.0, 0.001])
async def test_user_whose_rate_is_used_up_elsewhere_is_answered_and_is_no_flooder(
    process: Process, part: float
) -> None:
    bob = await process.connect()
    process.fleet.places.process_count = 2
    bob.connection.entry.mirror.part = part
    bob.connection.entry.bucket.charge(10_000.0)
    for sequence in range(1, 101):
        bob.send(sequence=sequence)
    nacks = bob.heard("Nack")
    assert {nack.code for nack in nacks} == {"rate_limited"}
    assert len(nacks) == 100 and min(nack.retry_after_ms for nack in nacks) > 0
    for second in range(3):
        process.fleet.cutoff.judge(time.monotonic() + second)
    assert codes(bob) == [0]


async def test_user_let_go_by_one_process_is_let_go_by_all_and_stays_out_of_all(
    pair: tuple[Process, Process], tenants: Tenants
) -> None:
    first, second = pair
    here, there = await first.connect(), await second.connect(query="stream=s2")
    alice = await second.connect(token_of("alice"))
    for _ in range(20):
        here.send("nonsense")
    assert codes(here) == [4005]
    await until(lambda: there.close_code != 0)
    assert codes(there, alice) == [4005, 0]
    for process in pair:
        with pytest.raises(AdmissionRefused, match="banned"):
            await process.connect(query="stream=s3")
    await until(lambda: bool(tenants.bans))
    # Both write down what they know and the database does not have.
    for process in pair:
        await process.fleet.bans.write_down()
    assert len(tenants.bans) == 1


async def test_process_that_starts_after_the_ban_keeps_the_user_out_by_what_valkey_has(
    make_process: MakeProcess, tenants: Tenants, own_valkey: Valkey
) -> None:
    first = make_process(redis_url=own_valkey.url)
    bob = await first.connect()
    # The database hears nothing of it.
    tenants.is_down = True
    for _ in range(20):
        bob.send("nonsense")
    await until(lambda: not first.fleet.cutoff._tasks)
    tenants.is_down = False
    second = make_process(redis_url=own_valkey.url)
    with pytest.raises(AdmissionRefused, match="banned"):
        await second.connect()
    # The place that was taken while Valkey was asked is given back.
    assert second.runtime.registry.held_by_user("bob") == 0


# --- Nobody -----------------------------------------------------------------------------------------------------------


async def test_news_of_a_user_who_is_not_here_changes_nothing(process: Process) -> None:
    bob = await process.connect()
    center = process.fleet.cutoff
    center.access_changed("nobody", None)
    center.access_changed("nobody", dataclasses.replace(BOB, user_id="nobody"))
    center.kicked("nobody", "", time.time())
    center.heard_unban("nobody", time.time())
    center.tokens_revoked(["unknown"])
    center.others("nobody", {"b": 9}, "a")
    process.fleet._news.heard(note("nobody"))
    assert codes(bob) == [0]
    assert "nobody" not in process.runtime.registry.users
