"""The stop that signals ask for. Room: gateway_project."""

import os
import signal
import threading
from types import FrameType


def stop_of_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set, however many of them come and when. Call it in the main thread.

    No handler sets it: handlers run between two instructions of the main thread, which may hold the event's own lock
    there, in a wait or in the handler of the signal before; it would wait for itself until somebody kills it.
    """
    stopping = threading.Event()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    # Python writes the number of each signal into it that has a handler.
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _noted)

    def wait() -> None:
        os.read(read_end, 1)
        stopping.set()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return stopping


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Only so that the signal does nothing else."""
