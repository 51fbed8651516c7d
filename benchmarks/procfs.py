"""CPU and memory of a process and all its descendants, from Linux' /proc. Room: benchmarks."""

import os
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
# Places in /proc/PID/stat after the command's closing bracket (man 5 proc_pid_stat).
_PARENT, _USER_TICKS, _SYSTEM_TICKS = 1, 11, 12


def process_tree(root: int) -> list[int]:
    """The process ids of ``root`` and its descendants that live now; only ``root`` when it has gone."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (fields := _stat(int(entry))):
            children.setdefault(int(fields[_PARENT]), []).append(int(entry))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def cpu_seconds(root: int) -> float:
    """User and system time that the living processes of the tree have used, in steps of 10 ms."""
    total = 0
    for pid in process_tree(root):
        if fields := _stat(pid):
            total += int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])
    return total / _TICKS_A_SECOND


def resident_bytes(root: int) -> int:
    """Resident memory of the tree; pages that processes share count once for each."""
    total = 0
    for pid in process_tree(root):
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_SIZE
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()
