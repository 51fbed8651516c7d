"""What a measurement with slow readers found, and its table. Room: benchmarks."""

import argparse
from collections import Counter
from collections.abc import Mapping
from typing import TypedDict

from rich.table import Table

from benchmarks.stats import Spread

_MIB = 1_048_576

# When (microseconds), with which code, by which bound.
Cut = tuple[int, int, str]


class Stretch(TypedDict):
    """One stretch of time: what both processes did in it."""

    since: int
    until: int
    # The most that the server was behind its schedule, and the most that waited in it for one reader.
    behind_ms: float
    waiting_bytes: int
    memory_growth_bytes: int
    memory_growth_at_end_bytes: int
    server_cores: float
    readers_cores: float


class Result(TypedDict):
    baseline: Stretch
    stalled: Stretch
    # Of the readers that never stop, in milliseconds.
    latency: dict[str, Spread | None]
    cuts: list[Cut]
    # What those that stopped saw when they read on ("4001", "aborted", "open"), and how others were closed.
    seen: dict[str, int]
    others_closed: dict[str, int]


def table(options: argparse.Namespace, result: Result) -> Table:
    one, other = result["baseline"], result["stalled"]
    found = Table(title=f"{options.readers:,} readers, {options.rate:g} × {options.size:,} bytes a second each")
    found.add_column("figure")
    for title in ("all read", f"{options.stalled:,} have stopped"):
        found.add_column(title, justify="right")
    first, second = result["latency"]["baseline"], result["latency"]["stalled"]
    if first and second:
        for name, before, after in (
            ("p50", first["p50"], second["p50"]),
            ("p99", first["p99"], second["p99"]),
            ("largest", first["max"], second["max"]),
        ):
            found.add_row(f"send to receipt by the others, {name}", f"{before:.1f} ms", f"{after:.1f} ms")
        found.add_row("their messages", f"{first['count']:,}", f"{second['count']:,}")
    found.add_row("server behind its schedule, most", f"{one['behind_ms']:.0f} ms", f"{other['behind_ms']:.0f} ms")
    for name, before, after in (
        ("server's memory, most growth", one["memory_growth_bytes"], other["memory_growth_bytes"]),
        ("the same at the end", one["memory_growth_at_end_bytes"], other["memory_growth_at_end_bytes"]),
        ("most that waited for one reader", one["waiting_bytes"], other["waiting_bytes"]),
    ):
        found.add_row(name, f"{before / _MIB:.1f} MiB", f"{after / _MIB:.1f} MiB")
    cores = [f"{stretch['server_cores']:.2f}, {stretch['readers_cores']:.2f}" for stretch in (one, other)]
    found.add_row("cores used: server, readers", *cores)
    how = Counter(f"{code} by {bound}" for _, code, bound in result["cuts"])
    found.add_row("cut by the server", "", f"{len(result['cuts'])} of {options.stalled} ({_counts(how)})")
    if result["cuts"]:
        at = sorted((cut[0] - other["since"]) / 1e6 for cut in result["cuts"])
        found.add_row("cut so long after they stopped", "", f"{at[0]:.1f} to {at[-1]:.1f} s")
    found.add_row("what they saw, reading on", "", _counts(result["seen"]))
    found.add_row("others closed", "", _counts(result["others_closed"]))
    return found


def _counts(of: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(of.items())) or "none"
