"""``manage.py worker``: runs the relay of events and the periodic jobs until SIGTERM. Room: gateway_project."""

import os
from typing import Any

import structlog
from django.conf import settings
from django.core.management.base import BaseCommand

from gateway_project.signals import stop_of_signals
from gateway_project.worker import beat_of, jobs, payment_jobs, relay_of_settings, start_thread, work

log = structlog.get_logger(__name__)

# Seconds; the relay waits a few by itself for what is in flight.
_STOP_TIMEOUT = 10.0


class Command(BaseCommand):
    help = "Brings recorded events to Kafka and keeps house. One is enough; several do no harm."

    def handle(self, *_args: Any, **_options: Any) -> None:
        stopping = stop_of_signals()
        registry, payments = jobs(), payment_jobs()
        log.info("worker_starts", pid=os.getpid(), jobs=[job.name for job in (*registry, *payments)])
        threads = [start_thread("payments", lambda event: work(payments, event), stopping)]
        if settings.GATEWAY_KAFKA_BOOTSTRAP_SERVERS:
            threads.append(start_thread("relay", lambda event: relay_of_settings().run(event), stopping))
        else:
            log.warning("relay_off", reason="no Kafka is known: set GATEWAY_KAFKA_BOOTSTRAP_SERVERS")
        work(registry, stopping, beat_of(settings.GATEWAY_HEARTBEAT_PATH))
        for thread in threads:
            thread.join(_STOP_TIMEOUT)
        log.info("worker_stopped", pid=os.getpid())
