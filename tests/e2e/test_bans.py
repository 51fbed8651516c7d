"""The circuit breaker on live traffic, over two gateway processes."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.flood import BAD, GOOD, Outcome, listen, open_terminal, refused_with
from tests.support.gateway import BenchUser, Gateway, until
from tests.support.valkey import Valkey

MakeGateway = Callable[..., Gateway]


async def _send(url: str, token: str, frames: list[str], wait: float) -> Outcome:
    """Sends the frames below the plan's rate, then waits for what the gateway makes of them."""
    outcome = Outcome()
    connection = await open_terminal(url, token)
    listening = asyncio.create_task(listen(connection, outcome))
    try:
        for frame in frames:
            await connection.send(frame)
            outcome.sent += 1
            await asyncio.sleep(0.012)
    except ConnectionClosed:
        pass
    await asyncio.wait([listening], timeout=wait)
    await connection.close()
    await listening
    return outcome


def _mixed(bad_percent: int) -> list[str]:
    """200 messages with that share of bad ones, evenly mixed."""
    return [BAD if (place + 1) * bad_percent // 100 > place * bad_percent // 100 else GOOD for place in range(200)]


def _new_token(gateway: Gateway, user: BenchUser) -> str:
    return gateway.manage("issue_token", "--user", user.username).strip()


def _is_let_in(gateway: Gateway, user: BenchUser) -> bool:
    return asyncio.run(refused_with(gateway.url, user.token))[0] == 101


@pytest.mark.parametrize(("frames", "wait"), [([BAD] * 200, 5.0), (_mixed(51), 12.0)], ids=["100 %", "51 %"])
def test_user_whose_messages_are_mostly_bad_is_banned_everywhere_until_an_operator_lifts_it(
    make_gateway: MakeGateway, frames: list[str], wait: float
) -> None:
    first, second = make_gateway().start(), make_gateway().start()
    user = first.users[0]
    outcome = asyncio.run(_send(first.url, user.token, frames, wait))
    assert outcome.code == 4005, outcome
    assert 20_000 <= int(str(outcome.disconnect["retry_after_ms"])) <= 40_000
    assert outcome.disconnect["reconnect"] is True
    # By the other process, by a new token, and by the one that set it.
    other_token = _new_token(first, user)
    for url, token in ((second.url, user.token), (second.url, other_token), (first.url, other_token)):
        status, code, retry_after = asyncio.run(refused_with(url, token))
        assert (status, code) == (429, "banned")
        assert 1 <= retry_after <= 40
    assert asyncio.run(refused_with(second.url, first.users[1].token))[0] == 101
    assert "not banned" in first.manage("user", "unban", user.username)
    for gateway in (first, second):
        until(partial(_is_let_in, gateway, user), 20, "to be let in")
    assert first.errors() == second.errors() == []


@pytest.mark.parametrize(
    ("frames", "wait"), [(_mixed(49), 8.0), ([BAD], 8.0), ([BAD] * 10 + [GOOD] * 9, 8.0)], ids=["49 %", "one", "few"]
)
def test_user_with_fewer_bad_messages_is_not_banned(gateway: Gateway, frames: list[str], wait: float) -> None:
    outcome = asyncio.run(_send(gateway.url, gateway.users[0].token, frames, wait))
    assert outcome.code == 1000, outcome
    assert outcome.nacks["malformed"] == frames.count(BAD)
    assert asyncio.run(refused_with(gateway.url, gateway.users[0].token))[0] == 101


def test_ban_holds_on_the_node_that_set_it_and_in_the_database_without_redis(
    make_gateway: MakeGateway, own_valkey: Valkey
) -> None:
    first, second = (make_gateway(REDIS_URL=own_valkey.url).start() for _ in range(2))
    user = first.users[0]
    own_valkey.stop()
    assert asyncio.run(_send(first.url, user.token, [BAD] * 60, 5.0)).code == 4005
    assert asyncio.run(refused_with(first.url, user.token))[:2] == (429, "banned")
    # The other node hears of it by the poll of the database.
    until(lambda: asyncio.run(refused_with(second.url, user.token))[1] == "banned", 20, "the ban on the other node")
    own_valkey.start()
    assert asyncio.run(refused_with(second.url, user.token))[:2] == (429, "banned")


def test_second_ban_within_a_day_is_longer(gateway: Gateway) -> None:
    user = gateway.users[0]
    waits = []
    for _ in range(2):
        outcome = asyncio.run(_send(gateway.url, user.token, [BAD] * 60, 5.0))
        assert outcome.code == 4005
        waits.append(int(str(outcome.disconnect["retry_after_ms"])))
        if len(waits) == 1:
            # As if its time had passed: an operator's lift would make it count no more.
            gateway.manage(
                "shell", "-v0", "-c",
                "from tenants.models import Ban; from django.utils import timezone; import datetime;"
                "Ban.objects.update(starts_at=timezone.now() - datetime.timedelta(minutes=2),"
                " until=timezone.now() - datetime.timedelta(minutes=1))",
            )  # fmt: skip
            gateway.stop()
            gateway.environment["REDIS_URL"] = ""
            gateway.start()
    assert 1.3 * waits[0] <= waits[1] <= 3.1 * waits[0]
