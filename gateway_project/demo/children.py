"""A process that is kept running until it is told to stop. Room: gateway_project (demo).

Contract: its output goes to a log, a death is answered with a new start after a growing pause, and it never outlives
the process that made it, not even when that one is killed with SIGKILL (Linux; elsewhere only an orderly end counts).
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PAUSE = 0.5
PAUSE_LIMIT = 10.0
# A process that lived this long starts again with the first pause.
STABLE_AFTER = 30.0

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: between fork and exec nothing may be imported.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> Callable[[], None]:
    """For ``preexec_fn``: the child gets SIGTERM when the calling thread's process ends, however it ends."""
    parent = os.getpid()

    def ask_kernel() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            # The parent may have died before the kernel was asked.
            if os.getppid() != parent:
                os._exit(1)

    return ask_kernel


class Child:
    """One process; times are seconds of ``time.monotonic`` and come from the caller."""

    def __init__(self, name: str, command: list[str], log: Path, settings: Mapping[str, str] | None = None) -> None:
        """``settings``: of its environment, beside what this process has."""
        self.name = name
        self._settings = dict(settings or {})
        self.command = command
        self.log = log
        # 0 when it listens nowhere, or has not said where yet.
        self.port = 0
        self.restarts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._pause = 0.0
        self._started_at = 0.0
        self._due_at = 0.0

    @property
    def pid(self) -> int:
        """0 while it does not run."""
        return self._process.pid if self._process is not None else 0

    @property
    def has_ended(self) -> bool:
        """It was started and ended by itself; ``look`` has not seen it yet."""
        return self._process is not None and self._process.poll() is not None

    def start(self, now: float) -> None:
        """In a session of its own, so that a Ctrl-C of the terminal reaches only the parent, which knows the order."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            # preexec_fn is safe here: the parent has a single thread.
            self._process = subprocess.Popen(  # noqa: S603 (our own command)
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._settings},
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        self._started_at = now

    def look(self, now: float) -> str:
        """Call it often: notices a death, starts again when the pause is over. What happened, "" for nothing."""
        if self._process is not None and (status := self._process.poll()) is not None:
            self._end_group()
            is_early = now - self._started_at < STABLE_AFTER
            self._pause = min(self._pause * 2, PAUSE_LIMIT) if self._pause and is_early else PAUSE
            self._due_at = now + self._pause
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            return f"{self.name} {how}, starts again in {self._pause:g} s (log: {self.log})"
        if self._process is None and now >= self._due_at:
            self.restarts += 1
            self.start(now)
            return f"{self.name} started again, process {self.pid}"
        return ""

    def announced_port(self) -> int:
        """The port of the ``{"port": N}`` line that an embedded service prints when it is ready; 0 before."""
        for line in self.output().splitlines():
            if line.startswith('{"port":'):
                try:
                    return int(json.loads(line)["port"])
                except ValueError:  # half a line so far
                    return 0
        return 0

    def output(self) -> str:
        """What it has written since its last start."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_start)
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def ask_to_stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self, timeout: float, is_hurried: Callable[[], bool] = lambda: False) -> bool:
        """SIGTERM, then SIGKILL for all that is left after ``timeout`` or when hurried; False when that was needed."""
        if self._process is None:
            return True
        self.ask_to_stop()
        deadline = time.monotonic() + timeout
        while self._process.poll() is None and time.monotonic() < deadline and not is_hurried():
            time.sleep(0.02)
        is_orderly = self._process.poll() is not None
        self._end_group()
        return is_orderly

    def _end_group(self) -> None:
        """Nothing of its session stays behind: a process may have started others."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            self._process.wait()
            self._process = None
