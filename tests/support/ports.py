"""Free TCP ports of this machine."""

import itertools
import os
import random
import socket

# Below the ports that the kernel gives to outgoing connections, one of which could take a port before its server does.
_FIRST, _LAST = 20_000, 32_000
_WORKERS = 4
_SHARE = (_LAST - _FIRST) // _WORKERS


def _ports() -> "itertools.cycle[int]":
    """Those of this test process, from a random one on: runs beside each other do not meet."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    ports = list(range(_FIRST + worker * _SHARE, _FIRST + (worker + 1) * _SHARE))
    start = random.SystemRandom().randrange(_SHARE)
    return itertools.cycle(ports[start:] + ports[:start])


_next_ports = _ports()


def free_port() -> int:
    """A port that nobody listens on now."""
    for port in itertools.islice(_next_ports, _SHARE):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"all ports from {_FIRST} to {_LAST} are in use")


def is_listening(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
