"""``python -m benchmarks.attacks``: what each attack costs the server and the terminals beside it. Room: benchmarks.

Twenty terminals stream at a steady pace; one attack after the other runs beside them, by one connection and by many.
A measurement and not a test: the exit status says whether it ran.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.attackers import ATTACKS, Order, Outcome
from benchmarks.children import BenchmarkError, Child, clean_environment
from benchmarks.kafka import running_kafka
from benchmarks.load import Order as LoadOrder
from benchmarks.procfs import resident_bytes
from benchmarks.servers import SERVERS, Bench, Running

_TERMINALS = 20
_RATE = 1_000.0
_GATEWAY = next(server for server in SERVERS if server.name == "gateway")


class Result(NamedTuple):
    """``p99``: milliseconds from a terminal's send to its acknowledgement, ticks and signals; ``growth``: bytes."""

    p50: float
    p99: float
    lost: int
    growth: int
    outcome: Outcome | None


def measure(bench: Bench, running: Running, attack: str, connections: int, seconds: float) -> Result:
    """The terminals' figures while ``attack`` runs; without one when it is ""."""
    load_order: LoadOrder = {
        "mode": "paced",
        "terminals": running.terminals(bench.users[:_TERMINALS], _TERMINALS),
        "symbols": bench.symbols,
        "acks": True,
        "rate": _RATE,
        "bunch": 1,
        "seconds_limit": seconds + 30,
    }
    load_log, attack_log = bench.directory / "load.log", bench.directory / "attackers.log"
    with Child("load generator", ["-m", "benchmarks.load"], load_log, clean_environment(), talks=True) as load:
        load.tell(load_order)
        load.expect("connected", 60)
        time.sleep(1.5)
        before = peak = resident_bytes(running.child.pid)
        load.tell({"do": "measure"})
        outcome: Outcome | None = None
        until = time.monotonic() + seconds
        if attack:
            order: Order = {
                "port": running.port,
                "tokens": [user.token for user in bench.users[_TERMINALS:]],
                "attack": attack,
                "connections": connections,
                "seconds": seconds,
            }
            arguments = ["-m", "benchmarks.attackers"]
            with Child("attackers", arguments, attack_log, clean_environment(), talks=True) as attackers:
                attackers.tell(order)
                while time.monotonic() < until:
                    time.sleep(0.1)
                    peak = max(peak, resident_bytes(running.child.pid))
                outcome = attackers.expect("outcome", 30)["outcome"]
        else:
            time.sleep(seconds)
        load.tell({"do": "stop"})
        done = load.expect("done", 20)
    spreads = [done["tick_ack"], done["signal_ack"]]
    return Result(
        max(spread["p50"] for spread in spreads),
        max(spread["p99"] for spread in spreads),
        done["unsettled"] + done["refused"] + done["closed_by_server"],
        peak - before,
        outcome,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 200], help="attackers at a time")
    parser.add_argument("--seconds", type=float, default=10.0, help="each attack")
    parser.add_argument("--only", nargs="+", choices=list(ATTACKS), default=list(ATTACKS), help="these attacks")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 170)
    table = Table(title="Attacks beside 20 terminals that stream 1,000 messages a second")
    for column in ("attack", "by", "attempts", "ended with", "slowest end", "server's memory", "p50 / p99", "lost"):
        table.add_column(column)
    directory = Path(tempfile.mkdtemp(prefix="gateway-attacks-"))
    try:
        with running_kafka("", directory) as kafka:
            bench = Bench(kafka, directory)
            with bench.gateway_services(_TERMINALS + 100), bench.started(_GATEWAY) as running:
                for attack, connections in [("", 0), *((a, c) for a in options.only for c in options.connections)]:
                    result = measure(bench, running, attack, connections, options.seconds)
                    table.add_row(*_row(attack, connections, result))
                    console.print(json.dumps([attack, connections, *result]), style="dim", soft_wrap=True)
                table.add_row(*_row("", 0, measure(bench, running, "", 0, options.seconds)))
    except BenchmarkError as error:
        console.print(str(error), style="red")
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    console.print(table)
    return 0


def _row(attack: str, connections: int, result: Result) -> tuple[str, ...]:
    delay = f"{result.p50:.1f} / {result.p99:.1f} ms"
    if result.outcome is None:
        return "none", "", "", "", "", "", delay, str(result.lost)
    codes = ", ".join(f"{code}: {count:,}" for code, count in sorted(result.outcome["codes"].items()))
    memory = f"+{result.growth / 1024**2:.1f} MiB"
    slowest = f"{result.outcome['slowest']:.2f} s"
    return attack, str(connections), f"{result.outcome['attempts']:,}", codes, slowest, memory, delay, str(result.lost)


if __name__ == "__main__":
    sys.exit(main())
