"""The sink's twin in memory: holds what is published until told what becomes of it. Room: streaming.sinks."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from streaming.core.errors import MessageRefused
from streaming.core.ports import Headers, Receipt
from streaming.sinks import faults


class Record(NamedTuple):
    topic: str
    key: bytes
    value: bytes
    headers: Headers | None


class MemorySink:
    """Keeps the promises of the Sink port without a broker.

    ``records`` is what "Kafka" has, in order. Reports come when ``deliver``, ``fail`` or ``refuse`` is called. A topic
    or one key of it falls ill by ``make_ill`` and is well again after ``heal``.
    """

    def __init__(
        self,
        on_delivered: Callable[[list[Receipt]], None],
        on_failed: Callable[[list[Receipt], str], None],
        on_room: Callable[[], None] = lambda: None,
        on_refused: Callable[[list[tuple[Receipt, MessageRefused]]], None] = lambda _: None,
        *,
        in_flight_limit: int = 40_000,
        size_limit: int = 1_000_000,
    ) -> None:
        """``size_limit``: bytes of the largest value that a topic takes."""
        self._on_delivered = on_delivered
        self._on_failed = on_failed
        self._on_room = on_room
        self._on_refused = on_refused
        self._in_flight_limit = in_flight_limit
        self._size_limit = size_limit
        self._waiting: list[tuple[Record, Receipt]] = []
        # (topic, key); key None: the whole topic.
        self._ill: set[tuple[str, bytes | None]] = set()
        self.records: list[Record] = []
        self.failures: Counter[tuple[str, str]] = Counter()
        self.available = True
        self.is_full = False
        self.is_ill = False

    def takes(self, topic: str, key: bytes) -> bool:
        return (topic, None) not in self._ill and (topic, key) not in self._ill

    def takes_user(self, key: bytes) -> bool:
        return not any(ill_key == key for _, ill_key in self._ill)

    def ill_parts(self) -> list[tuple[str, str]]:
        return sorted((topic, "" if key is None else "0") for topic, key in self._ill)

    def make_ill(self, topic: str, key: bytes | None = None) -> None:
        """A whole topic refuses what it gets; of one key alone nobody knows what became of it."""
        self._ill.add((topic, key))
        self.is_ill = True

    def heal(self) -> None:
        self._ill.clear()
        self.is_ill = False

    def publish(self, topic: str, key: bytes, value: bytes, receipt: Receipt, headers: Headers | None = None) -> None:
        self._waiting.append((Record(topic, key, value, headers), receipt))
        self.is_full = len(self._waiting) >= self._in_flight_limit

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    def deliver(self, count: int | None = None) -> None:
        """Confirms the oldest ``count`` records, or all; what cannot be recorded is told as that."""
        was_full = self.is_full
        done = self._take(count)
        delivered, refused, failed = [], [], []
        for record, receipt in done:
            if len(record.value) > self._size_limit:
                self.failures[record.topic, faults.TOO_LARGE] += 1
                refused.append((receipt, faults.record_refused(faults.TOO_LARGE)))
            elif (record.topic, None) in self._ill:
                self.failures[record.topic, "not_allowed"] += 1
                refused.append((receipt, faults.topic_refused()))
            elif (record.topic, record.key) in self._ill:
                self.failures[record.topic, faults.NO_REPORT] += 1
                failed.append(receipt)
            else:
                self.records.append(record)
                delivered.append(receipt)
        if delivered:
            self._on_delivered(delivered)
        if refused:
            self._on_refused(refused)
        if failed:
            self._on_failed(failed, "no report from its partition")
        if was_full and not self.is_full:
            self._on_room()

    def fail(self, reason: str = "the broker is away") -> None:
        """Reports everything that waits as not taken."""
        done = self._take(None)
        if done:
            self._on_failed([receipt for _, receipt in done], reason)

    def refuse(self, error: MessageRefused, count: int | None = None) -> None:
        """Reports the oldest ``count`` records, or all, as certainly not recorded."""
        was_full = self.is_full
        done = self._take(count)
        if done:
            self._on_refused([(receipt, error) for _, receipt in done])
        if was_full and not self.is_full:
            self._on_room()

    def _take(self, count: int | None) -> list[tuple[Record, Receipt]]:
        done, self._waiting = self._waiting[:count], self._waiting[len(self._waiting[:count]) :]
        self.is_full = len(self._waiting) >= self._in_flight_limit
        return done
