"""News goes out after the commit, without a request ever waiting for Redis (events.broadcast)."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from pytest_django import Settings
from redis import Redis
from structlog.testing import capture_logs

from events import broadcast
from tests.support.gateway import ROOT, clean_environment
from tests.support.ports import free_port
from tests.support.valkey import Valkey

_ANNOUNCE_AND_END = """
import django
django.setup()
from events import broadcast
broadcast.announce({"kind": "farewell"})
import time
print(time.monotonic(), flush=True)
"""


class Ear:
    """Hears what is published, from the moment of its making."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url, socket_timeout=5.0)
        self._pubsub = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._pubsub.subscribe(broadcast.CHANNEL)
        # The confirmation.
        self._pubsub.get_message(timeout=5.0)

    def hear(self) -> list[dict[str, Any]]:
        """All that this process, and those it has waited for, have published by now: what Redis has confirmed to the
        sender is on its way to here."""
        assert broadcast.flush(10) is True
        heard = []
        while (message := self._pubsub.get_message(timeout=0.2)) is not None:
            heard.append(json.loads(message["data"]))
        return heard

    def close(self) -> None:
        self._pubsub.close()
        self._redis.close()


@pytest.fixture
def ear(valkey: Valkey, settings: Settings) -> Iterator[Ear]:
    settings.REDIS_URL = valkey.url
    ear = Ear(valkey.url)
    yield ear
    ear.close()


@pytest.fixture
def deaf_redis() -> Iterator[str]:
    """The URL of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@pytest.mark.django_db(transaction=True)
def test_news_goes_out_after_the_commit_and_not_before(ear: Ear) -> None:
    with transaction.atomic():
        broadcast.announce({"kind": "access", "version": 3})
        assert ear.hear() == []
    assert ear.hear() == [{"kind": "access", "version": 3}]


@pytest.mark.django_db(transaction=True)
def test_news_of_a_rolled_back_change_is_never_heard(ear: Ear) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        broadcast.announce({"kind": "access"})
        raise ZeroDivisionError
    assert ear.hear() == []


@pytest.mark.django_db(transaction=True)
def test_news_outside_of_a_transaction_goes_at_once(ear: Ear) -> None:
    broadcast.announce({"kind": "kick"})
    assert ear.hear() == [{"kind": "kick"}]


@pytest.mark.django_db(transaction=True)
def test_equal_news_of_one_transaction_goes_once(ear: Ear) -> None:
    with transaction.atomic():
        broadcast.announce({"kind": "access", "company": 1})
        broadcast.announce({"kind": "access", "company": 2})
        with transaction.atomic():
            broadcast.announce({"kind": "access", "company": 1})
    assert ear.hear() == [{"kind": "access", "company": 1}, {"kind": "access", "company": 2}]
    broadcast.announce({"kind": "access", "company": 1})
    assert ear.hear() == [{"kind": "access", "company": 1}]


@pytest.mark.django_db(transaction=True)
def test_news_of_a_rolled_back_part_goes_when_it_is_announced_again(ear: Ear) -> None:
    with transaction.atomic():
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            broadcast.announce({"kind": "access"})
            raise ZeroDivisionError
        broadcast.announce({"kind": "access"})
    assert ear.hear() == [{"kind": "access"}]


def announced(messages: Iterable[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], int]:
    """What goes out at the commit of a transaction that announces these, and how many comparisons that took."""
    sent: list[Any] = []
    comparisons = 0
    usual = broadcast._Announcement.__eq__

    def counted(one: Any, other: object) -> bool:
        nonlocal comparisons
        comparisons += 1
        return usual(one, other)

    monkeypatch.setattr(broadcast._Announcement, "__eq__", counted)
    monkeypatch.setattr(broadcast.Sender, "put", lambda _self, payload: sent.append(json.loads(payload)))
    with transaction.atomic():
        for message in messages:
            broadcast.announce(message)
        assert sent == []
    return sent, comparisons


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("count", [1, 999, 1_000, 1_001, 4_000, 20_000])
def test_change_of_many_companies_is_announced_once_each_or_as_everything(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    settings.REDIS_URL = "redis://nowhere.invalid/0"
    messages = [{"kind": "access", "company_id": str(n), "version": 1} for n in range(count)]
    # Each twice, as where two changes of one transaction concern the same companies.
    sent, comparisons = announced(messages * 2, monkeypatch)
    named = messages[: broadcast.QUEUE_LIMIT]
    assert sent == (named if count <= broadcast.QUEUE_LIMIT else [*named, broadcast.EVERYTHING])
    # Equal ones are compared once, never each with all.
    assert comparisons <= 3 * count


@pytest.mark.django_db(transaction=True)
def test_parts_that_are_rolled_back_leave_what_others_have_announced(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REDIS_URL = "redis://nowhere.invalid/0"

    def parts() -> Iterator[dict[str, Any]]:
        for n in range(50):
            try:
                with transaction.atomic():
                    yield {"n": n // 2}
                    if n % 2 == 0:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass

    sent, _ = announced(parts(), monkeypatch)
    assert sent == [{"n": n} for n in range(25)]


def test_messages_above_what_may_wait_become_one_that_says_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = broadcast.Sender("redis://nowhere.invalid/0")
    batches: list[list[bytes]] = []
    may_send = threading.Event()

    def send(batch: list[bytes]) -> None:
        batches.append(batch)
        may_send.wait(10)

    monkeypatch.setattr(sender, "_send", send)
    for number in range(2 * broadcast.QUEUE_LIMIT + 500):
        sender.put(b"%d" % number)
        # The first is on its way while all others wait.
        while not batches:
            threading.Event().wait(0.001)
    may_send.set()
    assert sender.flush(10)
    first, rest = batches
    assert first == [b"0"]
    # Whatever came before is covered by it, and what came after is there.
    assert json.loads(rest[0]) == broadcast.EVERYTHING
    assert rest[-1] == b"%d" % (2 * broadcast.QUEUE_LIMIT + 499)
    assert len(rest) <= broadcast.QUEUE_LIMIT + 1


@pytest.mark.django_db(transaction=True)
def test_news_from_many_threads_all_goes_out(ear: Ear) -> None:
    threads = [threading.Thread(target=broadcast.announce, args=({"n": n},)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(message["n"] for message in ear.hear()) == list(range(50))


@pytest.mark.django_db(transaction=True)
def test_without_redis_nothing_happens(settings: Settings) -> None:
    settings.REDIS_URL = ""
    with capture_logs() as logs:
        broadcast.announce({"kind": "access"})
        assert broadcast.flush(0) is True
    assert logs == []


@pytest.mark.django_db(transaction=True)
def test_request_does_not_wait_for_a_redis_that_is_silent(deaf_redis: str, settings: Settings) -> None:
    settings.REDIS_URL = deaf_redis
    with capture_logs() as logs:
        began = time.monotonic()
        for number in range(broadcast.QUEUE_LIMIT + 500):
            broadcast.announce({"n": number})
        # Each of those answers would take a second.
        assert time.monotonic() - began < 5.0
        assert broadcast.flush(10) is True
    assert [one["event"] for one in logs if one["log_level"] == "warning"] == ["broadcast_down"]


@pytest.mark.django_db(transaction=True)
def test_outage_of_redis_is_logged_once_and_news_goes_on_after_it(own_valkey: Valkey, settings: Settings) -> None:
    settings.REDIS_URL = own_valkey.url
    broadcast.announce({"n": 0})
    assert broadcast.flush(5) is True
    own_valkey.stop()
    with capture_logs() as logs:
        for number in (1, 2, 3):
            broadcast.announce({"n": number})
            assert broadcast.flush(5) is True
        own_valkey.start()
        ear = Ear(own_valkey.url)
        broadcast.announce({"n": 4})
        assert ear.hear() == [{"n": 4}]
        ear.close()
        assert broadcast.flush(5) is True
    assert [(entry["event"], entry["dropped"]) for entry in logs] == [("broadcast_down", 1), ("broadcast_back", 3)]


@pytest.mark.django_db(transaction=True)
def test_restart_of_redis_between_two_messages_loses_none(own_valkey: Valkey, settings: Settings) -> None:
    settings.REDIS_URL = own_valkey.url
    broadcast.announce({"n": 0})
    assert broadcast.flush(5) is True
    own_valkey.stop()
    own_valkey.start()
    ear = Ear(own_valkey.url)
    broadcast.announce({"n": 1})
    assert ear.hear() == [{"n": 1}]
    ear.close()


def announce_and_end(url: str, state: Path) -> float:
    """Seconds from the announcement to the end of a process which ends right after it has announced."""
    environment = clean_environment(state, REDIS_URL=url, DJANGO_SETTINGS_MODULE="gateway_project.settings")
    command = [sys.executable, "-c", _ANNOUNCE_AND_END]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, timeout=120, stdout=subprocess.PIPE, text=True
    )
    # One clock for all processes.
    return time.monotonic() - float(done.stdout)


def test_command_that_ends_at_once_is_still_heard(ear: Ear, valkey: Valkey, tmp_path: Path) -> None:
    announce_and_end(valkey.url, tmp_path)
    assert ear.hear() == [{"kind": "farewell"}]


def test_command_ends_though_redis_is_silent(deaf_redis: str, tmp_path: Path) -> None:
    assert announce_and_end(deaf_redis, tmp_path) < 10.0


@pytest.mark.django_db(transaction=True)
def test_forked_child_sends_by_a_thread_of_its_own(ear: Ear, valkey: Valkey) -> None:
    broadcast.announce({"from": "parent"})
    assert broadcast.flush(5) is True
    child = os.fork()
    if child == 0:
        broadcast._sender_of(valkey.url).put(b'{"from":"child"}')
        os._exit(0 if broadcast.flush(5) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ear.hear() == [{"from": "parent"}, {"from": "child"}]


def test_unreachable_redis_is_given_up_soon(settings: Settings) -> None:
    sender = broadcast.Sender(f"redis://127.0.0.1:{free_port()}/0")
    with capture_logs() as logs:
        sender.put(b"{}")
        assert sender.flush(10) is True
    assert [entry["event"] for entry in logs] == ["broadcast_down"]
