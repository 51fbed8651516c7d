"""What one company has sent within the month. Room: streaming.core (pure)."""


class Volume:
    """Counted by all sessions of the company in this process; whoever sums up over processes sets the verdict."""

    __slots__ = ("is_exhausted", "messages", "size")

    def __init__(self) -> None:
        # Messages that Kafka has confirmed, and their bytes as they came over the wire, since the process began.
        self.messages = 0
        self.size = 0
        # The month's volume is used up and the plan refuses more.
        self.is_exhausted = False
