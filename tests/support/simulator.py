"""``manage.py simulate_mt5`` as a process beside a gateway."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.children import start_child, stop_child
from tests.support.gateway import ROOT, Gateway
from tests.support.topics import Name


class Simulator:
    """Streams until its duration is over; ``report`` waits for its last line."""

    def __init__(self, gateway: Gateway, directory: Path, *arguments: str) -> None:
        self._output = directory / "simulator.out"
        self._journal = directory / "simulator.journal"
        command = [sys.executable, str(ROOT / "manage.py"), "simulate_mt5", "--url", gateway.url, "--json"]
        command += ["--token-file", str(gateway.state_dir / "bench.json"), "--journal", str(self._journal), *arguments]
        self._process: subprocess.Popen[bytes] = start_child(command, self._output, gateway.environment)

    def report(self, timeout: float) -> dict[str, Any]:
        try:
            status = self._process.wait(timeout)
        finally:
            stop_child(self._process)
        output = self._output.read_text()
        assert status == 0, output[-3000:]
        report: dict[str, Any] = json.loads(output.splitlines()[-1])
        return report

    def acknowledged(self) -> list[Name]:
        """What it was told that Kafka has."""
        lines = (line.split() for line in self._journal.read_text().splitlines())
        return [(user, stream, int(sequence)) for user, stream, sequence in lines]


def assert_every_message_has_its_answer(report: dict[str, Any]) -> None:
    assert report["lost"] == 0, report
    assert report["sent"] == report["acknowledged"] + report["refused"], report
    assert report["sent"] > 0
