"""Live connections of a running gateway, as administrators see, follow and end them."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.browser import Browser
from tests.support.flood import refused_with
from tests.support.gateway import BenchUser, Gateway, run_manage, until
from tests.support.strain import Strain
from tests.support.terminal import Terminal
from tests.support.valkey import Valkey

MakeGateway = Callable[..., Gateway]

# Makes the person an admin of the bench users' company, with a password.
_ADMIN = """
from tenants.models import User
bench = User.objects.get(username="{name}")
User.objects.create_user("alice", password="a long enough password", company=bench.company, role="company_admin")
"""
_PASSWORD = "a long enough password"
_LOGIN = """
from tenants.models import MT5Account
print(MT5Account.objects.get(owner__username="{name}").login)
"""
_DEACTIVATE = """
from tenants import access
from tenants.access import Actor
from tenants.models import MT5Account
row = MT5Account.objects.get(owner__username="{name}")
row.is_active = False
access.save_row(Actor.system("test"), row)
"""


def shell(gateway: Gateway, program: str, **values: str) -> str:
    return gateway.manage("shell", "--no-imports", "-c", program.format(**values)).strip()


def operator(gateway: Gateway) -> Browser:
    people = json.loads((gateway.state_dir / "demo.json").read_text())
    browser = Browser(gateway)
    browser.sign_in("operator", people["operator"]["password"])
    return browser


def listed(gateway: Gateway, *arguments: str) -> list[dict[str, object]]:
    done = run_manage("connections", "list", *arguments, "--json", environment=gateway.environment)
    if done.returncode:
        assert "no live connection matches" in done.stderr, done.stderr
        return []
    rows: list[dict[str, object]] = json.loads(done.stdout)["connections"]
    return rows


def kick(gateway: Gateway, *arguments: str) -> dict[str, object]:
    answer: dict[str, object] = json.loads(gateway.manage("connections", "kick", *arguments, "--json"))
    return answer


def wait_for_end(terminal: Terminal) -> dict[str, object]:
    """What the client is told last; its close code is then in ``close_code``."""
    told = terminal.hear_until("gateway.disconnect")
    assert terminal.hear() == ("", {})
    return told


def test_administrators_see_follow_and_end_live_connections(gateway: Gateway) -> None:
    """One gateway for all of it: the pages, the stream of messages, the kick and the command."""
    bench, other = gateway.users[:2]
    shell(gateway, _ADMIN, name=bench.username)
    login = shell(gateway, _LOGIN, name=bench.username)
    terminal = Terminal(gateway, bench.token, stream="s1", account=login)
    beside = Terminal(gateway, other.token)
    everyone, alice = operator(gateway), Browser(gateway)
    alice.sign_in("alice", _PASSWORD)
    part = {"X-Live-Part": "1"}
    until(lambda: bench.username in everyone.get("/admin/live/", part)[1], 10, "the connection in the list")
    text = everyone.get(f"/admin/live/?user={bench.username}", part)[1]
    assert login in text and "127.0.0.1" in text and other.username not in text
    assert bench.username in alice.get(f"/admin/live/?account={login}", part)[1]
    _follow_with_and_without_prices(everyone, alice, bench, terminal)
    _end_by_the_page(everyone, bench, terminal)
    # By the command, everybody's.
    until(lambda: len(listed(gateway, "--user", other.username)) == 1, 10, "the other connection in the list")
    assert kick(gateway, "--user", other.username, "--reason", "for a test")["kicked"] == 1
    assert wait_for_end(beside)["code"] == 4006 and beside.close_code == 4006
    until(lambda: listed(gateway) == [], 10, "an empty list")
    assert gateway.errors() == []


@contextmanager
def _ticking(terminal: Terminal) -> Iterator[list[int]]:
    """Ten ticks a second inside of the block; the list holds the last sequence."""
    over, sent = threading.Event(), [0]

    def send() -> None:
        while not over.wait(0.1):
            sent[0] += 1
            terminal.tick(sent[0])

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield sent
    finally:
        over.set()
        sender.join()


def _follow_with_and_without_prices(everyone: Browser, alice: Browser, bench: BenchUser, terminal: Terminal) -> None:
    path = f"/admin/live/follow/{bench.user_id}/events/?prices=1"
    with everyone.events(path) as full, alice.events(path) as headers:
        assert full.next() == ("begin", {"with_prices": True})
        # Asked for in vain.
        assert headers.next() == ("begin", {"with_prices": False})
        both = {"full": full, "headers": headers}
        # The gateway hears of the wish in its own time.
        with _ticking(terminal) as sent:
            looks = {name: list(events.until("rows")["rows"]) for name, events in both.items()}
        [last] = sent
        terminal.tick(last + 1)
        terminal.tick(last + 2, symbol="NOSUCH")
        for name, events in both.items():
            while looks[name][-1]["sequence"] < last + 2:
                looks[name] += events.until("rows")["rows"]
    for rows in looks.values():
        assert [(row["message_type"], row["sequence"], row["verdict"]) for row in rows[-2:]] == [
            ("tick_data", last + 1, "accepted"),
            ("tick_data", last + 2, "pair_not_active"),
        ]
        assert all(row["size"] > 0 and 0 <= row["age_ms"] < 10_000 for row in rows)
    assert looks["full"][-2]["payload"]["ticks"][0]["bid"] == 1.1
    assert not any("payload" in row for row in looks["headers"])


def _end_by_the_page(everyone: Browser, bench: BenchUser, terminal: Terminal) -> None:
    session_id = terminal.welcome["session_id"]
    path = f"/admin/live/kick/{bench.user_id}/{session_id}/"
    assert everyone.post(path, {"reason": "for a test"})[0] == 302
    told = wait_for_end(terminal)
    assert (told["code"], told["reconnect"]) == (4006, True) and int(str(told["retry_after_ms"])) > 0
    assert terminal.close_code == 4006


def test_follower_is_let_go_when_the_process_drains(gateway: Gateway) -> None:
    everyone = operator(gateway)
    with everyone.events(f"/admin/live/follow/{gateway.users[0].user_id}/events/") as events:
        assert events.next()[0] == "begin"
        gateway.terminate()
        started = time.monotonic()
        with Strain() as strain:
            assert events.until("end") == {"reason": "draining"}
            assert events.next() == ("", None)
    assert gateway.stop() == 0
    assert time.monotonic() - started < 10 * strain.factor
    assert gateway.errors() == []


def test_place_of_a_follower_whose_browser_goes_away_is_free_again(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(GATEWAY_FOLLOWER_LIMIT="1").start()
    everyone = operator(gateway)
    path = f"/admin/live/follow/{gateway.users[0].user_id}/events/"

    def first_event() -> tuple[str, object]:
        with everyone.events(path) as events:
            return events.next()

    with everyone.events(path) as events:
        assert events.next()[0] == "begin"
        assert first_event() == ("end", {"reason": "full"})
    until(lambda: first_event()[0] == "begin", 20, "the place")
    assert gateway.errors() == []


def test_kick_reaches_live_connections_with_redis_away(make_gateway: MakeGateway, own_valkey: Valkey) -> None:
    gateway = make_gateway(REDIS_URL=own_valkey.url).start()
    bench, other = gateway.users[:2]
    terminal, beside = Terminal(gateway, bench.token), Terminal(gateway, other.token)
    until(lambda: len(listed(gateway)) == 2, 10, "both in the list")
    own_valkey.stop()
    everyone = operator(gateway)
    status, page = everyone.get("/admin/live/")
    assert status == 200 and "The list cannot be shown" in page
    assert kick(gateway, "--user", bench.username) == {"kicked": None, "sessions": None}
    started = time.monotonic()
    with Strain() as strain:
        assert wait_for_end(terminal)["code"] == 4006 and terminal.close_code == 4006
    assert time.monotonic() - started < 5 * strain.factor
    # Of the other one too, by the page.
    assert everyone.post(f"/admin/live/kick/{other.user_id}/", {})[0] == 302
    assert wait_for_end(beside)["code"] == 4006
    own_valkey.start()
    back = Terminal(gateway, bench.token)
    until(lambda: len(listed(gateway)) == 1, 15, "the list to come back")
    # Nobody is ended twice for one order.
    back.tick(1)
    back.wait_for_ack(1)


def test_connection_is_bound_to_the_account_that_it_was_opened_with(gateway: Gateway) -> None:
    bench = gateway.users[0]
    # Nobody's, none at all, another user's.
    for account in ("999", "nonsense", shell(gateway, _LOGIN, name=gateway.users[1].username)):
        status, code, _ = asyncio.run(refused_with(f"{gateway.url}?account={account}", bench.token))
        assert (status, code) == (403, "account_not_allowed")
    login = shell(gateway, _LOGIN, name=bench.username)
    named, unnamed = Terminal(gateway, bench.token, account=login), Terminal(gateway, bench.token)
    shell(gateway, _DEACTIVATE, name=bench.username)
    told = wait_for_end(named)
    assert (told["code"], told["reconnect"]) == (4506, False) and named.close_code == 4506
    assert unnamed.hear_until("gateway.policy")["accounts"] == []
    unnamed.tick(1, account=login)
    assert unnamed.hear_until("gateway.nack")["code"] == "account_unknown"
