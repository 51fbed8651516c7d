"""Programs that judge our files: of the system, by Debian's packages, and of Python, in the virtual environment."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_SYSTEM_PATH = "/usr/sbin:/sbin"


class ToolMissing(RuntimeError):
    """It cannot be had; the message says how to install it."""


def system_tool(name: str, package: str) -> str:
    """Its path. Raises ToolMissing, so that a test fails and is not skipped."""
    found = shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH)
    if found is None:
        raise ToolMissing(f"{name} is missing: apt-get install {package} (.ci/run does)")
    return found


def python_tool(name: str) -> str:
    """Its path in the environment that runs the tests. Raises ToolMissing."""
    found = Path(sys.executable).parent / name
    if not found.exists():
        raise ToolMissing(f"{name} is missing: {sys.executable} -m pip install -r requirements-dev.txt")
    return str(found)


def judge(*command: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """What the tool says of files that it must find good."""
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr
