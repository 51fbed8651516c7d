"""What is started is kept running and never outlives its parent (demo: children)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway_project.demo.children import PAUSE_LIMIT, STABLE_AFTER, Child

ROOT = Path(__file__).resolve().parents[2]


def eventually(is_so: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_alive(pid: int) -> bool:
    """A zombie is none: it only waits for somebody to read its status."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.fixture
def make_child(tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    made: list[Child] = []

    def make(program: str) -> Child:
        made.append(Child("child", [sys.executable, "-c", program], tmp_path / "logs" / "child.log"))
        return made[-1]

    yield make
    for child in made:
        child.stop(0)


def test_pause_before_a_restart_doubles_up_to_its_limit(make_child: Callable[[str], Child]) -> None:
    child = make_child("raise SystemExit(3)")
    now, pauses = 0.0, []
    child.start(now)
    for _ in range(7):
        assert eventually(lambda: child.has_ended)
        assert "ended with status 3" in child.look(now)
        assert child.look(now) == ""
        began = now
        while not child.look(now):
            now += 0.25
        pauses.append(now - began)
    assert pauses == [0.5, 1, 2, 4, 8, PAUSE_LIMIT, PAUSE_LIMIT]
    assert child.restarts == 7


def test_pause_is_short_again_after_a_stable_run(make_child: Callable[[str], Child]) -> None:
    child = make_child("import time; time.sleep(60)")
    child.start(0.0)
    for now, pause in ((1.0, "0.5 s"), (3.0, "1 s"), (10.0 + STABLE_AFTER, "0.5 s")):
        os.kill(child.pid, signal.SIGKILL)
        assert eventually(lambda: child.has_ended)
        text = child.look(now)
        assert "was killed by signal 9" in text
        assert f"in {pause} " in text
        assert child.look(now + 1.0).startswith("child started again")


def test_announced_port_is_of_the_last_start(make_child: Callable[[str], Child]) -> None:
    child = make_child(
        "import os, time; print('hello'); print('{\"port\": %d}' % os.getpid(), flush=True); time.sleep(60)"
    )
    for _ in range(2):
        child.start(0.0)
        assert eventually(lambda: child.announced_port() == child.pid)
        assert child.stop(5.0)
        assert child.pid == 0


def test_stop_kills_what_does_not_listen_and_all_it_started(make_child: Callable[[str], Child]) -> None:
    child = make_child(
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('{\"port\": %d}' % grandchild.pid, flush=True); time.sleep(60)"
    )
    child.start(0.0)
    assert eventually(lambda: child.announced_port() > 0)
    pids = (child.pid, child.announced_port())
    assert not child.stop(0.2)
    assert eventually(lambda: not any(map(is_alive, pids)))


def test_child_ends_with_its_killed_parent(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from gateway_project.demo.children import Child\n"
        "child = Child('c', [sys.executable, '-c', 'import time; time.sleep(60)'], Path(sys.argv[1]))\n"
        "child.start(0.0); print(child.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "c.log")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    assert eventually(lambda: not is_alive(pid))
