"""Installs the packages of a requirements file and shows that it goes on. Room: gateway_project.

Runs before anything is installed, so it stands on Python alone: ``python -P gateway_project/install.py FILE``. pip by
itself either says nothing for a minute or fills the screen.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable

# Seconds of silence after which a line says that it is still at work.
_QUIET = 5.0
_KEPT_LINES = 40


def show(lines: Iterable[str], say: Callable[[str], None]) -> list[str]:
    """Tells by ``say`` what pip's ``lines`` mean, one line for each package; the last lines as they were."""
    count = 0
    kept: list[str] = []
    for line in lines:
        kept = [*kept[1 - _KEPT_LINES :], line.rstrip()]
        word, _, rest = line.strip().partition(" ")
        if word == "Collecting":
            count += 1
            say(f"{count:3}  {rest.split(' (from')[0]}")
        elif line.startswith("Installing collected packages"):
            say(f"     unpacking {rest.count(',') + 1} packages")
        elif word in ("ERROR:", "WARNING:"):
            say(line.strip())
    return kept


class Said:
    """Prints with the seconds since the start, and something after each time of silence."""

    def __init__(self, quiet: float = _QUIET) -> None:
        self._began = self._last = time.monotonic()
        self._quiet = quiet
        self._ended = threading.Event()
        self._what = "looking for packages"
        threading.Thread(target=self._fill, daemon=True).start()

    def __call__(self, text: str) -> None:
        self._what = text.strip()
        self._print(text)

    def end(self) -> float:
        """Seconds it took."""
        self._ended.set()
        return time.monotonic() - self._began

    def _print(self, text: str) -> None:
        self._last = time.monotonic()
        sys.stdout.write(f"  {self._last - self._began:4.0f} s  {text}\n")
        sys.stdout.flush()

    def _fill(self) -> None:
        while not self._ended.wait(0.2):
            if time.monotonic() - self._last > self._quiet:
                self._print(f"     … {self._what}")


def main(requirements: str) -> int:
    """The exit status of pip, whose last lines are shown when it fails."""
    # What is imported is compiled then; all the rest never.
    switches = ["--disable-pip-version-check", "--no-input", "--no-compile", "--progress-bar", "off"]
    command = [sys.executable, "-m", "pip", "install", *switches, "-r", requirements]
    said = Said()
    with subprocess.Popen(  # noqa: S603 (pip, with a file of ours)
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        kept = show(pip.stdout or (), said)
    seconds = said.end()
    if pip.returncode:
        sys.stdout.write("\n".join(kept) + "\n")
    else:
        sys.stdout.write(f"  {seconds:4.0f} s  installed\n")
    return pip.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
