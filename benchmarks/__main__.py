"""``python -m benchmarks``: measures the gateway against its peers and prints one table. Room: benchmarks.

Not a test: the exit status says whether it ran, never how fast.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import confluent_kafka
from confluent_kafka import KafkaException
from rich.console import Console

from benchmarks.children import BenchmarkError
from benchmarks.golang import go_installed, versions
from benchmarks.kafka import running_kafka
from benchmarks.phases import PACED_CONNECTIONS, Duration, IdleSample, Sample, measure, measure_idle
from benchmarks.report import Results, lines, markdown, remarks, tables
from benchmarks.servers import SERVERS, Bench, Server

PHASES = ("saturated", "paced", "idle")
# Enough that 5,000 idle connections stay within any plan's connections a user.
USERS = 300
_PACKAGES = (
    "uvicorn",
    "uvloop",
    "httptools",
    "websockets",
    "picows",
    "channels",
    "daphne",
    "protobuf",
    "fastapi",
    "aiokafka",
)


def main() -> int:
    options = _options()
    console = Console(width=None if sys.stdout.isatty() else 160)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = Path(tempfile.mkdtemp(prefix="gateway-bench-"))
    run = Run(console)
    started = time.monotonic()
    try:
        run.all(options, directory)
    except (BenchmarkError, KafkaException, OSError) as error:
        run.failures.append(str(error))
    except KeyboardInterrupt:
        run.failures.append("Stopped before the end.")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    results = Results(run.samples, run.idle)
    if run.samples or run.idle:
        for table in tables(results):
            console.print(table)
        for remark in remarks(results):
            console.print(f"Note: {remark}", style="yellow", highlight=False)
        environment = _environment(options) | run.versions
        console.print(", ".join(f"{name} {value}" for name, value in environment.items()), style="dim", highlight=False)
        console.print(f"{time.monotonic() - started:.0f} s", style="dim", highlight=False)
        _write(options, results, environment)
    for failure in run.failures:
        Console(stderr=True).print(failure, style="red", markup=False, highlight=False)
    return 1 if run.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [*(server.name for server in SERVERS), *PHASES]
    parser.add_argument("--quick", action="store_true", help="one short turn: a look, not a figure to keep")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, default=[], help=", ".join(names))
    parser.add_argument("--turns", type=int, metavar="N", help="turns whose median counts (3; 1 with --quick)")
    parser.add_argument("--json", type=Path, metavar="F", help="write all samples and figures to a file")
    parser.add_argument("--markdown", type=Path, metavar="F", help="write the tables to a file")
    parser.add_argument("--bunch", type=int, metavar="N", default=1, help="paced messages that leave together (1)")
    parser.add_argument("--kafka", metavar="HOST:PORT", default="", help="a broker to use instead of its own")
    options = parser.parse_args()
    if options.turns is None:
        options.turns = 1 if options.quick else 3
    if options.turns < 1:
        parser.error("--turns needs at least 1")
    if not 1 <= options.bunch <= PACED_CONNECTIONS:
        parser.error(f"--bunch takes 1 to {PACED_CONNECTIONS}")
    return options


class Run:
    """Collects the samples of all turns; a server that fails is told and left out, the others go on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.samples: list[Sample] = []
        self.idle: list[IdleSample] = []
        self.failures: list[str] = []
        # Of what this run built.
        self.versions: dict[str, str] = {}

    def all(self, options: argparse.Namespace, directory: Path) -> None:
        """Raises BenchmarkError when what all servers need does not start."""
        duration: Duration = {"warm_up": 1.5, "measure": 4.0} if options.quick else {"warm_up": 2.0, "measure": 6.0}
        phases = [phase for phase in PHASES if phase in options.only] or list(PHASES)
        chosen = [server for server in SERVERS if server.name in options.only]
        servers = chosen or [server for server in SERVERS if server.default]
        servers = self._available(servers)
        if not servers:
            return
        with ExitStack() as stack:
            self._say(f"Kafka at {options.kafka}" if options.kafka else "Starting Kafka …")
            bench = Bench(stack.enter_context(running_kafka(options.kafka, directory)), directory, options.bunch)
            servers = self._built(bench, servers)
            if any(server.gateway_processes for server in servers):
                self._say("Preparing database, Valkey and users …")
                stack.enter_context(bench.gateway_services(USERS))
            for turn in range(options.turns):
                for phase in phases:
                    # Memory does not drift with the machine's mood: one turn is enough.
                    for server in servers if phase != "idle" or turn == 0 else ():
                        if phase in server.phases:
                            self._one(bench, server, phase, duration, f"turn {turn + 1} of {options.turns}, {phase}")

    def _available(self, servers: list[Server]) -> list[Server]:
        """All that this machine can run."""
        if go_installed():
            return servers
        for server in servers:
            if server.go:
                self._say(f"Go is not installed: {server.name} is skipped")
        return [server for server in servers if not server.go]

    def _built(self, bench: Bench, servers: list[Server]) -> list[Server]:
        """Builds what has to be; a server whose build fails is left out."""
        ready = []
        for server in servers:
            if server.go:
                self._say(f"Building {server.label} …")
                try:
                    self.versions |= versions(bench.build(server))
                except (BenchmarkError, OSError) as error:
                    self._say(f"{server.label}: not built")
                    self.failures.append(str(error))
                    continue
            ready.append(server)
        return ready

    def _one(self, bench: Bench, server: Server, phase: str, duration: Duration, where: str) -> None:
        title = f"{where}: {server.label}"
        try:
            with bench.started(server) as running:
                if phase == "idle":
                    memory = measure_idle(bench, running, settle=duration["measure"] / 2)
                    self.idle.append(memory)
                    self._say(f"{title}: {memory['bytes_per_connection'] / 1024:.1f} KiB a connection")
                    return
                # Acknowledged first: afterwards nothing is left in the sockets that the next measurement would count.
                for acks in (True, False) if server.acknowledges else (False,):
                    sample = measure(bench, running, phase, duration, acks=acks)
                    self.samples.append(sample)
                    figures = f"{sample['cpu_us_per_message']:.1f} µs/msg, {sample['messages_per_second']:,.0f} msg/s"
                    self._say(f"{title}{', acknowledged' if acks else ''}: {figures}")
        except (BenchmarkError, KafkaException, OSError) as error:
            self._say(f"{title}: failed")
            self.failures.append(f"{title}: {error}")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)


def _environment(options: argparse.Namespace) -> dict[str, str]:
    """What stands beside the figures: versions and the machine."""
    found = {
        "Python": platform.python_version(),
        "Kafka": f"at {options.kafka}" if options.kafka else "Apache Kafka 4.1, one broker, 6 partitions",
        "confluent-kafka": version("confluent-kafka"),
        "librdkafka": str(confluent_kafka.libversion()[0]),
    }
    found.update((package, version(package)) for package in _PACKAGES)
    found["paced messages at a time"] = str(options.bunch)
    found["Linux"] = platform.release()
    found["cores"] = str(len(os.sched_getaffinity(0)))
    return found


def _write(options: argparse.Namespace, results: Results, environment: dict[str, str]) -> None:
    if options.markdown:
        options.markdown.write_text(markdown(results), encoding="utf-8")
    if options.json:
        figures = [
            {"figure": line.figure, "measured": line.measured, "unit": line.unit, "goal": line.goal, "met": line.met}
            for line in lines(results)
        ]
        document = {"environment": environment, "figures": figures, "samples": results.samples, "idle": results.idle}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
