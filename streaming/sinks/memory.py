"""The sink's twin in memory: holds what is published until told what becomes of it. Room: streaming.sinks."""

from collections.abc import Callable
from typing import NamedTuple

from streaming.core.ports import Headers, Receipt


class Record(NamedTuple):
    topic: str
    key: bytes
    value: bytes
    headers: Headers | None


class MemorySink:
    """Keeps the promises of the Sink port without a broker.

    ``records`` is what "Kafka" has, in order. Reports come when ``deliver`` or ``fail`` is called.
    """

    def __init__(
        self,
        on_delivered: Callable[[list[Receipt]], None],
        on_failed: Callable[[list[Receipt], str], None],
        on_room: Callable[[], None] = lambda: None,
        *,
        in_flight_limit: int = 40_000,
    ) -> None:
        self._on_delivered = on_delivered
        self._on_failed = on_failed
        self._on_room = on_room
        self._in_flight_limit = in_flight_limit
        self._waiting: list[tuple[Record, Receipt]] = []
        self.records: list[Record] = []
        self.available = True
        self.is_full = False
        self.is_ill = False

    def takes(self, topic: str, key: bytes) -> bool:
        return True

    def publish(self, topic: str, key: bytes, value: bytes, receipt: Receipt, headers: Headers | None = None) -> None:
        self._waiting.append((Record(topic, key, value, headers), receipt))
        self.is_full = len(self._waiting) >= self._in_flight_limit

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    def deliver(self, count: int | None = None) -> None:
        """Confirms the oldest ``count`` records, or all."""
        was_full = self.is_full
        done, self._waiting = self._waiting[:count], self._waiting[len(self._waiting[:count]) :]
        self.is_full = len(self._waiting) >= self._in_flight_limit
        self.records += [record for record, _ in done]
        if done:
            self._on_delivered([receipt for _, receipt in done])
        if was_full and not self.is_full:
            self._on_room()

    def fail(self, reason: str = "the broker is away") -> None:
        """Reports everything that waits as not taken."""
        done, self._waiting = self._waiting, []
        self.is_full = False
        if done:
            self._on_failed([receipt for _, receipt in done], reason)
