"""``manage.py demo`` brings everything up on one machine and takes everything down again (demo: start, stop)."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway_project.demo.traffic import fetch
from tests.demo.test_children import ROOT, eventually, is_alive

NAMES = ["valkey", "broker", "midtrans_sandbox", "gateway", "worker"]


class Demo:
    """A demo in a state folder of its own, without simulated terminals."""

    def __init__(self, state_dir: Path, port: int, output: str = "output.txt") -> None:
        self.state_dir = state_dir
        self.port = port
        self.output = state_dir / output
        own = {"GATEWAY_STATE_DIR": str(state_dir), "GATEWAY_PORT": str(port), "GATEWAY_DEMO": "0"}
        # A developer's own services, and the settings of this test run, are not the demo's.
        theirs = ("GATEWAY_", "REDIS_URL", "DATABASE_URL", "DJANGO_SETTINGS_MODULE")
        self._environment = {**{k: v for k, v in os.environ.items() if not k.startswith(theirs)}, **own}
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "manage.py"), "demo"]
        with self.output.open("wb") as output:
            return subprocess.Popen(command, env=self._environment, stdout=output, stderr=subprocess.STDOUT)

    def pids(self) -> dict[str, int]:
        try:
            records = json.loads((self.state_dir / "processes.json").read_text())
        except FileNotFoundError:
            return {}
        return {record["name"]: record["pid"] for record in records}

    def is_ready(self) -> bool:
        return list(self.pids()) == NAMES and fetch(self.port, "/readyz")[0] == 200


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests here: the first start makes the database and the logins, which takes the longest."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture
def demo(state_dir: Path) -> Iterator[Demo]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = Demo(state_dir, port)
    assert eventually(started.is_ready, 60), started.output.read_text()
    yield started
    # Its children end with it.
    started.process.kill()
    started.process.wait()


def test_one_demo_a_folder_until_an_interrupt_ends_everything(demo: Demo) -> None:
    second = Demo(demo.state_dir, demo.port, output="second.txt")
    assert second.process.wait(30) == 1
    assert f"process {demo.process.pid}" in second.output.read_text()
    assert demo.is_ready()

    pids = demo.pids()
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(40) == 0, demo.output.read_text()
    assert not any(map(is_alive, pids.values()))
    assert demo.pids() == {}
    text = demo.output.read_text()
    assert f"ws://127.0.0.1:{demo.port}/ws/mt5" in text
    assert "bromo-dewi" in text


def test_port_in_use_says_what_to_do(state_dir: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        refused = Demo(state_dir, port := other.getsockname()[1])
        assert refused.process.wait(30) == 1
    assert f"GATEWAY_PORT={port + 1} make run" in refused.output.read_text()


def test_broker_that_dies_comes_back_with_a_gateway_that_knows_it(demo: Demo) -> None:
    before = demo.pids()
    os.kill(before["broker"], signal.SIGKILL)
    assert eventually(lambda: demo.pids().get("gateway", before["gateway"]) != before["gateway"], 30)
    assert eventually(demo.is_ready, 30), demo.output.read_text()
    assert demo.pids()["broker"] != before["broker"]


def test_nothing_survives_the_killed_supervisor(demo: Demo) -> None:
    pids = demo.pids()
    demo.process.kill()
    assert eventually(lambda: not any(map(is_alive, pids.values())), 30)
