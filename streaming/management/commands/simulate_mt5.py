"""``manage.py simulate_mt5``: load as terminals send it. Room: streaming.tools."""

import asyncio
import json
import signal
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import uvloop
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from streaming.tools.reach import GatewayNotThere, reach
from streaming.tools.simulator import Load, Simulation, Terminal
from streaming.tools.terminals import TerminalsUnavailable, from_credentials, from_demo, from_file
from tenants.load_users import load_tokens

# A token outlives its run by this many seconds.
_TOKEN_SLACK = 600.0
# Seconds for which a gateway that is not there may still be starting.
_PATIENCE = {"demo": 30.0, "load": 2.0}
_DEMO_LOAD = Load(ticks_per_second=25, batch_size=5, signals_per_second=0.5)


class Command(BaseCommand):
    help = "Streams a random walk from many terminals, resumes after anything, and says what became of each message."

    def add_arguments(self, parser: ArgumentParser) -> None:
        url = f"ws://127.0.0.1:{settings.RUNNING_GATEWAY_PORT}/ws/mt5"
        parser.add_argument("--url", default=url, help="the gateway (default %(default)s)")
        parser.add_argument("--clients", type=int, default=100, help="terminals (default %(default)s)")
        parser.add_argument("--ticks-per-second", type=float, default=50.0, help="of each terminal")
        parser.add_argument("--batch-size", type=int, default=5, help="ticks in one message")
        parser.add_argument("--signals-per-second", type=float, default=10.0, help="of all terminals together")
        parser.add_argument("--duration", type=float, default=30.0, help="seconds to stream (default %(default)s)")
        parser.add_argument("--settle", type=float, default=60.0, help="seconds to wait for the last answers")
        parser.add_argument("--token-file", type=Path, help="a token or API key a line, or what seed_bench prints")
        parser.add_argument("--subprotocol", choices=("protobuf", "json"), default="protobuf")
        parser.add_argument("--journal", type=Path, help="a file for 'user_id stream_id sequence' of each acknowledged")
        parser.add_argument("--demo", action="store_true", help="the demo's terminals, at an easy rate, until stopped")
        parser.add_argument("--json", action="store_true", help="end with one JSON object")

    def handle(self, *_args: Any, **options: Any) -> None:
        for name in ("clients", "batch_size"):
            if options[name] < 1:
                raise CommandError(f"--{name.replace('_', '-')} takes a number of at least 1")
        for name in ("ticks_per_second", "signals_per_second", "duration", "settle"):
            if not 0 <= options[name] < 1e9:
                raise CommandError(f"--{name.replace('_', '-')} takes a number of at least 0")
        try:
            terminals = self._terminals(options)
        except (TerminalsUnavailable, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from None
        load = _DEMO_LOAD
        if not options["demo"]:
            signals = options["signals_per_second"] / len(terminals)
            load = Load(options["ticks_per_second"], options["batch_size"], signals, options["subprotocol"])
        try:
            report = uvloop.run(self._run(terminals, load, options))
        except GatewayNotThere as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            self.stdout.write(json.dumps(report))
        else:
            for name, value in report.items():
                self.stdout.write(f"{name:20} {json.dumps(value)}")
        if not report["connected"]:
            raise CommandError(f"none of {len(terminals)} terminals got in at {options['url']}: {_reasons(report)}")

    def _terminals(self, options: dict[str, Any]) -> list[Terminal]:
        if options["demo"]:
            return from_demo(settings.GATEWAY_STATE_DIR / "demo.json", options["url"])
        if options["token_file"] is not None:
            return from_file(options["token_file"], options["clients"], options["url"])
        ttl = options["duration"] + options["settle"] + _TOKEN_SLACK
        return from_credentials(load_tokens(options["clients"], ttl=ttl), options["url"])

    async def _run(self, terminals: list[Terminal], load: Load, options: dict[str, Any]) -> dict[str, Any]:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        await reach(options["url"], _PATIENCE["demo" if options["demo"] else "load"], stopped)
        duration = None if options["demo"] else options["duration"]
        # What a demo still owes at its end is not worth the wait.
        settle = 2.0 if options["demo"] else options["settle"]
        if options["journal"] is None:
            return await Simulation(options["url"], terminals, load).run(duration, settle, stopped)
        try:
            with options["journal"].open("w", encoding="utf-8") as journal:
                return await Simulation(options["url"], terminals, load, journal).run(duration, settle, stopped)
        except OSError as error:
            raise CommandError(f"--journal {options['journal']}: {error.strerror}") from None


def _reasons(report: dict[str, Any]) -> str:
    """Why nobody got in, the most frequent reason first."""
    refused = {f"HTTP {status}": count for status, count in report["handshakes_refused"].items()}
    counts = {**report["not_started"], **refused}
    named = [f"{reason} ({count}x)" for reason, count in sorted(counts.items(), key=lambda item: -item[1])]
    return "; ".join(named) or "it takes connections, and says nothing"
