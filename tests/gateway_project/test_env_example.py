"""``.env.example`` names every setting, with the default that it really has."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway_project.local_state import write_processes
from gateway_project.settings import env
from tests.support.gateway import ROOT, clean_environment

# Above what the kernel gives to a process.
_ENDED = 2**22 + 1
_LINE = re.compile(r"# ([A-Z][A-Z0-9_]+)=(.*)")
_DUMP = """
import json
from gateway_project import settings
values = {name: getattr(settings, name) for name in dir(settings) if name.isupper() and name != "LOGGING"}
print(json.dumps(values, default=str))
"""


def examples() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return {match[1]: match[2] for line in lines if (match := _LINE.fullmatch(line))}


def settings_under(environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-c", _DUMP]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    values: dict[str, Any] = json.loads(done.stdout)
    return values


@pytest.mark.parametrize(
    ("own", "is_running", "port"),
    [({}, True, 8451), ({"GATEWAY_PORT": "9000"}, True, 9000), ({}, False, 8000)],
)
def test_commands_find_the_gateway_that_is_said_or_running(
    tmp_path: Path, own: dict[str, str], is_running: bool, port: int
) -> None:
    pid = os.getpid() if is_running else _ENDED
    write_processes(tmp_path, [{"name": "gateway", "pid": pid, "port": 8451}])
    assert settings_under(clean_environment(tmp_path, **own))["RUNNING_GATEWAY_PORT"] == port


def test_every_setting_is_listed_once() -> None:
    known = {name for name in env.known if not name.endswith("_FILE")}
    lines = (ROOT / ".env.example").read_text().splitlines()
    listed = [match[1] for line in lines if (match := _LINE.fullmatch(line))]
    assert sorted(listed) == sorted(known)


def test_listed_defaults_are_the_defaults(tmp_path: Path) -> None:
    given = {name: value for name, value in examples().items() if value}
    assert len(given) > 30
    plain = settings_under(clean_environment(tmp_path))
    assert settings_under(clean_environment(tmp_path, **given)) == plain
