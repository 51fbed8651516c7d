"""Which topics and partitions take nothing now, and since when the log says so. Room: streaming.sinks.

An illness belongs to one topic or to one partition of one; all others go on. It is said once in the log when it begins
and once when it ends.
"""

import time
from collections import Counter
from collections.abc import Iterable

import structlog
from confluent_kafka import murmur2

from streaming.sinks.look import Look

log = structlog.get_logger(__name__)

Place = tuple[str, int]

# Seconds that an ill topic rests at least, doubled with each relapse up to the limit: a look at its rights may see
# less than what makes it refuse. What comes later than _RELAPSE is an illness of its own.
_REST = 1.0
_REST_LIMIT = 60.0
_RELAPSE = 120.0
# Seconds that a producer gets to send what it holds for a partition that has a leader, doubled each time up to the
# limit: librdkafka can miss for good that a topic was made anew.
_PATIENCE = 5.0
_PATIENCE_LIMIT = 600.0
# Seconds for which a limit is believed that was only concluded.
_LESSON = 600.0


class IllTopic:
    __slots__ = ("reason", "rest", "until")

    def __init__(self, reason: str, rest: float, until: float) -> None:
        self.reason = reason
        self.rest = rest
        # Seconds of the monotonic clock.
        self.until = until


class IllPartition:
    """``held``: messages that were given up and that the producer still has; they go out when the leader is back.
    ``led_since``: seconds of the monotonic clock since when a leader was seen, None while there is none."""

    __slots__ = ("held", "led_since", "reason")

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.held = 0
        self.led_since: float | None = None


class Health:
    """Of all topics of one sink. ``is_ill`` is for the hot path; everything else is asked only while it is true."""

    def __init__(self) -> None:
        self.is_ill = False
        self.topics: dict[str, IllTopic] = {}
        self.partitions: dict[Place, IllPartition] = {}
        # Partitions that had no leader when they were last looked at, ill or not.
        self.leaderless: set[Place] = set()
        # Partitions of each topic, as last seen.
        self.counts: dict[str, int] = {}
        # Largest record batch in bytes that each topic takes, where it is known.
        self.limits: dict[str, int] = {}
        # The same as concluded from what was refused, with the time up to which that is believed.
        self._learned: dict[str, tuple[int, float]] = {}
        # (topic, reason) -> messages that were not recorded
        self.failures: Counter[tuple[str, str]] = Counter()
        # Topics with a partition that a new producer may serve where the present one does not.
        self.stuck: set[str] = set()
        self._patience: dict[Place, float] = {}
        # How long each topic rested the last time, and when it was found well.
        self._rests: dict[str, tuple[float, float]] = {}

    def partition_of(self, topic: str, key: bytes) -> int:
        """As librdkafka's ``murmur2_random`` and Java's default partitioner choose; -1 for a topic never seen."""
        count = self.counts.get(topic, 0)
        return murmur2(key, count) if count else -1

    def limit_of(self, topic: str) -> int | None:
        """Bytes of the largest record batch that the topic takes, as far as is known."""
        limit = self.limits.get(topic)
        size, until = self._learned.get(topic, (0, 0.0))
        if until > time.monotonic():
            return size if limit is None else min(size, limit)
        return limit

    def learn_limit(self, topic: str, limit: int) -> None:
        """Something larger was refused; the brokers do not say what they take."""
        known = self.limit_of(topic)
        limit = limit if known is None else min(limit, known)
        self._learned[topic] = (limit, time.monotonic() + _LESSON)

    def takes(self, topic: str, key: bytes) -> bool:
        if topic in self.topics:
            return False
        return not self.partitions or (topic, self.partition_of(topic, key)) not in self.partitions

    def takes_partition_of(self, topic: str, key: bytes) -> bool:
        """Whether the partition is well, whatever is wrong with its topic as a whole."""
        return (topic, self.partition_of(topic, key)) not in self.partitions

    def takes_somebody(self, topics: Iterable[str]) -> bool:
        """Whether one partition at least of one of these topics takes messages."""
        for topic in topics:
            if topic not in self.topics:
                count = self.counts.get(topic, 0)
                if any((topic, partition) not in self.partitions for partition in range(count)):
                    return True
        return False

    def parts(self) -> list[tuple[str, str]]:
        """The ill ones: topic, and number of the partition or "" for the whole topic."""
        whole = [(topic, "") for topic in sorted(self.topics)]
        return whole + [(topic, str(partition)) for topic, partition in sorted(self.partitions)]

    # --- Changes -----------------------------------------------------------------------------------------------------

    def topic_fails(self, topic: str, reason: str) -> None:
        """A topic takes nothing; when it has only just been found well, it rests longer than the last time."""
        if topic in self.topics:
            return
        now = time.monotonic()
        last, well_at = self._rests.get(topic, (0.0, 0.0))
        rest = min(_REST_LIMIT, last * 2) if last and now - well_at < _RELAPSE else _REST
        self.topics[topic] = IllTopic(reason, rest, now + rest)
        self.is_ill = True
        log.error("kafka_topic_ill", topic=topic, reason=reason)

    def topic_is_well(self, topic: str) -> None:
        illness = self.topics.pop(topic, None)
        if illness is not None:
            self._rests[topic] = (illness.rest, time.monotonic())
            log.info("kafka_topic_well", topic=topic)
            self._judge()

    def partition_fails(self, place: Place, reason: str) -> IllPartition:
        illness = self.partitions.get(place)
        if illness is None:
            illness = self.partitions[place] = IllPartition(reason)
            self.is_ill = True
            log.error("kafka_partition_ill", topic=place[0], partition=place[1], reason=reason)
        return illness

    def nothing_is_held(self, topics: Iterable[str]) -> None:
        """The producer of these topics is gone, and with it what it held; what it may still report counts no more."""
        for place, illness in self.partitions.items():
            if place[0] in topics:
                self.partitions[place] = IllPartition(illness.reason)

    def note(self, look: Look, *, nothing_in_flight: Iterable[str] = ()) -> None:
        """Takes over what a look has seen. A partition without a leader is only found ill here in topics that have
        nothing in flight: elsewhere its messages say soon enough whether it comes back by itself."""
        self.leaderless = {
            (topic, number) for topic, state in look.items() for number, led in enumerate(state.leaders) if not led
        }
        for topic, state in look.items():
            if state.leaders:
                self.counts[topic] = len(state.leaders)
            if state.limit is not None:
                self.limits[topic] = state.limit
                self._learned.pop(topic, None)
            if state.problem:
                self.topic_fails(topic, state.problem)
            elif topic in self.topics and time.monotonic() >= self.topics[topic].until:
                self.topic_is_well(topic)
            for partition, has_leader in enumerate(state.leaders):
                place = (topic, partition)
                if not has_leader and topic in nothing_in_flight:
                    self.partition_fails(place, "no leader")
                elif place in self.partitions:
                    self._judge_partition(place, self.partitions[place], has_leader=has_leader)
            # A topic that was made anew may have fewer.
            if state.leaders:
                for place in [p for p in self.partitions if p[0] == topic and not 0 <= p[1] < len(state.leaders)]:
                    del self.partitions[place]
        self._judge()

    def _judge_partition(self, place: Place, illness: IllPartition, *, has_leader: bool) -> None:
        if not has_leader:
            illness.led_since = None
        elif not illness.held:
            del self.partitions[place]
            log.info("kafka_partition_well", topic=place[0], partition=place[1])
        elif illness.led_since is None:
            illness.led_since = time.monotonic()
        elif time.monotonic() - illness.led_since > (patience := self._patience.get(place, _PATIENCE)):
            self._patience[place] = min(_PATIENCE_LIMIT, patience * 2)
            self.stuck.add(place[0])

    def _judge(self) -> None:
        self.is_ill = bool(self.topics or self.partitions)
