"""The background work of the product: what no request should wait for. Room: gateway_project.

Contract: jobs run one after the other in one process; one that fails is logged and runs again at its next time. Every
job may run in several workers at once. The relay of events has a thread of its own, so that no job delays an event;
so have the jobs that wait for the payment service, so that none of its hours holds up the others.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from django.conf import settings
from django.core.management import call_command
from django.db import close_old_connections

from billing import dunning, polling, receipts, renewals
from billing.entitlements import Turning
from events import outbox
from events.publisher import Publisher
from events.relay import Relay
from streaming.presence import PresenceWatch
from streaming.sinks.config import producer_config
from tenants.access import prune_revoked_tokens

log = structlog.get_logger(__name__)

# Seconds: jobs that run more often are only named in the log when they did something.
_QUIET_INTERVAL = 60.0
_RESTART_PAUSE = 1.0


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
        Job("prune_outbox", 3600.0, outbox.prune),
        # Neither asks anything of the payment service, so an hour in which it hangs puts off nobody's end.
        Job("subscription_ends", 30.0, dunning.end_due),
        Job("payment_reminders", 30.0, dunning.remind_due),
        Job("presence", settings.GATEWAY_PRESENCE_INTERVAL, PresenceWatch()),
    ]


def payment_jobs() -> list[Job]:
    """The registry of what asks the payment service, or follows from what it said."""
    return [
        Job("payment_receipts", 2.0, receipts.process_waiting),
        Job("payment_poll", 30.0, polling.poll_due),
        Job("payment_renewals", 30.0, renewals.renew_due),
        Job("payment_retries", 30.0, dunning.retry_due),
        Job("access_turns", 5.0, Turning()),
    ]


def relay_of_settings() -> Relay:
    """Brings events from the outbox to the configured Kafka; nothing is connected yet."""
    config = producer_config(settings.GATEWAY_KAFKA_BOOTSTRAP_SERVERS, 0.0, settings.GATEWAY_KAFKA_OPTIONS)
    publisher = Publisher(
        {**config, "statistics.interval.ms": 0},
        topics=[
            settings.GATEWAY_SUBSCRIPTION_TOPIC,
            settings.GATEWAY_ACTIVITY_TOPIC,
            *settings.GATEWAY_ROUTES.values(),
        ],
        partitions=settings.GATEWAY_TOPIC_PARTITIONS,
        replication=settings.GATEWAY_TOPIC_REPLICATION,
    )
    return Relay(publisher, poll_interval=settings.GATEWAY_OUTBOX_POLL_INTERVAL)


def start_thread(
    name: str, run: Callable[[threading.Event], None], stopping: threading.Event, *, pause: float = _RESTART_PAUSE
) -> threading.Thread:
    """A thread that calls ``run`` until ``stopping`` is set: again, ``pause`` seconds later, when it ended before."""

    def keep_running() -> None:
        while not stopping.is_set():
            try:
                run(stopping)
            except Exception:
                log.exception("worker_thread_failed", thread=name, again_in_s=pause)
                stopping.wait(pause)

    thread = threading.Thread(target=keep_running, name=name, daemon=True)
    thread.start()
    return thread


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
            if rows or job.interval >= _QUIET_INTERVAL:
                log.info("job_done", job=job.name, rows=rows or 0)
        finally:
            close_old_connections()
    return max(min((job.due_at for job in registry), default=now + 60.0) - now, 0.0)


def work(registry: list[Job], stopping: threading.Event, beat: Callable[[], None] = lambda: None) -> None:
    """Until ``stopping`` is set. ``beat`` is called after each round of jobs."""
    while not stopping.is_set():
        pause = run_due(registry, time.monotonic())
        beat()
        stopping.wait(pause)


def beat_of(path: str) -> Callable[[], None]:
    """Renews the time of this file, which others look at to see that the rounds go on; an empty path: no file."""
    file = Path(path)

    def beat() -> None:
        try:
            file.touch()
        except OSError as error:
            log.warning("heartbeat_not_written", path=path, reason=error.strerror)

    return beat if path else lambda: None
