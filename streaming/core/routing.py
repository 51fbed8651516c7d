"""Which topic a message type goes to. Room: streaming.core (pure)."""

from collections.abc import Mapping

from streaming.core.payloads import CHECKS, PayloadCheck


class Route:
    """One line of the routing table, with the counts of what took it in this process."""

    __slots__ = ("accepted", "acknowledged", "check", "message_type", "topic", "unrecorded", "urgent")

    def __init__(self, message_type: str, topic: str, check: PayloadCheck) -> None:
        self.message_type = message_type
        self.topic = topic
        self.check = check
        # Ticks come many a second and their acknowledgements are gathered; everything else is answered at once.
        self.urgent = message_type != "tick_data"
        self.accepted = 0
        self.acknowledged = 0
        self.unrecorded = 0


def build_routes(topics: Mapping[str, str]) -> dict[str, Route]:
    """The table from message types to topics; raises ValueError for a type that no payload check knows."""
    unknown = sorted(set(topics) - set(CHECKS))
    if unknown:
        raise ValueError(f"no such message type: {', '.join(unknown)}; known are {', '.join(sorted(CHECKS))}")
    return {name: Route(name, topic, CHECKS[name]) for name, topic in topics.items()}
