"""Who is let in, and what everybody else is told."""

import asyncio
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway_project.server import server_config
from streaming import admission
from streaming.admission import AdmissionRefused, Handshake
from tests.streaming.shell_cast import BOB, ORIGIN, Clock, Event, Process, Tenants, token_of, upgrade


@pytest.fixture
async def process(tenants: Tenants) -> Process:
    return Process(tenants)


async def refusal_of(process: Process, scope: Event) -> tuple[int, str]:
    """Status and code, of an answer that is well formed and tells nothing of any token."""
    with capture_logs() as logs:
        answer = await process.ask(scope)
    assert [event["type"] for event in answer.events] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.body
    assert set(body) == {"type", "title", "status", "detail", "code"}
    assert body["status"] == answer.status
    told = repr(answer.events) + repr(logs)
    for secret in secrets_of(scope):
        assert secret not in told
    assert ("www-authenticate" in answer.headers) == (answer.status == 401)
    waits = answer.headers.get("retry-after", "")
    assert (waits.isdecimal() and int(waits) >= 1) == (answer.status in (429, 503))
    assert not process.runtime.registry.connections
    assert process.runtime.metrics.connects_refused[(answer.status, body["code"])] == 1
    return answer.status, body["code"]


def secrets_of(scope: Event) -> list[str]:
    """Every part of every token of a request; the first part of a JWT is the same for all."""
    texts = [value.decode("latin-1") for _, value in scope["headers"]]
    texts += [*scope["subprotocols"], scope["query_string"].decode()]
    return [part for text in texts for part in text.split(".")[1:] if len(part) > 20]


@pytest.mark.parametrize(
    ("scope", "refusal"),
    [
        (upgrade(), (401, "token_missing")),
        (upgrade(query=f"token={token_of()}"), (401, "token_missing")),
        (upgrade(query=f"stream=s1&access_token={token_of()}"), (401, "token_missing")),
        (upgrade(subprotocols=["gateway.token."]), (401, "token_missing")),
        (upgrade(token_of()[:-2]), (401, "token_invalid")),
        (upgrade("x" * 4_097), (401, "token_invalid")),
        (upgrade(token_of("nobody")), (401, "token_invalid")),
        (upgrade(token_of("bob", "beta")), (401, "token_invalid")),
        (upgrade(headers=[(b"authorization", b"Basic Ym9iOmJvYg==")]), (401, "token_invalid")),
        (upgrade(headers=[(b"authorization", b"Bearer")]), (401, "token_invalid")),
        (upgrade(token_of(), headers=[(b"authorization", b"Bearer x")]), (401, "token_invalid")),
        (upgrade(token_of(), subprotocols=[f"gateway.token.{token_of()}"]), (401, "token_invalid")),
        (upgrade(token_of(ttl=60, now=time.time() - 61)), (401, "token_expired")),
        (upgrade(token_of(), origin="https://evil.example"), (403, "origin_not_allowed")),
        (upgrade(token_of(), origin=f"{ORIGIN}.evil.example"), (403, "origin_not_allowed")),
        (upgrade(token_of(), origin="null"), (403, "origin_not_allowed")),
        (upgrade(token_of(), query="stream=a/b"), (400, "stream_invalid")),
        (upgrade(token_of(), query=f"stream={'s' * 65}"), (400, "stream_invalid")),
        (upgrade(token_of(), query="stream=%D0%B0"), (400, "stream_invalid")),
        (upgrade(token_of(), query="&".join(["a=1"] * 21)), (400, "query_invalid")),
        *[
            (upgrade(token_of(), query=f"stream=s1&heard={heard}"), (400, "heard_invalid"))
            for heard in ("", "-1", "x", "1.0", "1e3", "+1", "%D9%A1", str(2**53), "9" * 5_000)
        ],
        *[
            (upgrade(token_of(), query=f"stream=s1&writer={writer}"), (400, "writer_invalid"))
            for writer in ("", "w" * 33, "a/b", "~c0ffee", "%D0%B0")
        ],
        (upgrade(token_of(), query="writer=w1"), (400, "writer_invalid")),
    ],
)
async def test_client_is_refused(process: Process, scope: Event, refusal: tuple[int, str]) -> None:
    assert await refusal_of(process, scope) == refusal


@pytest.mark.parametrize(
    "scope",
    [
        upgrade(token_of()),
        upgrade(token_of(), origin=ORIGIN),
        upgrade(token_of(), query=f"stream={'s' * 64}"),
        upgrade(token_of(), query="&".join(["a=1"] * 20)),
        upgrade(headers=[(b"authorization", f"bearer  {token_of()}".encode())]),
    ],
)
async def test_client_is_let_in(process: Process, scope: Event) -> None:
    assert (await process.ask(scope)).is_accepted


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"refusal": "user_disabled"}, (403, "user_disabled")),
        ({"refusal": "company_suspended"}, (403, "company_suspended")),
        ({"refusal": "payment_required"}, (402, "payment_required")),
        # The row was read while the time still ran.
        ({"access_until": time.time() - 1}, (402, "payment_required")),
    ],
)
async def test_user_who_may_not_connect_is_told_why(
    process: Process, tenants: Tenants, change: dict[str, Any], refusal: tuple[int, str]
) -> None:
    tenants.change("bob", **change)
    assert await refusal_of(process, upgrade(token_of())) == refusal


async def test_terminal_of_an_account_that_is_not_the_users_is_refused(process: Process, tenants: Tenants) -> None:
    request = upgrade(token_of(), query="account=1002")
    assert await refusal_of(process, request) == (403, "account_not_allowed")
    assert process.runtime.registry.held_by_user("bob") == 0
    # Newer than what this process remembers of the user.
    tenants.change("bob", accounts=frozenset({"1002"}))
    assert (await process.ask(request)).is_accepted


async def test_revoked_token_is_refused_after_the_poll(process: Process, tenants: Tenants) -> None:
    token = token_of()
    tenants.revoke(process.runtime.desk.verify(token).jti)
    await process.poll()
    assert await refusal_of(process, upgrade(token)) == (401, "token_revoked")
    assert (await process.ask(upgrade(token_of()))).is_accepted


async def test_nobody_new_is_let_in_while_the_database_is_away(process: Process, tenants: Tenants) -> None:
    tenants.is_down = True
    assert await refusal_of(process, upgrade(token_of())) == (503, "identity_unavailable")
    tenants.is_down = False
    assert (await process.ask(upgrade(token_of()))).is_accepted


@pytest.mark.parametrize(
    ("part", "code"),
    [("draining", "draining"), ("sink", "backend_unavailable"), ("database", "identity_unavailable")],
)
async def test_process_that_is_not_ready_refuses_everybody(process: Process, part: str, code: str) -> None:
    process.runtime.is_draining = part == "draining"
    process.sink.available = part != "sink"
    process.runtime.directory.is_loaded = part != "database"
    assert await refusal_of(process, upgrade(token_of())) == (503, code)
    assert len(process.runtime.problems()) == 1


async def test_user_whose_partition_takes_nothing_waits_and_nobody_else_does(process: Process) -> None:
    process.sink.make_ill("tick-data", b"bob")
    answer = await process.ask(upgrade(token_of()))
    assert (answer.status, answer.body["code"], answer.headers["retry-after"]) == (503, "backend_unavailable", "2")
    # Nothing was reserved for the one who was sent away.
    assert not any(entry.held for entry in process.runtime.registry.users.values())
    assert (await process.ask(upgrade(token_of("alice")))).is_accepted
    assert process.runtime.problems() == []
    assert process.runtime.ill_parts() == ["kafka topic tick-data partition 0"]
    process.sink.heal()
    assert (await process.ask(upgrade(token_of()))).is_accepted


async def test_topic_that_takes_nothing_keeps_nobody_out(process: Process) -> None:
    process.sink.make_ill("failed-messages")
    process.sink.make_ill("notifications")
    assert (await process.ask(upgrade(token_of()))).is_accepted
    assert process.runtime.problems() == []
    assert process.runtime.ill_parts() == ["kafka topic failed-messages", "kafka topic notifications"]


async def test_token_offered_as_subprotocol_is_taken_and_never_answered(process: Process) -> None:
    answer = await process.ask(upgrade(subprotocols=["gateway.v1.json", f"gateway.token.{token_of()}"]))
    assert answer.events[0] == {"type": "websocket.accept", "subprotocol": "gateway.v1.json"}
    answer = await process.ask(upgrade(subprotocols=[f"gateway.token.{token_of()}"]))
    assert answer.events[0] == {"type": "websocket.accept", "subprotocol": None}


async def test_user_has_the_connections_of_the_plan_and_no_more(process: Process) -> None:
    first, second = [await process.connect(query=f"stream=s{n}") for n in range(BOB.connection_limit)]
    assert (first.close_code, second.close_code) == (0, 0)
    with pytest.raises(AdmissionRefused) as refused:
        await process.connect(query="stream=s9")
    assert (refused.value.status, refused.value.code) == (429, "connection_limit")
    assert (b"retry-after", b"10") in refused.value.headers()
    await process.connect(token_of("alice"))
    first.leave()
    await process.connect(query="stream=s9")


async def test_two_handshakes_at_once_do_not_share_the_last_place(process: Process) -> None:
    await process.connect(query="stream=s1")
    desk, request = process.runtime.desk, Handshake.from_scope(upgrade(token_of(), query="stream=s2"))
    results = await asyncio.gather(desk.admit(request), desk.admit(request), return_exceptions=True)
    assert [isinstance(result, AdmissionRefused) for result in results] == [False, True]


async def test_stream_opened_anew_takes_the_place_it_replaces(process: Process) -> None:
    old, other = await process.connect(query="stream=s1"), await process.connect(query="stream=s2")
    new = await process.connect(query="stream=s1")
    assert (old.close_code, other.close_code, new.close_code) == (4006, 0, 0)
    old.leave()
    with pytest.raises(AdmissionRefused, match="connection_limit"):
        await process.connect(query="stream=s3")


async def test_process_takes_as_many_connections_as_it_may(tenants: Tenants) -> None:
    process = Process(tenants, connection_limit=2)
    last = [await process.connect(query=f"stream=s{n}") for n in range(2)][-1]
    with pytest.raises(AdmissionRefused) as refused:
        await process.connect(token_of("alice"))
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "overload", 5)
    last.leave()
    await process.connect(token_of("alice"))


async def test_user_connects_ten_seconds_worth_then_at_the_rate(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, token = Process(tenants, user_rate_limit=0.5), token_of(now=1_800_000_000)
    clock = Clock(monkeypatch, admission)
    for _ in range(5):
        (await process.connect(token)).leave()
    with pytest.raises(AdmissionRefused) as refused:
        await process.connect(token)
    assert (refused.value.status, refused.value.code) == (429, "connect_rate")
    assert (b"retry-after", b"2") in refused.value.headers()
    await process.connect(token_of("alice", now=1_800_000_000))
    clock.elapsed = 2.0
    await process.connect(token)


async def test_address_connects_five_seconds_worth_then_at_the_rate(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(tenants, address_rate_limit=1.0)
    clock = Clock(monkeypatch, admission)
    codes = [await code_of(process, address="192.0.2.1") for _ in range(6)]
    assert codes == ["token_missing"] * 5 + ["connect_rate"]
    assert await code_of(process, address="192.0.2.2") == "token_missing"
    clock.elapsed = 1.0
    assert await code_of(process, address="192.0.2.1") == "token_missing"
    assert await code_of(process, address="192.0.2.1") == "connect_rate"


async def code_of(process: Process, **scope: Any) -> str:
    with pytest.raises(AdmissionRefused) as refused:
        await process.runtime.desk.admit(Handshake.from_scope(upgrade(**scope)))
    return refused.value.code


async def test_flooding_address_is_not_forgotten_for_the_sake_of_many_others(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_ADDRESS_LIMIT", 10)
    process = Process(tenants, address_rate_limit=1.0)
    Clock(monkeypatch, admission)
    for _ in range(5):
        await code_of(process, address="192.0.2.1")
    for number in range(50):
        await code_of(process, address=f"198.51.100.{number}")
        assert await code_of(process, address="192.0.2.1") == "connect_rate"
        assert len(process.runtime.desk._addresses) <= 10


async def test_place_is_given_back_when_the_client_leaves_before_accept(process: Process) -> None:
    for _ in range(BOB.connection_limit + 1):
        with pytest.raises(ConnectionResetError):
            await process.ask(upgrade(token_of()), fails_at="websocket.accept")
    assert process.runtime.registry.users["bob"].held == 0
    assert (await process.ask(upgrade(token_of()))).is_accepted
    assert process.runtime.registry.users["bob"].held == 0


@pytest.mark.parametrize(
    ("proxy", "address"), [("10.0.0.1", "203.0.113.7"), ("10.0.0.2", "10.0.0.2"), ("203.0.113.7", "203.0.113.7")]
)
async def test_forwarded_address_counts_from_a_trusted_proxy_only(
    process: Process, settings: Any, proxy: str, address: str
) -> None:
    settings.GATEWAY_TRUSTED_PROXIES = ["10.0.0.1"]
    seen: list[str] = []

    async def application(scope: Event, _receive: Any, _send: Any) -> None:
        seen.append(Handshake.from_scope(scope).address)

    config = server_config(application, message_size_limit=65_536)
    config.load()
    scope = upgrade(token_of(), address=proxy, headers=[(b"x-forwarded-for", b"1.2.3.4, 203.0.113.7")])
    await config.loaded_app({**scope, "scheme": "ws"}, None, None)
    assert seen == [address]


async def test_server_without_http_answers_refuses_with_a_close(process: Process) -> None:
    answer = await process.ask({**upgrade(), "extensions": None})
    assert answer.events == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(("user", "key"), [("nobody", ""), ("bob", "9")], ids=["user", "key"])
async def test_whoever_hammers_with_what_is_unknown_asks_the_database_once_a_second(
    process: Process, tenants: Tenants, monkeypatch: pytest.MonkeyPatch, user: str, key: str
) -> None:
    clock = Clock(monkeypatch, admission)
    token, known = (token_of(name, now=clock.time(), api_key=one) for name, one in ((user, key), ("bob", "")))
    # Remembered from here on.
    assert (await process.ask(upgrade(known))).is_accepted
    for _ in range(2):
        tenants.visits.clear()
        answers = [await process.ask(upgrade(token)) for _ in range(20)]
        assert {answer.status for answer in answers} == {401}
        assert tenants.visits == [user]
        clock.elapsed += 1.1
    # Another token of the same user is not held back by it.
    assert (await process.ask(upgrade(known))).is_accepted


@pytest.mark.parametrize(
    ("query", "heard", "writer"),
    [
        ("stream=s1", None, ""),
        ("stream=s1&heard=0", 0, ""),
        (f"stream=s1&heard={2**53 - 1}&writer={'w' * 32}", 2**53 - 1, "w" * 32),
        ("stream=s1&heard=007&writer=EA-1.x:y_z", 7, "EA-1.x:y_z"),
        ("heard=0", 0, ""),
    ],
)
def test_client_says_how_far_it_has_heard_and_what_it_writes(query: str, heard: int | None, writer: str) -> None:
    handshake = Handshake.from_scope(upgrade(token_of(), query=query))
    assert (handshake.heard, handshake.writer) == (heard, writer)
