"""Workers as they run in production: killed, stopped, several at once (manage.py worker)."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.events.cast import first_of_each
from tests.support.children import start_child, stop_child
from tests.support.gateway import ROOT, clean_environment, until
from tests.support.kafka import KafkaBroker
from tests.support.topics import read_topics

_EVENTS = 500
_KEYS = 7
# Records each event in a transaction of its own; waits in the middle until the file is there, where one is named.
_RECORD = """
import os, sys, time
import django
django.setup()
from django.db import transaction
from events import outbox
topic, count, keys, pause, gate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
for number in range(count):
    while gate and number == count // 2 and not os.path.exists(gate):
        time.sleep(0.01)
    with transaction.atomic():
        outbox.record(topic, f"company-{number % keys}", str(number).encode())
    time.sleep(pause)
"""


class Workers:
    """A state folder with a database, and worker processes on it."""

    def __init__(self, directory: Path, empty_state: Path, bootstrap: str) -> None:
        self.state_dir = directory / "state"
        shutil.copytree(empty_state, self.state_dir)
        self._directory = directory
        self.environment = clean_environment(
            self.state_dir,
            GATEWAY_LOG_FORMAT="json",
            GATEWAY_KAFKA_BOOTSTRAP_SERVERS=bootstrap,
            DJANGO_SETTINGS_MODULE="gateway_project.settings",
        )
        self.children: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        return self._start("worker", str(ROOT / "manage.py"), "worker")

    def record(self, topic: str, count: int, pause: float, gate: Path | None = None) -> subprocess.Popen[bytes]:
        """A process that records events, the database's only other writer; the second half once ``gate`` exists."""
        return self._start("recorder", "-c", _RECORD, topic, str(count), str(_KEYS), str(pause), str(gate or ""))

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = self._directory / f"{name}-{len(self.children)}.log"
        environment = {**self.environment, "PYTHONPATH": str(ROOT)}
        self.children.append(start_child([sys.executable, *arguments], log, environment))
        return self.children[-1]

    def query(self, statement: str) -> str:
        """The first value; "" where there is none."""
        with closing(sqlite3.connect(self.state_dir / "gateway.sqlite3", timeout=10)) as database:
            row = database.execute(statement).fetchone()
        return "" if row is None else str(row[0])

    def published(self) -> int:
        return int(self.query("SELECT count(*) FROM events_outboxevent WHERE published_at IS NOT NULL"))

    def holder(self) -> subprocess.Popen[bytes]:
        """The worker that publishes now."""
        name = self.query("SELECT holder FROM events_relaylease")
        return next(child for child in self.children if f":{child.pid}:" in name)

    def logs(self) -> str:
        return "".join(path.read_text() for path in self._directory.glob("worker-*.log"))


@pytest.fixture
def workers(tmp_path: Path, empty_state: Path, kafka: KafkaBroker) -> Iterator[Workers]:
    made = Workers(tmp_path, empty_state, kafka.bootstrap)
    yield made
    for child in made.children:
        stop_child(child)


def assert_all_there_in_order(kafka: KafkaBroker, topic: str, count: int) -> int:
    """How many records were there twice."""
    records = read_topics(kafka.bootstrap, [topic])
    firsts = first_of_each(records)
    assert sorted(int(found.value) for found in firsts) == list(range(count))
    last: dict[bytes, int] = {}
    for found in firsts:
        number = int(found.value)
        assert found.key == f"company-{number % _KEYS}".encode()
        assert number > last.get(found.key, -1)
        last[found.key] = number
    return len(records) - len(firsts)


def test_killed_worker_loses_no_event_and_another_takes_over(
    workers: Workers, kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    workers.start()
    workers.start()
    recorder = workers.record(topic, _EVENTS, 0.0, tmp_path / "killed")
    until(lambda: workers.published() >= 100, 30, "the first events")
    killed = workers.holder()
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert workers.published() < _EVENTS, "the kill came too late to prove anything"
    (tmp_path / "killed").touch()
    assert recorder.wait(60) == 0
    until(lambda: workers.published() == _EVENTS, 30, "all events")
    assert workers.holder() is not killed
    assert_all_there_in_order(kafka, topic, _EVENTS)


def test_worker_killed_again_and_again_loses_no_event(workers: Workers, kafka: KafkaBroker, topic: str) -> None:
    recorder = workers.record(topic, _EVENTS, 0.0)
    assert recorder.wait(60) == 0
    for _ in range(2):
        before = workers.published()
        worker = workers.start()
        # In the middle of a batch: Kafka has some whose reports the database does not have.
        until(lambda: f":{worker.pid}:" in workers.query("SELECT holder FROM events_relaylease"), 30, "the lease")  # noqa: B023
        worker.kill()
        worker.wait()
        assert workers.published() >= before
    workers.start()
    until(lambda: workers.published() == _EVENTS, 40, "all events")
    assert_all_there_in_order(kafka, topic, _EVENTS)


def test_stopped_worker_leaves_the_work_to_the_next_at_once(workers: Workers, kafka: KafkaBroker, topic: str) -> None:
    worker = workers.start()
    assert workers.record(topic, 20, 0.0).wait(30) == 0
    until(lambda: workers.published() == 20, 30, "the events")
    assert stop_child(worker) == 0
    assert workers.query("SELECT holder FROM events_relaylease") == ""
    assert "worker_stopped" in workers.logs()
    assert '"level": "error"' not in workers.logs()
    assert assert_all_there_in_order(kafka, topic, 20) == 0


def test_worker_without_kafka_says_so_and_keeps_house(tmp_path: Path, empty_state: Path) -> None:
    workers = Workers(tmp_path, empty_state, "")
    worker = workers.start()
    until(lambda: "prune_outbox" in workers.logs() and "job_done" in workers.logs(), 30, "the first jobs")
    assert stop_child(worker) == 0
    assert "relay_off" in workers.logs()


def test_event_is_in_kafka_soon_after_its_commit(workers: Workers, topic: str) -> None:
    workers.start()
    assert workers.record(topic, 1, 0.0).wait(30) == 0
    until(lambda: workers.published() == 1, 30, "the first event")
    assert workers.record(topic, 60, 0.05).wait(60) == 0
    until(lambda: workers.published() == 61, 30, "all events")
    delays = workers.query(
        "SELECT group_concat((julianday(published_at) - julianday(created_at)) * 86400) FROM events_outboxevent"
        " WHERE value > CAST('0' AS BLOB)"
    )
    seconds = sorted(float(delay) for delay in delays.split(","))
    # 0.3 s is aimed at with the processors to itself. Where others have them too, the quickest ones tell of the relay.
    assert seconds[len(seconds) // 4] < 0.6, seconds
