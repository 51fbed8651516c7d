"""From nothing to a gateway that takes terminals, step by step. Room: gateway_project (demo)."""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor

from billing.demo import forget_payments, give_plans
from gateway_project.demo.children import Child
from gateway_project.demo.screen import Screen
from gateway_project.demo.services import SANDBOX, Services, has_port, is_port_free
from gateway_project.demo.traffic import fetch
from gateway_project.local_state import write_processes
from tenants.demo import Demo, seed_demo

_T = TypeVar("_T")
_TIMEOUT = 30.0
_LOG_LINES = 20
_TICK = 0.05


class StartFailed(Exception):
    """The text says what to do."""


class Startup:
    """``check`` is called between steps and while waiting, and raises when the user wants to stop."""

    def __init__(self, port: int, services: Services, screen: Screen, check: Callable[[], None]) -> None:
        self._port = port
        self._services = services
        self._screen = screen
        self._check = check
        self._state_dir = settings.GATEWAY_STATE_DIR

    def run(self) -> None:
        """Raises StartFailed; what was started by then is the caller's to stop."""
        began = time.monotonic()
        if not is_port_free(self._port):
            hint = f"choose another one, for example GATEWAY_PORT={self._port + 1} make run"
            raise StartFailed(f"port {self._port} is in use by another program: {hint}")
        for log in (self._state_dir / "logs").glob("*.log"):
            log.unlink()
        # Nothing of an earlier start may be taken for running.
        write_processes(self._state_dir, [])
        for child in self._services.embedded:
            child.start(time.monotonic())
        # They start while the database is prepared.
        self._step("database", self._migrate)
        for child in self._services.embedded:
            if child.name != SANDBOX:
                self._await_embedded(child)
        write_processes(self._state_dir, self._services.records())
        gateway, *others = self._services.product
        # It starts while the demo is looked through.
        gateway.start(time.monotonic())
        demo = self._step("demo companies and logins", self._seed)
        connections.close_all()
        self._step("gateway", lambda: self._await(gateway, self._not_ready))
        for child in others:
            child.start(time.monotonic())
        sandbox = self._services.find(SANDBOX)
        if sandbox is not None:
            self._await_embedded(sandbox)
        write_processes(self._state_dir, self._services.records())
        self._screen.say(f"ready after {time.monotonic() - began:.1f} s")
        self._screen.header(self._port, self._services.all(), self._services.absent, demo, self._state_dir)

    def _await_embedded(self, child: Child) -> None:
        self._step(f"{child.name}, in memory", partial(self._await, child, partial(_not_listening, child)))

    def _migrate(self) -> None:
        count = waiting_migrations()
        if count:
            self._screen.doing(f"making the tables: {count} steps")
            call_command("migrate", verbosity=0, interactive=False)

    def _seed(self) -> Demo:
        demo = seed_demo(self._state_dir / "demo.json", lambda name: self._screen.doing(f"making the login {name}"))
        give_plans({company["slug"]: company["tier"] for company in demo["companies"]})
        if self._services.find(SANDBOX) is not None:
            forget_payments()
        return demo

    def _step(self, what: str, work: Callable[[], _T]) -> _T:
        self._check()
        began = time.monotonic()
        try:
            result = work()
        except (DatabaseError, CommandError) as error:
            raise StartFailed(f"{what}: {error}") from error
        self._screen.step(what, time.monotonic() - began)
        return result

    def _await(self, child: Child, missing: Callable[[], str]) -> None:
        """``missing``: what is not there yet, "" when all is."""
        deadline = time.monotonic() + _TIMEOUT
        while what := missing():
            self._check()
            if child.has_ended or time.monotonic() > deadline:
                why = "ended" if child.has_ended else f"was not ready within {_TIMEOUT:g} s: {what}"
                last = "\n".join(child.output().splitlines()[-_LOG_LINES:])
                raise StartFailed(f"{child.name} {why}; the end of {child.log}:\n{last}")
            time.sleep(_TICK)

    def _not_ready(self) -> str:
        status, text = fetch(self._port, "/readyz")
        return "" if status == 200 else text or "no answer from /readyz"


def waiting_migrations() -> int:
    """How many the database does not have yet; raises DatabaseError."""
    executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _not_listening(child: Child) -> str:
    return "" if has_port(child) else "it has not said where it listens"
