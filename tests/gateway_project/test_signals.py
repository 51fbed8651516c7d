"""A process that is asked to stop does, however often and in whatever moment (gateway_project: signals)."""

import os
import subprocess
import sys

import pytest

from tests.support.gateway import ROOT

# Inside of the event's own lock, as a wait is when it begins and ends, and as the setting of it is.
_ASKED_IN_THE_WORST_MOMENT = """
import os, signal, sys
from gateway_project.signals import stop_of_signals
stopping = stop_of_signals()
assert not stopping.wait(0.01)
with stopping._cond:
    for _ in range(int(sys.argv[2])):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
sys.exit(0 if stopping.wait(10) else 1)
"""


# The last: more than the pipe holds.
@pytest.mark.parametrize(("number", "times"), [("SIGTERM", 1), ("SIGINT", 2), ("SIGTERM", 70_000)])
def test_process_stops_whenever_it_is_asked(number: str, times: int) -> None:
    command = [sys.executable, "-c", _ASKED_IN_THE_WORST_MOMENT, number, str(times)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment, timeout=20, check=False).returncode == 0
