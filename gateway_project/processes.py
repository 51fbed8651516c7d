"""The parent of several gateway processes on one port. Room: gateway_project.

Each child listens for itself with SO_REUSEPORT, so that they share no lock; the parent only starts, restarts and stops
them. Children never outlive it: they watch the pipe that ends with it.
"""

import os
import signal
import subprocess
import tempfile
import threading
import time

import structlog
from django.conf import settings

from gateway_project.signals import stop_of_signals
from streaming.factory import PROCESS_INDEX, SAMPLES_FOLDER

log = structlog.get_logger(__name__)

# Seconds until a child that died is started again: doubled with each early death, up to the limit.
_RESTART_PAUSE = 0.2
_RESTART_PAUSE_LIMIT = 10.0
_STABLE_AFTER = 30.0
_STOP_SLACK = 20.0
_PARENT_PIPE = "_GATEWAY_PARENT_PIPE"


def is_child() -> bool:
    return PROCESS_INDEX in os.environ


def follow_parent() -> None:
    """In a child: ends this process in order when its parent is gone, however it went."""
    pipe = int(os.environ.get(_PARENT_PIPE, "-1"))
    if pipe < 0:
        return

    def wait() -> None:
        os.read(pipe, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


class _Child:
    def __init__(self, command: list[str], environment: dict[str, str], pipe: int) -> None:
        self._command = command
        self._environment = environment
        self._pipe = pipe
        self._pause = _RESTART_PAUSE
        self._started_at = 0.0
        self._due_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def keep_running(self, now: float) -> None:
        """Starts the process when it is not running and its pause is over."""
        if self.process is not None and self.process.poll() is not None:
            status = self.process.returncode
            self._pause = _RESTART_PAUSE if now - self._started_at > _STABLE_AFTER else self._pause * 2
            self._pause = min(self._pause, _RESTART_PAUSE_LIMIT)
            self._due_at = now + self._pause
            log.error("gateway_process_died", status=status, restart_in_s=self._pause)
            self.process = None
        if self.process is None and now >= self._due_at:
            self._started_at = now
            self.process = subprocess.Popen(self._command, env=self._environment, pass_fds=(self._pipe,))  # noqa: S603


def _end(process: subprocess.Popen[bytes]) -> int:
    """Waits for its drain, and no longer than that can take."""
    try:
        return process.wait(settings.GATEWAY_DRAIN_TIMEOUT * 2 + _STOP_SLACK)
    except subprocess.TimeoutExpired:
        log.error("gateway_process_killed", pid=process.pid)
        process.kill()
        return process.wait()


def run_processes(command: list[str], count: int) -> int:
    """Runs ``count`` children of ``command`` until SIGTERM or SIGINT; the exit status for the parent."""
    stopping = stop_of_signals()
    read_end, write_end = os.pipe()
    with tempfile.TemporaryDirectory(prefix="gateway-samples-") as folder:
        children = []
        for index in range(count):
            own = {PROCESS_INDEX: str(index), SAMPLES_FOLDER: folder, _PARENT_PIPE: str(read_end)}
            children.append(_Child(command, {**os.environ, **own}, read_end))
        while not stopping.is_set():
            now = time.monotonic()
            for child in children:
                child.keep_running(now)
            stopping.wait(0.1)
        running = [child.process for child in children if child.process is not None]
        for process in running:
            process.terminate()
        statuses = [_end(process) for process in running]
        os.close(write_end)
    # A child that was still starting has no drain to run and ends by the signal itself.
    return max((abs(status) for status in statuses if status != -signal.SIGTERM), default=0)
