"""What a process remembers of users and streams, and for how long."""

import dataclasses

import pytest

from streaming.core.context import SessionContext
from streaming.core.policy import ConnectionLimits, UserPolicy
from streaming.core.replies import FORMS, PROTOBUF
from streaming.core.routing import build_routes
from streaming.core.session import Session
from streaming.core.stream import StreamPosition
from streaming.registry import Connection, Registry, StreamKey
from streaming.sinks.memory import MemorySink
from tests.streaming.core.cast import BOB, ROUTES
from tests.streaming.shell_cast import ShellPeer

ALICE = dataclasses.replace(BOB, user_id="alice")
CONTEXT = SessionContext(
    routes=build_routes(ROUTES),
    failed_topic="failed-messages",
    sink=MemorySink(lambda _: None, lambda _batch, _reason: None),
    limits=ConnectionLimits(),
    schedule_ack=lambda _session, _urgent: None,
    on_abuse=lambda _session: None,
    refresh=lambda _session, _token: None,
)


@pytest.fixture
def registry() -> Registry:
    return Registry(connect_rate_limit=2.0)


def join(
    registry: Registry, name: str, *, stream: str = "", policy: UserPolicy = BOB, now: float = 0.0, fence: int = 0
) -> Connection:
    """A new connection, registered."""
    entry = registry.user(policy, now)
    entry.reserve()
    key: StreamKey | None = (policy.user_id, stream, "") if stream else None
    position = registry.stream(key).position if key is not None else None
    peer = ShellPeer()
    session = Session(
        CONTEXT,
        session_id=name,
        policy=policy,
        bucket=entry.bucket,
        conduct=entry.conduct.of("", 0.0),
        volume=entry.company.volume,
        peer=peer,
        form=FORMS[PROTOBUF],
        stream_id=stream,
        position=position,
    )
    connection = Connection(session, peer, f"jti-{name}", 1e9, 1e9, key, entry, fence=fence)
    registry.add(connection)
    return connection


def test_connections_are_held_by_their_users(registry: Registry) -> None:
    first, second, other = join(registry, "1"), join(registry, "2"), join(registry, "3", policy=ALICE)
    assert registry.users["bob"].connections == {first, second}
    assert registry.users["alice"].connections == {other}
    registry.remove(first, 1.0)
    assert (registry.users["bob"].held, registry.users["alice"].held) == (1, 1)
    assert registry.connections == {"2": second, "3": other}


def test_reserved_place_counts_as_held(registry: Registry) -> None:
    join(registry, "1")
    registry.users["bob"].reserve()
    assert (registry.held_by_user("bob"), registry.held_by_company("alpha")) == (2, 2)
    registry.users["bob"].release()
    assert (registry.held_by_user("bob"), registry.held_by_company("alpha")) == (1, 1)


def test_all_connections_of_a_user_share_one_bucket(registry: Registry) -> None:
    first, second, other = join(registry, "1"), join(registry, "2"), join(registry, "3", policy=ALICE)
    assert first.session.bucket is second.session.bucket
    assert first.session.bucket is not other.session.bucket
    taken = [bucket.take(0.0) for _ in range(26) for bucket in (first.session.bucket, second.session.bucket)]
    assert taken == [True] * 50 + [False] * 2
    assert other.session.bucket.take(0.0)


def test_reconnect_of_a_user_is_no_free_burst(registry: Registry) -> None:
    first = join(registry, "1")
    assert [first.session.bucket.take(0.0) for _ in range(50)] == [True] * 50
    registry.remove(first, 0.0)
    registry.forget_idle(1.0)
    again = join(registry, "2")
    assert not again.session.bucket.take(0.0)


def test_bucket_follows_the_rate_of_a_new_plan(registry: Registry) -> None:
    first = join(registry, "1")
    second = join(registry, "2", policy=dataclasses.replace(BOB, message_rate_limit=2.0))
    assert second.session.bucket is first.session.bucket
    assert [first.session.bucket.take(0.0) for _ in range(3)] == [True, True, False]


def test_stream_opened_anew_belongs_to_the_new_connection(registry: Registry) -> None:
    old = join(registry, "1", stream="s1")
    new = join(registry, "2", stream="s1")
    assert registry.streams["bob", "s1", ""].connection is new
    assert new.session.position is old.session.position
    registry.remove(old, 5.0)
    assert registry.streams["bob", "s1", ""].connection is new
    registry.remove(new, 6.0)
    assert registry.streams["bob", "s1", ""].connection is None


def test_users_with_the_same_stream_id_have_positions_of_their_own(registry: Registry) -> None:
    bob, alice = join(registry, "1", stream="s1"), join(registry, "2", stream="s1", policy=ALICE)
    assert bob.session.position is not alice.session.position
    assert registry.streams["bob", "s1", ""].connection is bob
    assert registry.streams["alice", "s1", ""].connection is alice


@pytest.mark.parametrize(("known", "stored", "acknowledged"), [(7, 9, 9), (9, 7, 9), (7, 7, 7)])
def test_stream_goes_on_from_the_larger_position(
    registry: Registry, known: int, stored: int, acknowledged: int
) -> None:
    registry.stream(("bob", "s1", ""), StreamPosition(known))
    position = registry.stream(("bob", "s1", ""), StreamPosition(stored)).position
    assert (position.acknowledged, position.expected) == (acknowledged, acknowledged + 1)


@pytest.mark.parametrize(("fence", "writer"), [(8, "~b"), (7, "~a"), (6, "~a")])
def test_stream_begun_anew_elsewhere_is_taken_over_from_a_later_connection_only(
    registry: Registry, fence: int, writer: str
) -> None:
    registry.stream(("bob", "s1", ""), StreamPosition(40, writer="~a")).fence = 7
    position = registry.stream(("bob", "s1", ""), StreamPosition(3, writer="~b"), fence).position
    assert (position.writer, position.acknowledged) == (writer, 3 if writer == "~b" else 40)


def test_connection_with_an_older_claim_does_not_take_the_stream_from_the_newer_one(registry: Registry) -> None:
    newer = join(registry, "1", stream="s1", fence=8)
    older = join(registry, "2", stream="s1", fence=7)
    assert registry.carriers == {("bob", "s1"): newer}
    registry.remove(older, 5.0)
    assert registry.streams["bob", "s1", ""].connection is newer
    registry.remove(newer, 6.0)
    assert (registry.carriers, registry.fence(("bob", "s1", ""))) == ({}, 8)


@pytest.mark.parametrize(("idle", "is_known"), [(120.0, True), (120.1, False)])
def test_idle_user_is_forgotten_in_time_and_not_before(registry: Registry, idle: float, is_known: bool) -> None:
    connection = join(registry, "1", now=500.0)
    registry.remove(connection, 1_000.0)
    registry.forget_idle(1_000.0 + idle)
    assert ("bob" in registry.users) == is_known


@pytest.mark.parametrize(("idle", "is_known"), [(600.0, True), (600.1, False)])
def test_idle_stream_is_forgotten_in_time_and_not_before(registry: Registry, idle: float, is_known: bool) -> None:
    registry.remove(join(registry, "1", stream="s1"), 1_000.0)
    registry.forget_idle(1_000.0 + idle)
    assert (("bob", "s1", "") in registry.streams) == is_known


def test_whoever_is_connected_or_connecting_is_never_forgotten(registry: Registry) -> None:
    join(registry, "1", stream="s1")
    registry.user(ALICE, 0.0).reserve()
    registry.forget_idle(1e9)
    assert set(registry.users) == {"bob", "alice"}
    assert set(registry.streams) == {("bob", "s1", "")}


@pytest.mark.parametrize(("idle", "is_known"), [(120.0, True), (120.1, False)])
def test_user_who_never_came_further_than_the_handshake_is_remembered_as_long(
    registry: Registry, idle: float, is_known: bool
) -> None:
    registry.user(BOB, 1_000.0)
    registry.forget_idle(1_000.0 + idle)
    assert ("bob" in registry.users) == is_known


def test_handshakes_that_break_off_do_not_renew_the_right_to_connect(registry: Registry) -> None:
    taken = []
    for second in range(1_000, 1_030):
        for _ in range(5):
            entry = registry.user(BOB, second)
            taken.append(entry.connects.take(second))
        registry.forget_idle(second)
    # Ten seconds' worth at once, then the rate.
    assert sum(taken) == 20 + 2 * 29


def test_connections_are_found_by_the_token_that_they_live_by_now(registry: Registry) -> None:
    first, second = join(registry, "1"), join(registry, "2")
    registry.change_token(second, first.jti)
    assert registry.tokens == {"jti-1": {first, second}}
    registry.change_token(first, "new")
    assert (registry.tokens, first.jti) == ({"jti-1": {second}, "new": {first}}, "new")
    for connection in (first, second):
        registry.remove(connection, 1.0)
    assert registry.tokens == {}


def test_handshake_by_what_is_outdated_changes_no_rate(registry: Registry) -> None:
    entry = join(registry, "1").entry
    entry.version, known = BOB.version, entry.rate_limit
    registry.user(dataclasses.replace(BOB, version=BOB.version - 1, message_rate_limit=1.0), 1.0)
    assert entry.rate_limit == known
    registry.user(dataclasses.replace(BOB, message_rate_limit=2.0), 1.0)
    assert entry.rate_limit == 2.0
