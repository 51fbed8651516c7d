"""Starts the product on this machine, watches it and stops it. Room: gateway_project (demo).

Contract: one supervisor for a state folder; exit status 0 after a stop that was asked for, 1 when the start failed,
130 when a second signal hurried the stop. Whatever happens, no process of it stays.
"""

import signal
import time
from pathlib import Path
from types import FrameType

from django.conf import settings

from gateway_project.demo import traffic
from gateway_project.demo.lock import AlreadyRunning, only_one
from gateway_project.demo.screen import Screen
from gateway_project.demo.services import Services, has_port, plan
from gateway_project.demo.startup import StartFailed, Startup
from gateway_project.local_state import write_processes

_TICK = 0.1
# For what holds nothing of value, or nothing that could still be delivered.
_SHORT_STOP = 5.0
_RESTART_STOP = 2.0


class _StopAsked(Exception):
    """SIGINT or SIGTERM came."""


class Supervisor:
    def __init__(self, port: int, screen: Screen) -> None:
        self._port = port
        self._screen = screen
        self._state_dir: Path = settings.GATEWAY_STATE_DIR
        self._services = Services([], [])
        self._signals = 0

    def run(self) -> int:
        """Blocks until it is over; the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup has the closed terminal ignored.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._count_signal)
        try:
            with only_one(self._state_dir / "demo.lock"):
                try:
                    self._services = plan(self._port)
                    startup = Startup(self._port, self._services, self._screen, self._check)
                    startup.run()
                    self._watch()
                finally:
                    self._stop()
        except _StopAsked:
            return 130 if self._signals > 1 else 0
        except (StartFailed, AlreadyRunning) as failure:
            self._screen.say(str(failure), style="red")
        return 1

    def _watch(self) -> None:
        before: traffic.Snapshot | None = None
        next_look = 0.0
        while True:
            self._check()
            self._look_after_children()
            now = time.monotonic()
            if now >= next_look:
                next_look = now + 1.0
                status, text = traffic.fetch(self._port, "/metrics", token=settings.GATEWAY_METRICS_TOKEN)
                after = traffic.parse(text, time.monotonic()) if status == 200 else None
                shown = traffic.between(before or after, after) if after is not None else None
                before = after
                self._screen.show(shown, self._services.all())
            time.sleep(_TICK)

    def _look_after_children(self) -> None:
        changes = [text for child in self._services.all() if (text := child.look(time.monotonic()))]
        for text in changes:
            self._screen.say(text, style="yellow")
        broker = self._services.find("broker")
        if broker is not None and not broker.pid:
            # It cannot choose its port: the next one will be another.
            broker.port = 0
        elif broker is not None and not broker.port and has_port(broker):
            self._screen.say("the broker listens elsewhere now: gateway, worker and terminals start again", "yellow")
            write_processes(self._state_dir, self._services.records())
            self._restart_product()
            changes.append("")
        if changes:
            write_processes(self._state_dir, self._services.records())

    def _restart_product(self) -> None:
        """Waits for no long drain: what was not acknowledged yet has gone with the old broker."""
        for child in self._services.product:
            child.ask_to_stop()
        for child in self._services.product:
            child.stop(_RESTART_STOP, lambda: self._signals > 0)
            self._check()
            child.start(time.monotonic())

    def _stop(self) -> None:
        """In the order in which nothing misses what it needs: everything is answered before the broker goes."""
        self._screen.end()
        is_running = any(child.pid for child in self._services.all())
        if is_running:
            self._screen.say("stopping; a second Ctrl-C stops at once")
        for child in reversed(self._services.all()):
            timeout = settings.GATEWAY_DRAIN_TIMEOUT + _SHORT_STOP if child.name == "gateway" else _SHORT_STOP
            if not child.stop(timeout, lambda: self._signals > 1):
                self._screen.say(f"{child.name} was killed", style="yellow")
        (self._state_dir / "processes.json").unlink(missing_ok=True)
        if is_running:
            self._screen.say("stopped")

    def _check(self) -> None:
        if self._signals:
            raise _StopAsked

    def _count_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
