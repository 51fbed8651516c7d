"""``python -m benchmarks.slow_readers``: what readers that stop reading cost the others. Room: benchmarks.

Not a test: the exit status says whether it ran, never what came out.
"""

import argparse
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from benchmarks.children import BenchmarkError, Child, clean_environment, free_port, http_get, wait_until_ready
from benchmarks.procfs import cpu_seconds, resident_bytes
from benchmarks.slow_report import Cut, Result, Stretch, table

_WARM_UP = 3.0
# Seconds after which those that are still not cut are left alone.
_CUT_LIMIT = 60.0
# After the last cut, until its work is done.
_AFTERMATH = 0.5
_POLL = 0.25


class Run:
    """The server and its readers, ready."""

    def __init__(self, options: argparse.Namespace, port: int, server: Child, readers: Child) -> None:
        self._options = options
        self._port = port
        self._server = server
        self._readers = readers
        self.cuts: list[Cut] = []

    def all(self) -> Result:
        options = self._options
        time.sleep(_WARM_UP)
        baseline = self._stretch(options.seconds, 0)
        self._readers.tell({"do": "stall"})
        self._readers.expect("stalled", 15)
        stalled = self._stretch(_CUT_LIMIT, options.stalled)
        windows = {"baseline": baseline, "stalled": stalled}
        bounds = {name: (one["since"], one["until"]) for name, one in windows.items()}
        self._readers.tell({"do": "finish", "windows": bounds})
        done = self._readers.expect("done", 60)
        return {
            "baseline": baseline,
            "stalled": stalled,
            "latency": done["latency"],
            "cuts": self.cuts,
            "seen": done["stalled"],
            "others_closed": done["others_closed"],
        }

    def _stretch(self, seconds: float, cuts: int) -> Stretch:
        """``cuts``: ends soon after so many."""
        server, readers = self._server.pid, self._readers.pid
        self._look()
        since, started = time.time_ns() // 1000, time.monotonic()
        cpu = cpu_seconds(server), cpu_seconds(readers)
        memory = peak = resident_bytes(server)
        behind, waiting, end = 0.0, 0, started + seconds
        while (now := time.monotonic()) < end:
            time.sleep(min(_POLL, end - now))
            late, size = self._look()
            behind, waiting, peak = max(behind, late), max(waiting, size), max(peak, resident_bytes(server))
            if cuts and len(self.cuts) >= cuts:
                cuts, end = 0, time.monotonic() + _AFTERMATH
        passed = time.monotonic() - started
        return {
            "since": since,
            "until": time.time_ns() // 1000,
            "behind_ms": behind,
            "waiting_bytes": waiting,
            "memory_growth_bytes": peak - memory,
            "memory_growth_at_end_bytes": resident_bytes(server) - memory,
            "server_cores": (cpu_seconds(server) - cpu[0]) / passed,
            "readers_cores": (cpu_seconds(readers) - cpu[1]) / passed,
        }

    def _look(self) -> tuple[float, int]:
        """Milliseconds behind the schedule and bytes waiting for one reader, the most since the last look."""
        status = json.loads(http_get(self._port, "/status")[1])
        self.cuts = [(at, code, bound) for at, code, bound in status["cuts"]]
        return status["late_ms"], status["waiting"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slow_readers", description=__doc__)
    parser.add_argument("--readers", type=int, metavar="N", default=2_000, help="connections (2000)")
    parser.add_argument("--stalled", type=int, metavar="N", default=500, help="of them stop reading (500)")
    parser.add_argument("--size", type=int, metavar="BYTES", default=1_024, help="of a message (1024)")
    parser.add_argument("--rate", type=float, metavar="N", default=20.0, help="messages a second to each reader (20)")
    parser.add_argument("--seconds", type=float, metavar="S", default=8.0, help="while all read (8)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures to a file")
    options = parser.parse_args()
    if not 0 < options.stalled < options.readers:
        parser.error("--stalled takes 1 to fewer than --readers")
    if options.size < 8 or options.rate <= 0 or options.seconds <= 0:
        parser.error("--size takes at least 8, --rate and --seconds more than 0")
    return options


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard == resource.RLIM_INFINITY else min(hard, 65_536), hard))
    directory = Path(tempfile.mkdtemp(prefix="gateway-bench-"))
    try:
        result = _measure(options, directory)
    except (BenchmarkError, OSError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopped before the end.", style="red")
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    Console(width=None if sys.stdout.isatty() else 120).print(table(options, result))
    if options.json:
        names = ("readers", "stalled", "size", "rate", "seconds")
        document = {name: getattr(options, name) for name in names} | {"result": result}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def _measure(options: argparse.Namespace, directory: Path) -> Result:
    port, limit = free_port(), int(_WARM_UP + options.seconds + _CUT_LIMIT + 120)
    arguments = ["-m", "benchmarks.peers.push", "--port", str(port), "--seconds-limit", str(limit)]
    for name in ("readers", "size", "rate"):
        arguments += [f"--{name}", str(getattr(options, name))]
    # One ping to each at the start, then none: a missed pong would end those that are silent and stop as well, with a
    # code of its own.
    environment = clean_environment(GATEWAY_STATE_DIR=str(directory / "state"), GATEWAY_PING_INTERVAL="1h")
    with Child("push server", arguments, directory / "push.log", environment) as server:
        wait_until_ready(server, port)
        log = directory / "readers.log"
        with Child("readers", ["-m", "benchmarks.readers"], log, clean_environment(), talks=True) as readers:
            order = {"url": f"ws://127.0.0.1:{port}/", "readers": options.readers, "stalled": options.stalled}
            readers.tell(order | {"seconds_limit": limit})
            readers.expect("connected", 90)
            return Run(options, port, server, readers).all()


if __name__ == "__main__":
    sys.exit(main())
