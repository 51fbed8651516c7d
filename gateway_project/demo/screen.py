"""The one screen of ``make run``. Room: gateway_project (demo).

On a terminal: the header once, then a live part below everything that is said. Anywhere else: plain lines. A terminal
that has gone away silences the screen and stops nothing.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gateway_project.demo.children import Child
from gateway_project.demo.services import HOST
from gateway_project.demo.traffic import Traffic
from tenants.demo import Demo

# Seconds between two status lines where they pile up.
_PLAIN_INTERVAL = 5.0
_PLAIN_WIDTH = 160
_MANAGE = ".venv/bin/python manage.py"


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the process here, and with it the order in which the services stop."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Screen:
    def __init__(self) -> None:
        self._console = _Console(highlight=False, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
        self._live: Live | None = None
        self._next_line_at = 0.0

    @property
    def is_terminal(self) -> bool:
        return self._console.is_terminal

    def say(self, text: str, style: str = "") -> None:
        """One line, above the live part."""
        self._print(Text(text, style=style))

    def doing(self, text: str) -> None:
        """What begins now and takes some seconds."""
        self._print(Text.assemble(("  ..  ", "yellow"), (text, "dim")))

    def step(self, text: str, seconds: float) -> None:
        self._print(Text.assemble(("  ok  ", "green"), text, (f"  {seconds:.1f} s", "dim")))

    def header(self, port: int, children: Sequence[Child], absent: Sequence[str], demo: Demo, state_dir: Path) -> None:
        """What runs where, who may log in, and what to try next."""
        web = f"http://{HOST}:{port}"
        payments = next((child.port for child in children if child.name == "midtrans_sandbox"), 0)
        where = Table.grid(padding=(0, 2))
        for name, text in (
            ("terminals connect to", f"ws://{HOST}:{port}/ws/mt5"),
            ("administration", f"{web}/admin/"),
            ("buy a plan", f"{web}/admin/billing/account/ as merapi-admin"),
            *((("test payments", f"http://{HOST}:{payments}/ (a stand-in for Midtrans)"),) if payments else ()),
            ("metrics, readiness", f"{web}/metrics  {web}/readyz"),
            ("logs", f"{state_dir / 'logs'}/*.log"),
            ("running", ", ".join(f"{c.name}{f' :{c.port}' if c.port else ''}" for c in children)),
            *(("", line) for line in absent),
        ):
            where.add_row(Text(name, style="dim"), Text(text, overflow="fold"))
        parts: list[Table | Text] = [where]
        if any(child.name == "broker" for child in children):
            parts.append(
                Text("The embedded Kafka broker lives in memory: its records are gone after the stop.", "yellow")
            )
        parts += [Text(), _logins(demo), Text(f"whole API keys: {_MANAGE} seed_demo", style="dim"), Text()]
        parts += [
            Text("read what arrives   ") + Text(f"{_MANAGE} tail tick-data --max 5 --json", style="cyan"),
            Text("make a token        ") + Text(f"{_MANAGE} issue_token --user bromo-dewi", style="cyan"),
            Text("stop                ") + Text("Ctrl-C", style="cyan"),
        ]
        body = Group(*parts)
        self._next_line_at = time.monotonic() + _PLAIN_INTERVAL
        self._print(Panel(body, title="Trading gateway", border_style="green") if self.is_terminal else body)

    def show(self, traffic: Traffic | None, children: Sequence[Child]) -> None:
        """The state of this second; ``traffic`` is None while the gateway does not answer."""
        line = status_line(traffic)
        if not self.is_terminal:
            now = time.monotonic()
            if now >= self._next_line_at:
                self._next_line_at = now + _PLAIN_INTERVAL
                self._print(Text(line))
            return
        body = Group(Text(line, style="bold"), Text("  ").join(map(_mark, children)))
        try:
            if self._live is None:
                # Without its own refreshing thread: processes are forked from this one.
                self._live = Live(body, console=self._console, auto_refresh=False, redirect_stderr=False)
                self._live.start()
            self._live.update(body, refresh=True)
        except OSError:
            self._console.quiet = True

    def end(self) -> None:
        """Leaves the live part; what is said from here on stands below it."""
        if self._live is not None:
            live, self._live = self._live, None
            try:
                live.stop()
            except OSError:
                self._console.quiet = True

    def _print(self, body: Panel | Group | Text) -> None:
        try:
            self._console.print(body)
            sys.stdout.flush()
        except OSError:
            # A closed terminal answers with EIO.
            self._console.quiet = True


def status_line(traffic: Traffic | None) -> str:
    if traffic is None:
        return "the gateway does not answer"
    delay = "no delays yet"
    if traffic.delay_p50 is not None and traffic.delay_p99 is not None:
        delay = f"delay p50 {traffic.delay_p50:.1f} / p99 {traffic.delay_p99:.1f} ms"
    # Short enough for a terminal of 80 columns while the figures are the demo's.
    return (
        f"messages/s {traffic.accepted:,.0f}, acknowledged {traffic.acknowledged:,.0f}, "
        f"refused {traffic.refused:,.0f}; {traffic.connections} terminals; {delay}"
    )


def _mark(child: Child) -> Text:
    again = f" (started again {child.restarts}×)" if child.restarts else ""
    return Text("● " if child.pid else "○ ", "green" if child.pid else "red") + Text(f"{child.name}{again}")


def _logins(demo: Demo) -> Table:
    companies = {company["slug"]: f"{company['slug']}, {company['tier']}" for company in demo["companies"]}
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for title in ("username", "password", "role", "company", "API key"):
        table.add_column(title, overflow="fold")
    for user in demo["users"]:
        key = f"{user['api_key'][:8]}…" if user["api_key"] else "–"
        company = companies.get(user["company"], "all (/admin/)")
        table.add_row(*map(escape, (user["username"], user["password"], user["role"], company, key)))
    return table
