"""Periodic jobs run at their times, and one that fails stops no other (gateway_project: worker)."""

import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway_project import worker
from gateway_project.worker import Job, beat_of, jobs, run_due, start_thread, work


@pytest.fixture(autouse=True)
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "close_old_connections", lambda: None)


def test_failing_job_runs_again_at_its_next_time() -> None:
    ran: list[str] = []

    def fail() -> int:
        ran.append("fail")
        raise RuntimeError

    registry = [Job("fails", 10.0, fail), Job("works", 25.0, lambda: ran.append("work"))]
    assert run_due(registry, 0.0) == 10.0
    assert run_due(registry, 4.0) == 6.0
    assert ran == ["fail", "work"]
    assert run_due(registry, 10.0) == 10.0
    assert run_due(registry, 25.0) == 10.0
    assert ran == ["fail", "work", "fail", "fail", "work"]


def test_work_ends_when_asked() -> None:
    stopping = threading.Event()
    work([Job("last", 60.0, stopping.set)], stopping)
    assert stopping.is_set()


def test_worker_renews_its_heartbeat_after_each_round(tmp_path: Path) -> None:
    stopping, file = threading.Event(), tmp_path / "worker.beat"
    rounds: list[bool] = []

    def run() -> None:
        rounds.append(file.exists())
        if len(rounds) == 2:
            stopping.set()

    work([Job("round", 0.0, run)], stopping, beat_of(str(file)))
    assert rounds == [False, True]


def test_worker_goes_on_without_a_heartbeat(tmp_path: Path) -> None:
    with capture_logs() as logs:
        beat_of("")()
        beat_of(str(tmp_path / "nowhere" / "worker.beat"))()
    assert [entry["event"] for entry in logs] == ["heartbeat_not_written"]


def test_frequent_job_is_only_logged_when_it_did_something() -> None:
    results = iter([0, None, 3])
    job = Job("frequent", 5.0, lambda: next(results))
    with capture_logs() as logs:
        for now in (0.0, 5.0, 10.0):
            assert run_due([job], now) == 5.0
        run_due([Job("rare", 60.0, lambda: 0)], 0.0)
    assert [(entry["event"], entry["job"], entry["rows"]) for entry in logs] == [
        ("job_done", "frequent", 3),
        ("job_done", "rare", 0),
    ]


def test_thread_that_dies_is_logged_and_started_again() -> None:
    stopping = threading.Event()
    runs: list[int] = []

    def run(event: threading.Event) -> None:
        runs.append(len(runs))
        if len(runs) < 3:
            raise ZeroDivisionError
        event.set()

    with capture_logs() as logs:
        start_thread("relay", run, stopping, pause=0.01).join(10)
    assert runs == [0, 1, 2]
    assert [(entry["event"], entry["thread"]) for entry in logs] == [("worker_thread_failed", "relay")] * 2


@pytest.mark.django_db
def test_jobs_of_the_product_run() -> None:
    assert {"prune_revoked_tokens", "clear_sessions", "prune_outbox"} <= {job.name for job in jobs()}
    for job in jobs():
        job.run()
