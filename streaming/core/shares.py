"""How a limit is divided among the processes that serve the same user. Room: streaming.core (pure)."""

from collections.abc import Mapping


def share_of(limit: float, demands: Mapping[str, float], me: str) -> float:
    """The part of ``limit`` (messages a second) that ``me`` may let pass.

    Max-min fair: whoever asks for less than an equal part gets what it asks for, the rest is divided equally among the
    others; what nobody asks for is divided equally, so that each can begin to ask for more. Each process computes this
    for itself from the same ``demands`` (messages a second that were offered, by process); all parts together are
    ``limit``.
    """
    if len(demands) < 2 or me not in demands:
        return limit
    left, waiting = limit, len(demands)
    mine = 0.0
    for name, demand in sorted(demands.items(), key=lambda item: (item[1], item[0])):
        part = min(demand, left / waiting)
        if name == me:
            mine = part
        left -= part
        waiting -= 1
    return mine + max(0.0, left) / len(demands)
