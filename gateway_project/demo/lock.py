"""One holder of a file at a time. Room: gateway_project (demo)."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class AlreadyRunning(Exception):
    """The text names the process that holds the lock."""


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """The kernel lets go of the lock when its holder ends, however it ends; the file stays and means nothing."""
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            hint = "stop it with Ctrl-C in its terminal, or"
            raise AlreadyRunning(f"it already runs, as process {holder}: {hint} kill {holder}") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
