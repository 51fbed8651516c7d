"""A few threads of this process that look after receipts once they are answered. Room: billing.

Bounded, and allowed to forget: what does not fit, or is lost with the process, stays in the database and is done by the
worker. The threads end with the process and hold up nobody's shutdown.
"""

import queue
import threading

import structlog
from django.db import connections

from billing import receipts

log = structlog.get_logger(__name__)

# Two: they share the processor with everything else that this process serves.
_THREADS = 2
_WAITING_LIMIT = 64
_lock = threading.Lock()
_waiting: "queue.Queue[int] | None" = None


def submit(receipt_id: int) -> None:
    """Returns at once."""
    try:
        _queue().put_nowait(receipt_id)
    except queue.Full:
        # Back to the worker, which finds it by its time.
        log.info("receipt_left_to_worker", receipt_id=receipt_id)


def _queue() -> "queue.Queue[int]":
    global _waiting
    with _lock:
        if _waiting is None:
            _waiting = queue.Queue(_WAITING_LIMIT)
            for number in range(_THREADS):
                threading.Thread(target=_work, args=(_waiting,), name=f"receipts-{number}", daemon=True).start()
        return _waiting


def _work(waiting: "queue.Queue[int]") -> None:
    while True:
        receipt_id = waiting.get()
        try:
            receipts.process(receipt_id)
        except Exception:
            log.exception("receipt_failed", receipt_id=receipt_id)
        finally:
            # Idle threads keep no connection.
            connections.close_all()
