"""The bounds that a process keeps for all its connections. Room: streaming."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RuntimeLimits:
    """Seconds, and bytes where the name says size."""

    ack_interval: float
    token_grace: float
    ping_interval: float
    pong_timeout: float
    outbound_timeout: float
    outbound_max_size: int
    drain_timeout: float
    drain_spread: float
