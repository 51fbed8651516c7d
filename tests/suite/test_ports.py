"""Runs beside each other are never given the same port (support: ports)."""

import socket
import subprocess
import sys

from tests.support.ports import free_port
from tests.support.skips import ROOT

# Draws from 40 ports only, so that the processes meet.
_DRAW = """
import itertools, sys
from tests.support import ports
ports._next_ports = itertools.cycle(range(int(sys.argv[1]), int(sys.argv[1]) + 40))
print(*(ports.free_port() for _ in range(10)), flush=True)
sys.stdin.read()
"""


def test_test_processes_that_draw_from_the_same_ports_are_given_different_ones() -> None:
    command = [sys.executable, "-c", _DRAW, str(free_port())]
    children = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    given: list[str] = []
    for child in children:
        assert child.stdout is not None
        given += child.stdout.readline().split()
    for child in children:
        child.communicate()
    assert len(given) == len(set(given)) == 30


def test_port_in_use_is_given_to_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [sys.executable, "-c", _DRAW.replace("range(10)", "range(5)"), str(port)]
        drawn = subprocess.run(command, cwd=ROOT, input="", capture_output=True, text=True, check=True).stdout.split()
    assert str(port) not in drawn and len(drawn) == 5
