"""Child processes of a run: started, talked to in lines of JSON, and always ended by their own id. Room: benchmarks."""

import http.client
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_ROOT = Path(__file__).resolve().parent.parent
_STOP_TIMEOUT = 10.0


class BenchmarkError(Exception):
    """Why a measurement could not be made; the text is for the person who started the run."""


class Child:
    """One process of a run, in a session of its own so that Ctrl-C reaches it only through ``stop``."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        log: Path,
        environment: dict[str, str] | None = None,
        *,
        talks: bool = False,
        program: str = sys.executable,
    ) -> None:
        """``arguments`` follow ``program``; ``talks``: reads commands and writes events, one JSON value a line."""
        self.name = name
        self._log = log
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        pipe = subprocess.PIPE if talks else None
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [program, *arguments],
                cwd=_ROOT,
                env=environment,
                stdin=pipe or subprocess.DEVNULL,
                stdout=pipe or output,
                stderr=output,
                start_new_session=True,
            )
        if talks:
            threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self, message: object) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self.failure("ended too early") from None

    def expect(self, event: str, timeout: float) -> dict[str, Any]:
        """The next event, which has to be the named one; raises BenchmarkError after ``timeout`` seconds."""
        try:
            message = self._events.get(timeout=timeout)
        except queue.Empty:
            raise self.failure(f"did not say {event!r} within {timeout:.0f} s") from None
        if message is None or message.get("event") != event:
            raise self.failure(f"did not say {event!r}")
        return message

    def failure(self, what: str) -> BenchmarkError:
        """The error to raise, with the end of the process's log."""
        tail = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        return BenchmarkError("\n  ".join([f"{self.name} {what}", *tail]))

    def stop(self) -> None:
        """Asks the process to end, and ends it when it does not."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdin is not None:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass  # What it never read does not matter any more.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def http_get(port: int, path: str) -> tuple[int, str]:
    """Status and body; raises OSError when nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def wait_until_ready(child: Child, port: int, timeout: float = 45.0) -> None:
    """Returns once ``/readyz`` answers 200; raises BenchmarkError when the process ends or the time runs out."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if child.process.poll() is not None:
            raise child.failure("ended while starting")
        try:
            if http_get(port, "/readyz")[0] == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.1)
    raise child.failure(f"was not ready within {timeout:.0f} s")


def clean_environment(**values: str) -> dict[str, str]:
    """The environment without this product's settings: a benchmark never touches a configured database or broker."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GATEWAY_", "BENCH_")) and name not in ("DATABASE_URL", "REDIS_URL")
    }
    return kept | values
