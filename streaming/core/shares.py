"""How the processes that serve the same user hold the user to one rate together. Room: streaming.core (pure).

Each process has a whole copy of the user's bucket and says now and then how much it has let pass; the others charge
that to their copies. All errors of lateness go upwards: no copy ever holds less than the one true bucket would.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

from streaming.core.throttle import MirroredBucket

# Seconds after which a report says nothing of the present: its process has gone, or serves the user no longer.
FRESH = 2.0
# Seconds between the births of two copies that still count as born together, as when two terminals connect at once.
_TOGETHER = 2.0
# Seconds that the others have for finding out that the store is back.
_PATIENCE = 3.0
# Seconds over which demand is averaged: a terminal sends in bursts.
_DEMAND_SPAN = 0.3
# Seconds without a sign of a process after which its copy is long forgotten.
_SEEN_MEMORY = 3_600.0
# Pieces of unused overflow that are told apart.
_SPARE_LIMIT = 16
# Seconds by which the store's clock may be misread: it counts milliseconds.
_CLOCK_ERROR = 0.002


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


@dataclass(frozen=True, slots=True)
class Report:
    """What one process says of its copy. ``at``: seconds of the store's clock, when it was said."""

    # Tells this copy from an earlier one of the same process.
    copy: int
    # Messages since the copy was made, and its age then in seconds.
    passed: int
    age: float
    # Messages a second that are offered, accepted or not.
    demand: float
    # Whether a connection of the user is there.
    is_live: bool
    at: float


@dataclass(slots=True)
class _Seen:
    """The last report of a process. ``since``: the overflow of this copy at that time or a little before: what was let
    pass later may be paid by what has overflowed since."""

    copy: int
    passed: int
    at: float
    since: float
    heard_at: float


class Mirror:
    """Keeps one user's copy in step with the copies of the other processes."""

    __slots__ = (
        "_bucket", "_copy", "_demand", "_is_missing", "_living", "_made", "_measured", "_offered", "_patient_until",
        "_seen", "_spare", "_spilled", "part",
    )  # fmt: skip

    def __init__(self, bucket: MirroredBucket, now: float) -> None:
        """``now``: when the bucket was made, in seconds of the monotonic clock as all times here."""
        self._bucket = bucket
        self._made = self._measured = now
        self._copy = int(now * 1_000)
        self._offered = 0
        self._demand = 0.0
        self._seen: dict[str, _Seen] = {}
        # The overflow up to the last charge, and what of it no charge has used yet: (overflow at its end, amount), the
        # oldest first.
        self._spilled = 0.0
        self._spare: list[tuple[float, float]] = []
        # Demand by process, of those that share the user's rate now, as far as is known.
        self._living: dict[str, float] = {}
        # Whether the last question had no answer, and until when the others have time to find out that there are some.
        self._is_missing = False
        self._patient_until = 0.0
        # Of the user's whole demand, what comes to this process: 0.0 to 1.0.
        self.part = 1.0

    def report(self, now: float, *, is_live: bool) -> Report:
        """What to say of this copy; ``at`` is the store's to fill in."""
        self._bucket.advance(now)
        offered = self._bucket.passed + self._bucket.refused
        elapsed = now - self._measured
        if elapsed > 0.0:
            fresh = 1.0 - exp(-elapsed / _DEMAND_SPAN)
            self._demand += fresh * ((offered - self._offered) / elapsed - self._demand)
            self._offered, self._measured = offered, now
        return Report(self._copy, self._bucket.passed, now - self._made, self._demand, is_live, 0.0)

    def hear(self, me: str, others: Mapping[str, Report], store_now: float, now: float) -> None:
        """Charges what the others have let pass since their last reports, and takes its share of the rate.

        ``others``: the answer to the last ``report``; ``store_now``: seconds of the clock that stamps the reports, when
        it was given.
        """
        self._bucket.advance(now)
        store_now += now - self._measured + _CLOCK_ERROR
        dues = [due for name, report in others.items() if (due := self._due(name, report, store_now, now)) is not None]
        self._bucket.charge(self._unpaid(dues))
        if len(self._seen) > len(others):
            self._seen = {name: seen for name, seen in self._seen.items() if now - seen.heard_at < _SEEN_MEMORY}
        fresh = {name: report for name, report in others.items() if store_now - report.at <= FRESH}
        if self._is_missing:
            self._is_missing = False
            self._patient_until = now + _PATIENCE
        # Those who have been without the store as well, and have not found out yet that it is back.
        unheard = {name: demand for name, demand in self._living.items() if name not in fresh}
        if now >= self._patient_until or not unheard:
            unheard = {}
            self._bucket.release()
        living = unheard | {name: report.demand for name, report in fresh.items() if report.is_live}
        self._living = living
        rate, demands = self._bucket.rate, {**living, me: self._demand}
        # An equal part in any case: what is given away beyond the rate is charged with the next reports, and while none
        # come it is at most the rate once more for all processes together.
        self._bucket.share(max(share_of(rate, demands, me), rate / len(demands)))
        total = sum(demands.values())
        self.part = self._demand / total if living and total > 0.0 else 1.0

    def stand_alone(self) -> None:
        """Nobody can say who else serves the user: all of the rate passes here."""
        self._living = {}
        self._bucket.share(self._bucket.rate)
        self.part = 1.0

    def miss(self) -> None:
        """No answer: where the user sends now is not known; its share of the rate stays."""
        self._is_missing = True
        self.part = 1.0

    def _due(self, name: str, report: Report, store_now: float, now: float) -> tuple[float, float] | None:
        """(since, amount) of what the process has let pass since it was last heard; None: that is not known."""
        rate, overflow = self._bucket.rate, self._bucket.overflow
        silence = max(0.0, store_now - report.at)
        age, its_age = now - self._made, report.age + silence
        lead = its_age - age
        seen = self._seen.get(name)
        if seen is not None and seen.copy == report.copy:
            since, amount = seen.since, float(report.passed - seen.passed)
        elif silence > age:
            # It has not spoken since this copy was made: how much it had let pass by then will be known with its next
            # report.
            return None
        elif lead > _TOGETHER:
            since, amount = 0.0, 0.0
        else:
            # What it had let pass before this copy was made was paid by the refill of that time, as far as it goes.
            since, amount = overflow - rate * its_age, max(0.0, report.passed - rate * max(0.0, lead))
        if seen is None or seen.copy != report.copy or report.at > seen.at:
            # No more can have overflowed since it was made.
            seen = self._seen[name] = _Seen(report.copy, report.passed, report.at, overflow - rate * silence, now)
        seen.heard_at = now
        return since, amount

    def _unpaid(self, dues: list[tuple[float, float]]) -> float:
        """What is left of all amounts when each has been paid from what has overflowed since."""
        spare, overflow = self._spare, self._bucket.overflow
        spare.append((overflow, overflow - self._spilled))
        self._spilled = overflow
        left = 0.0
        for since, amount in dues:
            for place, (end, unused) in enumerate(spare):
                paid = min(amount, unused, max(0.0, end - since))
                spare[place] = end, unused - paid
                amount -= paid
            left += amount
        spare[:] = [(end, unused) for end, unused in spare if unused > 0.0]
        while len(spare) > _SPARE_LIMIT:
            # The oldest two as one: only a process that has been silent for long may still use them.
            (_, first), (end, second) = spare[:2]
            spare[:2] = [(end, first + second)]
        return left
