"""Several serving processes on one port: one dies and comes back, none outlives its parent."""

import os
import signal
from collections.abc import Callable

import psutil

from tests.support.gateway import Gateway, until
from tests.support.terminal import Terminal


def children_of(gateway: Gateway) -> list[int]:
    assert gateway.process is not None
    return sorted(child.pid for child in psutil.Process(gateway.process.pid).children())


def test_process_that_dies_is_started_again_while_the_other_serves(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway().start("--processes", "2")
    until(lambda: len(children_of(gateway)) == 2, 20, "two children")
    victim, other = children_of(gateway)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(children_of(gateway)) == 2 and victim not in children_of(gateway), 20, "a new child")
    assert other in children_of(gateway)
    until(lambda: gateway.http("/readyz")[0] == 200, 20, "ready")
    assert any(event["event"] == "gateway_process_died" for event in gateway.events())
    assert gateway.stop() == 0


def test_metrics_of_all_processes_come_from_any_of_them(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway().start("--processes", "2")
    terminals = []
    try:
        for user in gateway.users[:12]:
            terminals.append(Terminal(gateway, user.token))
        until(lambda: gateway.metric("gateway_connections") == 12, 20, "the sum over both processes")
    finally:
        for terminal in terminals:
            terminal.close()


def test_children_end_with_their_killed_parent(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway().start("--processes", "2")
    until(lambda: len(children_of(gateway)) == 2, 20, "two children")
    children = children_of(gateway)
    gateway.kill()
    until(lambda: not any(psutil.pid_exists(pid) for pid in children), 40, "no child left")
