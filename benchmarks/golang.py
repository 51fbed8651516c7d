"""The peers in Go: built at the start of a run, into its own folder. Room: benchmarks."""

import shutil
import subprocess
from pathlib import Path

from benchmarks.children import BenchmarkError, clean_environment

_PEERS = Path(__file__).resolve().parent / "peers"
# Seconds: the first build on a machine fetches the modules and compiles the standard library.
_BUILD_TIMEOUT = 600


def go_installed() -> bool:
    return shutil.which("go") is not None


def build(name: str, directory: Path) -> Path:
    """The program of the module ``benchmarks/peers/<name>``; raises BenchmarkError with the compiler's output."""
    program = directory / name
    # The checkout's state is not needed in the program, and where Git cannot tell it the build would fail.
    arguments = ["build", "-trimpath", "-buildvcs=false", "-o", str(program), "."]
    done = _go(arguments, _PEERS / name)
    if done.returncode:
        raise BenchmarkError(f"go build of {name} failed:\n{done.stderr[-4000:].rstrip()}")
    return program


def versions(program: Path) -> dict[str, str]:
    """Of Go and of the two modules that the figures hang on, as they are in the program."""
    found: dict[str, str] = {}
    for line in _go(["version", "-m", str(program)], program.parent).stdout.splitlines():
        words = line.split()
        if words[0] == f"{program}:":
            found["Go"] = words[1].removeprefix("go")
        elif words[0] == "dep" and words[1].endswith(("/gorilla/websocket", "/franz-go")):
            found[words[1].removeprefix("github.com/")] = words[2].removeprefix("v")
    return found


def _go(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["go", *arguments],
            cwd=folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=_BUILD_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"go {arguments[0]} took longer than {_BUILD_TIMEOUT} s") from None
