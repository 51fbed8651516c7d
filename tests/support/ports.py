"""Free TCP ports of this machine."""

import fcntl
import itertools
import os
import random
import socket
import tempfile
from pathlib import Path

# Below the ports that the kernel gives to outgoing connections, one of which could take a port before its server does.
_FIRST, _LAST = 20_000, 32_000
_RESERVED = Path(tempfile.gettempdir()) / f"gateway-test-ports-{os.getuid()}"
# From a random one on, so that runs beside each other seldom try the same ones.
_start = random.SystemRandom().randrange(_LAST - _FIRST)
_next_ports: "itertools.cycle[int]" = itertools.cycle([*range(_FIRST + _start, _LAST), *range(_FIRST, _FIRST + _start)])
# Held for as long as this process lives; the kernel lets go of them however it ends.
_held: list[int] = []


def free_port() -> int:
    """A port that nobody listens on now, and that no other test process of this machine is given until this one ends:
    a server that is stopped finds it free when it starts again."""
    _RESERVED.mkdir(exist_ok=True)
    for port in itertools.islice(_next_ports, _LAST - _FIRST):
        if not _reserve(port):
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError(f"all ports from {_FIRST} to {_LAST} are in use")


def _reserve(port: int) -> bool:
    descriptor = os.open(_RESERVED / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    _held.append(descriptor)
    return True


def is_listening(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
