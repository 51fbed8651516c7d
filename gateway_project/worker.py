"""The periodic jobs of the product: housekeeping that no request should wait for. Room: gateway_project.

Contract: jobs run one after the other in one process; one that fails is logged and runs again at its next time. Every
job may run in several workers at once.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from django.core.management import call_command
from django.db import close_old_connections

from tenants.access import prune_revoked_tokens

log = structlog.get_logger(__name__)


@dataclass
class Job:
    """``interval``: seconds from one start to the next; the first run is at the worker's start."""

    name: str
    interval: float
    run: Callable[[], int | None]
    due_at: float = field(default=0.0)


def _clear_sessions() -> None:
    call_command("clearsessions")


def jobs() -> list[Job]:
    """The registry: a new job is a new line here."""
    return [
        Job("prune_revoked_tokens", 3600.0, prune_revoked_tokens),
        Job("clear_sessions", 86_400.0, _clear_sessions),
    ]


def run_due(registry: list[Job], now: float) -> float:
    """Runs what is due at ``now`` (``time.monotonic``); seconds until the next one is."""
    for job in registry:
        if job.due_at > now:
            continue
        job.due_at = now + job.interval
        # The database may have been restarted since the last job.
        close_old_connections()
        try:
            rows = job.run()
        except Exception:
            log.exception("job_failed", job=job.name, again_in_s=job.interval)
        else:
            log.info("job_done", job=job.name, rows=rows or 0)
        finally:
            close_old_connections()
    return max(min((job.due_at for job in registry), default=now + 60.0) - now, 0.0)


def work(registry: list[Job], stopping: threading.Event) -> None:
    """Until ``stopping`` is set."""
    while not stopping.is_set():
        stopping.wait(run_due(registry, time.monotonic()))
