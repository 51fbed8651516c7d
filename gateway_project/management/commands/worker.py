"""``manage.py worker``: runs the periodic jobs until SIGTERM. Room: gateway_project."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import structlog
from django.core.management.base import BaseCommand

from gateway_project.worker import jobs, work

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    help = "Housekeeping: expired revocations and sessions. One is enough; several do no harm."

    def handle(self, *_args: Any, **_options: Any) -> None:
        stopping = threading.Event()

        def stop(_number: int, _frame: FrameType | None) -> None:
            stopping.set()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        registry = jobs()
        log.info("worker_starts", pid=os.getpid(), jobs=[job.name for job in registry])
        work(registry, stopping)
        log.info("worker_stopped", pid=os.getpid())
