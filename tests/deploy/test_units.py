"""The units of systemd: valid, hardened, and with the time that a drain takes."""

import re
import shutil
from pathlib import Path

import pytest
from django.conf import settings

from gateway_project.management.commands.worker import _STOP_TIMEOUT
from tests.deploy.conftest import DEPLOY
from tests.support.tools import judge, system_tool

_UNITS = ("trading-gateway@.service", "trading-gateway-worker.service")
# As systemd-analyze counts: 0 is closed, 10 is open. A unit that says nothing has 9.6.
_EXPOSURE = 1.5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The units, with programs and documents that this machine has."""
    for unit in (DEPLOY / "systemd").iterdir():
        text = unit.read_text()
        text = re.sub(r"^ExecStart=\S+ \S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text)
    shutil.copy(tmp_path / _UNITS[0], tmp_path / "trading-gateway@8001.service")
    return tmp_path


def value(unit: str, name: str) -> str:
    found = re.findall(rf"^{name}=(.*)$", (DEPLOY / "systemd" / unit).read_text(), re.MULTILINE)
    assert len(found) == 1, f"{unit}: {name}"
    return str(found[0])


def test_systemd_finds_the_units_good(folder: Path) -> None:
    names = ("trading-gateway@8001.service", _UNITS[1], "trading-gateway.target")
    said = judge(
        *(system_tool("systemd-analyze", "systemd"), "verify", "--man=no"), *(f"./{name}" for name in names), cwd=folder
    )
    assert said == ""


@pytest.mark.parametrize("unit", _UNITS)
def test_unit_is_hardened(folder: Path, unit: str) -> None:
    said = judge(
        *(system_tool("systemd-analyze", "systemd"), "security", "--offline=true", "--no-pager"),
        *(f"--threshold={_EXPOSURE * 10:.0f}", f"./{unit}"),
        cwd=folder,
    )
    assert "Overall exposure level" in said


def test_units_leave_the_time_of_a_drain() -> None:
    gateway, worker = _UNITS
    assert int(value(gateway, "TimeoutStopSec")) >= settings.GATEWAY_DRAIN_TIMEOUT * 2 + 30
    # Two threads, one after the other, and a job that runs.
    assert int(value(worker, "TimeoutStopSec")) >= _STOP_TIMEOUT * 2 + 30
    for unit in _UNITS:
        assert value(unit, "KillMode") == "mixed"


def test_restart_of_a_gateway_returns_when_it_serves() -> None:
    """What says READY=1 is tried in ``tests/e2e/test_production.py``."""
    assert value(_UNITS[0], "Type") == "notify"
    assert value(_UNITS[1], "Type") == "exec"
