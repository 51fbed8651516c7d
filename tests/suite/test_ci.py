"""What runs for every commit: it brings what a bare machine lacks, and a red result is red (.ci/run)."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.skips import ROOT

# What the script itself is made of; nothing else of this machine is on the path.
_TOOLS = ("bash", "dirname", "env")
# The program that shows that it is there, and the package that brings it.
_NEEDED = {
    "java": "openjdk-17-jre-headless",
    "mvn": "maven",
    "msgfmt": "gettext",
    "make": "make",
    "go": "golang-go",
    "openssl": "openssl",
    "systemd-analyze": "systemd",
    "python3": "python3-venv",
}


class Machine:
    """A path with a few programs that only note how they were called."""

    def __init__(self, directory: Path) -> None:
        self._folder, self._calls = directory / "bin", directory / "calls"
        self._folder.mkdir()
        for name in _TOOLS:
            found = shutil.which(name)
            assert found is not None
            (self._folder / name).symlink_to(found)
        self.add("id", "echo 0")
        self.add("apt-get")

    def add(self, name: str, does: str = "exit 0") -> None:
        program = self._folder / name
        program.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"{self._calls}"\n{does}\n')
        program.chmod(0o755)

    def run(self) -> int:
        environment = {**os.environ, "PATH": str(self._folder)}
        script = str(ROOT / ".ci" / "run")
        return subprocess.run([script], env=environment, check=False, capture_output=True).returncode

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("status", [0, 2])
def test_status_of_the_checks_is_that_of_the_run(machine: Machine, status: int) -> None:
    for name in _NEEDED:
        machine.add(name)
    machine.add("make", f"exit {status}")
    assert machine.run() == status
    assert machine.calls[-1] == "make test check"


def test_bare_machine_is_given_all_that_the_tests_need(machine: Machine) -> None:
    # Without make the run ends red in the end; what is asked for before is what counts.
    assert machine.run() != 0
    [install] = [call for call in machine.calls if " install " in call]
    assert set(_NEEDED.values()) <= set(install.split())


@pytest.mark.parametrize("missing", sorted(_NEEDED))
def test_only_what_is_missing_is_installed(machine: Machine, missing: str) -> None:
    for name in set(_NEEDED) - {missing}:
        machine.add(name)
    machine.run()
    [install] = [call for call in machine.calls if " install " in call]
    assert [name for name in _NEEDED.values() if name in install.split()] == [_NEEDED[missing]]


def test_install_that_fails_ends_the_run_red(machine: Machine) -> None:
    for name in set(_NEEDED) - {"java"}:
        machine.add(name)
    machine.add("apt-get", "exit 100")
    assert machine.run() == 100
    assert not any(call.startswith("make") for call in machine.calls)
