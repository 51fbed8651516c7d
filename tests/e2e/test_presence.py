"""Which MT5 accounts are online, by real gateways, workers and brokers: each change is told once, and no false one."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from proto.gateway.v1 import events_pb2, payloads_pb2
from tests.support.children import start_child, stop_child
from tests.support.gateway import ROOT, BenchUser, Gateway, until
from tests.support.kafka import KafkaBroker
from tests.support.terminal import Terminal
from tests.support.topics import Topics, read_topics
from tests.support.valkey import Valkey

GRACE = 5.0
# Seconds after which a gateway that was killed counts as gone.
HEART = 10.0


class Watched:
    """A gateway, workers that look who is online, and the account of one bench user."""

    def __init__(self, make_gateway: Callable[..., Gateway], directory: Path, kafka: KafkaBroker, redis: str) -> None:
        self._directory = directory
        self._topics = Topics(kafka.bootstrap)
        self._activity = f"{self._topics.prefix}user-activity"
        self.gateway = make_gateway(
            **self._topics.settings,
            REDIS_URL=redis,
            GATEWAY_SUBSCRIPTION_TOPIC=f"{self._topics.prefix}subscription-status",
            GATEWAY_ACTIVITY_TOPIC=self._activity,
            GATEWAY_PRESENCE_INTERVAL="1s",
            GATEWAY_PRESENCE_GRACE=f"{GRACE:.0f}s",
        )
        self.gateway.start()
        self.workers: list[subprocess.Popen[bytes]] = []
        self.user: BenchUser = self.gateway.users[0]
        self.login = str(self._query("SELECT login FROM tenants_mt5account WHERE owner_id = ?"))

    def start_worker(self) -> None:
        log = self._directory / f"worker-{len(self.workers)}.log"
        self.workers.append(
            start_child([sys.executable, str(ROOT / "manage.py"), "worker"], log, self.gateway.environment)
        )

    def is_online(self) -> bool:
        return bool(self._query("SELECT is_online FROM tenants_mt5account WHERE owner_id = ?"))

    def stays(self, *, online: bool, seconds: float) -> None:
        """Looks at it all the time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.is_online() is online
            time.sleep(0.1)

    def told(self) -> list[str]:
        """The activities of the user, in order, once all events are in Kafka."""
        until(lambda: self._unpublished() == 0, 40, "all events in Kafka")
        records = read_topics(self._topics.bootstrap, [self._activity])
        events = [events_pb2.UserActivity.FromString(record.value) for record in records]
        mine = [event for event in events if event.user_id == self.user.user_id]
        assert all(record.key == self.user.user_id.encode() for record in records)
        assert {event.account for event in mine} <= {self.login}
        return [event.activity for event in mine]

    def notes(self) -> list[str]:
        """The titles of the notifications."""
        records = self._topics.read("notification")
        assert all(record.envelope.user_id == self.user.user_id for record in records)
        return [payloads_pb2.Notification.FromString(record.envelope.payload).title for record in records]

    def errors(self) -> list[str]:
        logs = [self._directory / f"worker-{place}.log" for place in range(len(self.workers))]
        return [line for log in logs for line in log.read_text().splitlines() if '"level": "error"' in line]

    def _unpublished(self) -> int:
        with closing(self._database()) as database:
            statement = "SELECT count(*) FROM events_outboxevent WHERE published_at IS NULL"
            return int(database.execute(statement).fetchone()[0])

    def _query(self, statement: str) -> object:
        with closing(self._database()) as database:
            return database.execute(statement, [self.user.user_id.replace("-", "")]).fetchone()[0]

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(self.gateway.state_dir / "gateway.sqlite3", timeout=10)


@pytest.fixture
def watched(
    make_gateway: Callable[..., Gateway], tmp_path: Path, kafka: KafkaBroker, own_valkey: Valkey
) -> Iterator[Watched]:
    made = Watched(make_gateway, tmp_path, kafka, own_valkey.url)
    yield made
    for worker in made.workers:
        stop_child(worker)


def test_account_is_online_from_its_first_message_until_the_grace_after_its_last_connection(watched: Watched) -> None:
    """Two workers look, and each change is told once."""
    watched.start_worker()
    watched.start_worker()
    terminal = Terminal(watched.gateway, watched.user.token, stream="s1")
    terminal.tick(1)
    terminal.wait_for_ack(1)
    # A connection alone names no account.
    assert not watched.is_online()
    terminal.tick(2, account=watched.login)
    terminal.wait_for_ack(2)
    until(watched.is_online, 40, "the account online")
    terminal.close()
    # Somebody looks meanwhile, once a second; the grace is far from over.
    time.sleep(1.2)
    again = Terminal(watched.gateway, watched.user.token, account=watched.login)
    watched.stays(online=True, seconds=GRACE + 2)
    again.close()
    left_at = time.monotonic()
    until(lambda: not watched.is_online(), GRACE + 30, "the account offline")
    assert time.monotonic() - left_at >= GRACE - 1.5
    assert watched.told() == ["account_online", "account_offline"]
    assert watched.notes() == [f"MT5 account {watched.login} is offline"]
    assert watched.errors() == watched.gateway.errors() == []


def test_account_of_a_killed_gateway_goes_offline(watched: Watched) -> None:
    watched.start_worker()
    terminal = Terminal(watched.gateway, watched.user.token, account=watched.login)
    # Named at connect: nobody waits for a message.
    until(watched.is_online, 40, "the account online")
    watched.gateway.kill()
    killed_at = time.monotonic()
    until(lambda: not watched.is_online(), HEART + GRACE + 30, "the account offline")
    assert time.monotonic() - killed_at >= GRACE - 1.5
    assert watched.told() == ["account_online", "account_offline"]
    assert len(watched.notes()) == 1
    terminal.close()


def test_absence_of_redis_makes_nobody_offline(watched: Watched, own_valkey: Valkey) -> None:
    """Once for a moment, once for longer than the grace; each time it comes back with nothing in it."""
    watched.start_worker()
    terminal = Terminal(watched.gateway, watched.user.token, account=watched.login)
    until(watched.is_online, 40, "the account online")
    own_valkey.stop()
    own_valkey.start()
    watched.stays(online=True, seconds=GRACE + 1)
    own_valkey.stop()
    watched.stays(online=True, seconds=GRACE + 1)
    own_valkey.start()
    watched.stays(online=True, seconds=GRACE + 2)
    terminal.tick(1)
    terminal.wait_for_ack(1)
    # The watch goes on: whoever leaves now is missed.
    terminal.close()
    until(lambda: not watched.is_online(), GRACE + 30, "the account offline")
    assert watched.told() == ["account_online", "account_offline"]
    assert watched.errors() == []
