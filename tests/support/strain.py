"""How much others take of this machine, for bounds that are promised on processors of one's own."""

import os
import threading
from pathlib import Path

_PAUSE = 0.05


class Strain:
    """Used around what is timed. ``factor`` is 1.0 on a machine that keeps up, and n where n times as many processes
    want to run as there are processors: the time that each of them takes grows like that."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._seen: list[int] = []
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Strain":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_PAUSE):
            # "0.20 0.18 0.12 3/80 11206": 3 run or want to, this look included.
            running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
            self._seen.append(int(running) - 1)

    @property
    def factor(self) -> float:
        """Of the worst tenth of the time: it is the slowest answers that bounds are about."""
        seen = sorted(self._seen)
        worst = seen[int(len(seen) * 0.9)] if seen else 0
        return max(1.0, worst / (os.cpu_count() or 1))
