"""From samples to the table: medians, ratios, goals. Room: benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from rich.table import Table

from benchmarks.phases import PACED_RATE, IdleSample, Sample
from benchmarks.servers import SERVERS
from benchmarks.stats import Spread, median_spread

SpreadName = Literal["consumer", "tick_ack", "signal_ack", "produce"]
_ANSWERS: tuple[SpreadName, ...] = ("produce", "signal_ack", "tick_ack")
_LABELS = {server.name: server.label for server in SERVERS}


@dataclass(frozen=True, slots=True)
class Line:
    """One figure against its goal; ``goal`` is the largest value that meets it, None where there is none."""

    figure: str
    measured: float
    unit: str
    goal: float | None
    detail: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.measured <= self.goal


class Results:
    """All samples of a run; the figures are medians over its turns."""

    def __init__(self, samples: Sequence[Sample], idle: Sequence[IdleSample]) -> None:
        self.samples = samples
        self.idle = idle

    def of(self, server: str, phase: str, *, acks: bool = False) -> list[Sample]:
        return [
            s for s in self.samples if (s["server"], s["phase"], s["acks"]) == (server, phase, acks) and s["messages"]
        ]

    def cost(self, server: str, phase: str, *, acks: bool = False) -> float | None:
        """CPU microseconds a message."""
        found = self.of(server, phase, acks=acks)
        return median(s["cpu_us_per_message"] for s in found) if found else None

    def rate(self, server: str, phase: str, *, acks: bool = False) -> float | None:
        found = self.of(server, phase, acks=acks)
        return median(s["messages_per_second"] for s in found) if found else None

    def latency(self, name: SpreadName, server: str, *, acks: bool = False) -> Spread | None:
        """Under the paced load."""
        return median_spread([found for s in self.of(server, "paced", acks=acks) if (found := s[name]) is not None])

    def memory(self, server: str) -> float | None:
        """KiB of an idle connection."""
        found = [sample["bytes_per_connection"] for sample in self.idle if sample["server"] == server]
        return median(found) / 1024 if found else None


def lines(results: Results) -> list[Line]:
    """Every figure that the run's samples allow, those with a goal and those beside them."""
    found: list[Line] = []

    def ratio(figure: str, ours: float | None, theirs: float | None, goal: float | None) -> None:
        if ours is not None and theirs:
            found.append(Line(figure, ours / theirs, "x", goal, f"{ours:.1f} / {theirs:.1f} µs"))

    def delay_ratio(figure: str, ours: Spread | None, theirs: Spread | None, goal: float) -> None:
        if ours is not None and theirs is not None:
            for name, mine, other in (("p50", ours["p50"], theirs["p50"]), ("p99", ours["p99"], theirs["p99"])):
                found.append(Line(f"{figure}, {name}", mine / other, "x", goal, f"{mine:.1f} / {other:.1f} ms"))

    def delay(figure: str, of: Spread | None, p50: float | None, p99: float | None) -> None:
        if of is not None:
            found.append(Line(f"{figure}, p50", of["p50"], "ms", p50, f"{of['count']:,} messages"))
            found.append(Line(f"{figure}, p99", of["p99"], "ms", p99, f"{of['count']:,} messages"))

    cost = results.cost
    saturated, paced = "CPU a message, saturated", "CPU a message, 6,000 msg/s"
    for acks, suffix in ((False, ""), (True, ", acknowledged")):
        ours = cost("gateway", "saturated", acks=acks)
        ratio(f"{saturated}{suffix}: gateway / bare floor", ours, cost("floor", "saturated"), 3.0)
    for acks, suffix in ((False, ""), (True, ", acknowledged")):
        ours = cost("gateway", "paced", acks=acks)
        ratio(f"{paced}{suffix}: gateway / tutorial consumer", ours, cost("channels_tutorial", "paced"), 0.4)
    ratio(f"{paced}: gateway / FastAPI + aiokafka", cost("gateway", "paced"), cost("fastapi_aiokafka", "paced"), None)
    ratio(f"{paced}: gateway / bare floor", cost("gateway", "paced"), cost("floor", "paced"), None)
    ratio(f"{saturated}: gateway / Go", cost("gateway", "saturated"), cost("go_franz", "saturated"), 2.5)
    ratio(f"{paced}: gateway / Go", cost("gateway", "paced"), cost("go_franz", "paced"), 0.9)
    for processes in (2, 4):
        for phase, figure in (("saturated", saturated), ("paced", paced)):
            label = f"{figure}: {processes} processes / one"
            ratio(label, cost(f"gateway_{processes}", phase), cost("gateway", phase), 1.15)
    beside = "beside 6,000 msg/s"
    consumed, by_go = (results.latency("consumer", name) for name in ("gateway", "go_franz"))
    delay_ratio(f"Send to a consumer, {beside}: gateway / Go", consumed, by_go, 1.1)
    produce, signal, tick = (results.latency(name, "gateway", acks=True) for name in _ANSWERS)
    delay(f"Receipt to delivery report, {beside}", produce, 5.0, None)
    delay(f"Trading signal, send to acknowledgement, {beside}", signal, 6.0, 25.0)
    delay(f"Tick data, send to acknowledgement, {beside}", tick, None, None)
    memory = results.memory("gateway")
    if memory is not None:
        beside_it = (("bare floor", results.memory("floor")), ("Go", results.memory("go_franz")))
        detail = ", ".join(f"{name} {size:.1f} KiB" for name, size in beside_it if size is not None)
        found.append(Line("Memory of an idle connection", memory, "KiB", 40.0, detail))
    return found


_SERVER_HEAD = (
    "server",
    "saturated: µs/msg",
    "saturated: msg/s",
    "6,000 msg/s: µs/msg",
    "arrived: msg/s",
    "to a consumer: p50 / p99 ms",
    "idle connection: KiB",
)
_GOAL_HEAD = ("figure", "measured", "goal", "met", "of")


def server_rows(results: Results) -> list[tuple[str, ...]]:
    """One row for each server and, for the gateway, one with acknowledgements."""
    rows: list[tuple[str, ...]] = []
    for server in SERVERS:
        for acks in (False, True):
            if not (results.of(server.name, "saturated", acks=acks) or results.of(server.name, "paced", acks=acks)):
                continue
            to_consumer = results.latency("consumer", server.name, acks=acks)
            rows.append(
                (
                    _LABELS[server.name] + (", acknowledged" if acks else ""),
                    _number(results.cost(server.name, "saturated", acks=acks), "{:.1f}"),
                    _number(results.rate(server.name, "saturated", acks=acks), "{:,.0f}"),
                    _number(results.cost(server.name, "paced", acks=acks), "{:.1f}"),
                    _number(results.rate(server.name, "paced", acks=acks), "{:,.0f}"),
                    f"{to_consumer['p50']:.1f} / {to_consumer['p99']:.1f}" if to_consumer else "",
                    "" if acks else _number(results.memory(server.name), "{:.1f}"),
                )
            )
    return rows


def goal_rows(results: Results) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for line in lines(results):
        goal = "" if line.goal is None else f"≤ {line.goal:g} {line.unit}"
        met = {None: "", True: "yes", False: "NO"}[line.met]
        rows.append((line.figure, f"{line.measured:.2f} {line.unit}", goal, met, line.detail))
    return rows


def remarks(results: Results) -> list[str]:
    """What a reader should know before trusting a figure."""
    found = []
    for sample in results.samples:
        name = f"{_LABELS[sample['server']]}, {sample['phase']}{', acknowledged' if sample['acks'] else ''}"
        if not sample["messages"]:
            found.append(f"{name}: nothing arrived in the measured time")
        if sample["phase"] == "paced" and 0 < sample["messages_per_second"] < PACED_RATE * 0.98:
            found.append(
                f"{name}: only {sample['messages_per_second']:,.0f} of {PACED_RATE:,.0f} msg/s arrived in time"
            )
        if sample["refused"]:
            found.append(f"{name}: {sample['refused']:,} messages refused")
        if sample["unsettled"]:
            found.append(f"{name}: {sample['unsettled']:,} messages without an answer at the end")
        if sample["closed_by_server"]:
            found.append(f"{name}: {sample['closed_by_server']} connections closed by the server")
        if sample["generator_late"] > 100:
            found.append(f"{name}: the load generator was up to {sample['generator_late']:.0f} ms behind its schedule")
    return found


def tables(results: Results) -> list[Table]:
    """For a terminal; a table without rows is left out."""
    both = (
        _table("Servers", _SERVER_HEAD, server_rows(results)),
        _table("Figures and goals", _GOAL_HEAD, goal_rows(results)),
    )
    return [table for table in both if table.row_count]


def markdown(results: Results) -> str:
    """The same tables for a document."""
    parts = []
    for head, rows in ((_SERVER_HEAD, server_rows(results)), (_GOAL_HEAD, goal_rows(results))):
        table = [head, tuple("---" for _ in head), *rows]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in table))
    return "\n\n".join(parts) + "\n"


def _table(title: str, head: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(title=title)
    for place, title in enumerate(head):
        table.add_column(title, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
