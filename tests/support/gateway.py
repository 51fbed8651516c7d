"""The product as its users run it: processes of ``manage.py`` on a state folder of their own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.children import start_child, stop_child
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
_READY_TIMEOUT = 40.0


@dataclass(frozen=True)
class BenchUser:
    """A user whose limits do not bind, and a token of theirs."""

    user_id: str
    username: str
    token: str


def clean_environment(state_dir: Path, **settings: str) -> dict[str, str]:
    """What a process of the product gets: nothing of the developer's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "DJANGO_"))}
    kept.pop("REDIS_URL", None)
    kept.pop("DATABASE_URL", None)
    return {**kept, "PYTHONUNBUFFERED": "1", "GATEWAY_STATE_DIR": str(state_dir), **settings}


def run_manage(
    *arguments: str, environment: dict[str, str], timeout: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end; its status and output are the caller's to judge."""
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


def manage(*arguments: str, environment: dict[str, str], timeout: float = 120.0) -> str:
    """The output of a command that must succeed."""
    done = run_manage(*arguments, environment=environment, timeout=timeout)
    assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def seed_template(state_dir: Path, users: int) -> None:
    """The demo and ``users`` bench users in a migrated database. Their tokens outlive a run on any machine."""
    environment = clean_environment(state_dir, GATEWAY_BENCHMARK="1", GATEWAY_TOKEN_TTL="24h")
    manage("seed_demo", environment=environment)
    (state_dir / "bench.json").write_text(
        manage("seed_bench", "--users", str(users), "--json", environment=environment)
    )


class Gateway:
    """One gateway (or several processes of it) on a port of this machine."""

    def __init__(self, template: Path, directory: Path, **settings: str) -> None:
        self.state_dir = directory / "state"
        if not self.state_dir.exists():
            shutil.copytree(template, self.state_dir)
        self.port = free_port()
        self.log = directory / f"gateway-{self.port}.log"
        self.environment = clean_environment(self.state_dir, GATEWAY_LOG_FORMAT="json", **settings)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/mt5"

    @property
    def users(self) -> list[BenchUser]:
        return [BenchUser(**row) for row in json.loads((self.state_dir / "bench.json").read_text())["users"]]

    def start(self, *arguments: str, ready: bool = True) -> "Gateway":
        command = [sys.executable, str(ROOT / "manage.py"), "gateway", "--port", str(self.port), *arguments]
        self.process = start_child(command, self.log, self.environment)
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + _READY_TIMEOUT
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.http("/readyz")[0] == 200:
                return
            time.sleep(0.05)
        raise AssertionError(f"the gateway is not ready:\n{self.log.read_text()[-4000:]}")

    def http(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples called ``name`` that have these labels."""
        status, text = self.http("/metrics")
        assert status == 200
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def manage(self, *arguments: str, timeout: float = 120.0) -> str:
        return manage(*arguments, environment=self.environment, timeout=timeout)

    def events(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def errors(self) -> list[str]:
        """Lines of its log that are worse than warnings, tracebacks included."""
        lines = [line for line in self.log.read_text().splitlines() if line.strip()]
        return [
            line for line in lines if not line.startswith("{") or json.loads(line)["level"] in ("error", "critical")
        ]

    def kill(self) -> None:
        """SIGKILL, as a machine that loses its power."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        assert self.process is not None
        return stop_child(self.process, 40)


def until(condition: Callable[[], bool], seconds: float, what: str = "condition") -> None:
    """Waits for a condition; fails loudly when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for: {what}"
        time.sleep(0.05)
