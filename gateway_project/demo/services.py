"""What runs on one machine, in the order in which it starts. Room: gateway_project (demo).

Contract: a service that the environment names is somebody else's and is neither started nor stopped here.
"""

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings
from django.core.management import get_commands

from gateway_project.demo.children import Child
from gateway_project.env import Env
from gateway_project.local_state import ProcessRecord

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Services:
    """``embedded`` start first and say where they listen; ``product`` starts when that is known."""

    embedded: list[Child]
    product: list[Child]
    # Lines for the screen about what is not started, and why.
    absent: list[str] = field(default_factory=list)

    def all(self) -> list[Child]:
        return [*self.embedded, *self.product]

    def find(self, name: str) -> Child | None:
        return next((child for child in self.all() if child.name == name), None)

    def records(self) -> list[ProcessRecord]:
        """The content of ``processes.json``: what runs at this moment."""
        return [{"name": child.name, "pid": child.pid, "port": child.port} for child in self.all() if child.pid]


def plan(port: int) -> Services:
    """Decides from the environment; ``settings`` cannot tell, they may have found the services of an earlier start."""
    logs: Path = settings.GATEWAY_STATE_DIR / "logs"
    embedded: list[Child] = []
    absent: list[str] = []
    if os.environ.get("REDIS_URL"):
        absent.append("Redis: yours, as REDIS_URL says")
    else:
        embedded.append(_command("valkey", ["embedded_valkey", "--port", "0"], logs))
    if kafka := Env().text("GATEWAY_KAFKA_BOOTSTRAP_SERVERS"):
        absent.append(f"Kafka: yours, {kafka}")
    else:
        embedded.append(_command("broker", ["embedded_broker"], logs))
    if address := Env().text("MIDTRANS_BASE_URL"):
        absent.append(f"Midtrans: yours, {address}")
    else:
        told = f"http://{HOST}:{port}/billing/midtrans/notifications/"
        arguments = ["midtrans_sandbox", "--host", HOST, "--notification-url", told, "--port", "0"]
        embedded.append(_command("midtrans_sandbox", arguments, logs))
    # The port may come from an option: what the worker writes into mails, and what people see, names it.
    told_port = {"GATEWAY_PORT": str(port)}
    gateway = _command("gateway", ["gateway", "--host", HOST, "--port", str(port)], logs, told_port)
    gateway.port = port
    product = [gateway, _command("worker", ["worker"], logs, told_port)]
    if not settings.GATEWAY_DEMO:
        absent.append("simulated terminals: off, as GATEWAY_DEMO says")
    elif "simulate_mt5" not in get_commands():
        absent.append("simulated terminals: there is no command simulate_mt5")
    else:
        stream = ["simulate_mt5", "--demo", "--url", f"ws://{HOST}:{port}/ws/mt5"]
        product.append(_command("terminals", stream, logs))
    return Services(embedded, product, absent)


def listens_on(child: Child, port: int) -> None:
    """Notes where an embedded service listens; those that can keep the port when they start again: nobody notices."""
    child.port = port
    if child.name in ("valkey", "midtrans_sandbox"):
        child.command[-1] = str(port)


def is_port_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the gateway binds: connections that wait for their last packets do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _command(name: str, arguments: list[str], logs: Path, own: Mapping[str, str] | None = None) -> Child:
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), *arguments]
    return Child(name, command, logs / f"{name}.log", own)
