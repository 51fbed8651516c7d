"""Periodic jobs run at their times, and one that fails stops no other (gateway_project: worker)."""

import threading

import pytest

from gateway_project import worker
from gateway_project.worker import Job, jobs, run_due, work


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


@pytest.mark.django_db
def test_jobs_of_the_product_run() -> None:
    assert [job.name for job in jobs()] == ["prune_revoked_tokens", "clear_sessions"]
    for job in jobs():
        job.run()
