"""A user on several processes gets what the one true bucket would give, and little more; in a simulated clock."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.streaming.core.mirrors import Cluster

RATE = 50.0
# Seconds between two exchanges of a process, and of the floods' clock.
INTERVAL = 0.1
STEP = 0.005
NAMES = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Step:
    """After a ``pause`` in seconds, ``act`` at one process, ``count`` times where that means something."""

    act: str
    pause: float = 0.0
    name: str = "a"
    count: int = 1


names = st.sampled_from(NAMES)
pauses = st.one_of(st.floats(0.0, 0.3), st.floats(0.0, 3.0))
steps = st.lists(
    st.one_of(
        st.builds(Step, st.just("send"), pauses, names, st.integers(1, 60)),
        st.builds(Step, st.just("exchange"), pauses, names),
        st.builds(Step, st.just("exchange"), st.just(0.0), names),
        st.builds(Step, st.just("move"), pauses, names),
        st.builds(Step, st.sampled_from(["store away", "store back", "cut off", "forget"]), pauses, names),
    ),
    max_size=60,
)


def run(walk: list[Step], send: Callable[[Cluster, str], None]) -> Cluster:
    cluster = Cluster(RATE)
    for step in walk:
        cluster.now += step.pause
        if step.act == "send":
            for _ in range(step.count):
                send(cluster, step.name)
        elif step.act == "exchange":
            if step.name in cluster.servers:
                cluster.exchange(step.name)
        elif step.act == "move":
            cluster.move_to(step.name)
        elif step.act == "forget":
            cluster.forget(step.name)
        elif step.act == "store back":
            cluster.cut_off.clear()
        else:
            cluster.cut_off.update([step.name] if step.act == "cut off" else NAMES)
    return cluster


def within_the_plan(cluster: Cluster, name: str) -> None:
    """Sends when the one true bucket has a token, and never without."""
    if cluster.ideal.has_token(cluster.now):
        assert cluster.send(name) == (True, True), cluster.now


class Journey:
    """A user with a terminal or two that come and go at up to four processes, which exchange as the product does."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.cluster = Cluster(RATE)
        self.live = [self.chance.choice(NAMES)]
        self.next_ask: dict[str, float] = {}
        self.interval = self.chance.choice([0.1, 0.2, 0.5])
        self._come(self.live[0])

    def go(self, turns: int, send: Callable[[Cluster, str], None]) -> Cluster:
        chance, cluster = self.chance, self.cluster
        eagerness = chance.choice([0.2, 1.0, 5.0])
        for _ in range(turns):
            cluster.now += chance.expovariate(30.0) if chance.random() < 0.98 else chance.uniform(0.0, 4.0)
            for name in list(cluster.servers):
                self._exchange(name)
            if chance.random() < 0.02:
                self._move()
            if chance.random() < 0.005:
                cluster.cut_off = set(chance.choice([[], [], NAMES, [chance.choice(NAMES)]]))
            if chance.random() < 0.1 * eagerness:
                for _ in range(chance.choice([1, 2, 60])):
                    send(cluster, chance.choice(self.live))
        return cluster

    def _exchange(self, name: str) -> None:
        cluster = self.cluster
        if cluster.now < self.next_ask[name]:
            return
        cluster.answer(name)
        if name in self.live or name in cluster.cut_off or cluster.servers[name].is_live:
            # One whose user has gone says so once.
            cluster.servers[name].is_live = name in self.live
            cluster.ask(name)
            if self.chance.random() < 0.8:
                cluster.answer(name)
        self.next_ask[name] = cluster.now + self.interval * self.chance.choice([1.0, 1.0, 1.5, 4.0])

    def _move(self) -> None:
        chance = self.chance
        self.live = chance.sample(NAMES, chance.choice([1, 1, 1, 2]))
        for name in list(self.cluster.servers):
            if name not in self.live and chance.random() < 0.1:
                self.cluster.forget(name)
        for name in self.live:
            self._come(name)

    def _come(self, name: str) -> None:
        self.cluster.server(name).is_live = True
        self.next_ask[name] = self.cluster.now


MOVES = [Step(act, pause, name, 20) for name in "abab" for act, pause in [("move", 0.4), ("send", 0.0)]]


@example(MOVES)
@example([Step("send", 0, "a", 50), Step("exchange"), Step("move", 1.0, "b"), Step("send", 0, "b", 50)] * 3)
@given(steps)
def test_sender_within_the_plan_is_never_refused_however_it_moves_and_however_late_reports_are(
    walk: list[Step],
) -> None:
    run(walk, within_the_plan)


@pytest.mark.parametrize("seed", range(40))
def test_sender_who_uses_all_of_the_plan_is_never_refused_on_a_long_journey_over_processes(seed: int) -> None:
    cluster = Journey(seed).go(1_500, within_the_plan)
    assert cluster.passed > 100


@given(steps)
def test_first_refusal_comes_no_earlier_than_that_of_the_one_true_bucket(walk: list[Step]) -> None:
    is_over = False

    def send(cluster: Cluster, name: str) -> None:
        nonlocal is_over
        passes, may_pass = cluster.send(name)
        is_over = is_over or not may_pass
        assert passes or is_over

    run(walk, send)


def test_process_that_was_not_heard_of_for_long_takes_nothing_from_a_user_within_the_plan() -> None:
    cluster = Cluster(RATE)
    for name in ("a", "b", "c"):
        cluster.server(name)
    for name in ("a", "b", "c"):
        cluster.exchange(name)
    cluster.cut_off = {"b"}
    for turn in range(200):
        cluster.now += INTERVAL
        # Together just what the plan brings; what "c" lets pass is heard of at once.
        for name in "bbbbc" if turn % 2 else "bbbcc":
            within_the_plan(cluster, name)
        for name in ("a", "b", "c"):
            cluster.exchange(name)
    cluster.cut_off = set()
    for name in ("b", "a"):
        cluster.exchange(name)
    for _ in range(60):
        within_the_plan(cluster, "a")


def test_process_that_had_forgotten_the_user_is_charged_from_nothing_on() -> None:
    cluster = Cluster(RATE)
    for name in ("a", "b"):
        cluster.server(name)
    cluster.now += INTERVAL
    for name in "b" * 40 + "a":
        cluster.send(name)
    for name in ("b", "a"):
        cluster.exchange(name)
    cluster.forget("b")
    cluster.now += 130.0
    cluster.exchange("a")
    for _ in range(48):
        cluster.send("b")
    for name in ("b", "a"):
        cluster.exchange(name)
    assert [cluster.send("a")[0] for _ in range(3)] == [True, True, False]


# --- Over the plan ----------------------------------------------------------------------------------------------------


@dataclass
class Flood:
    """A user who offers ``factor`` times the plan, to each of the processes by its weight, for 30 s after ``rest``."""

    weights: tuple[float, ...]
    factor: float = 10.0
    rest: float = 0.0
    # Seconds of the flood between which the store is away.
    outage: tuple[float, float] = (0.0, 0.0)
    # Seconds of the flood, and how many messages had passed and would have passed through the one true bucket.
    course: list[tuple[float, int, int]] = field(default_factory=list)

    def run(self) -> "Flood":
        cluster, names = Cluster(RATE), NAMES[: len(self.weights)]
        for name in names:
            cluster.server(name)
        due = dict.fromkeys(names, 0.0)
        next_exchange = {name: place * INTERVAL / len(names) for place, name in enumerate(names)}
        while (elapsed := cluster.now - self.rest) < 30.0:
            cluster.now += STEP
            # They find out one after the other that it is back.
            cluster.cut_off = {
                name
                for place, name in enumerate(names)
                if self.outage[0] <= elapsed < self.outage[1] + (0.5 * place if self.outage[1] else 0.0)
            }
            for name, weight in zip(names, self.weights, strict=True):
                if cluster.now >= next_exchange[name]:
                    cluster.exchange(name)
                    next_exchange[name] = cluster.now + INTERVAL * 1.1
                if elapsed >= 0.0:
                    due[name] += self.factor * RATE * STEP * weight / sum(self.weights)
                while due[name] >= 1.0:
                    due[name] -= 1.0
                    cluster.send(name)
            self.course.append((elapsed, cluster.passed, cluster.ideal.passed))
        return self

    def passed(self, begin: float, end: float) -> int:
        at = [passed for elapsed, passed, _ in self.course if begin <= elapsed <= end]
        return at[-1] - at[0]


@pytest.mark.parametrize("rest", [0.0, 5.0])
@pytest.mark.parametrize("factor", [1.2, 3.0, 10.0])
@pytest.mark.parametrize("weights", [(1, 1), (10, 1), (1, 1, 1, 1), (10, 1, 1, 1)])
def test_user_over_the_plan_gets_the_plan_within_five_percent_and_never_less_than_the_one_true_bucket_gives(
    weights: tuple[float, ...], factor: float, rest: float
) -> None:
    flood = Flood(weights, factor, rest).run()
    assert 0.95 * RATE * 30 <= flood.passed(0.0, 30.0) <= 1.05 * RATE * 30
    ahead = [passed - ideal for _, passed, ideal in flood.course]
    # A burst of each process at most, and what passes between two reports of the same moment.
    assert max(ahead) <= (len(weights) - 1) * RATE + len(weights) * RATE * INTERVAL
    assert min(ahead) >= -RATE * INTERVAL


@pytest.mark.parametrize("weights", [(1, 1), (10, 1), (1, 1, 1, 1), (10, 1, 1, 1)])
def test_user_over_the_plan_gets_at_most_twice_the_plan_while_the_store_is_away(weights: tuple[float, ...]) -> None:
    flood = Flood(weights, outage=(8.0, 18.0)).run()
    assert 0.95 * RATE * 10 <= flood.passed(8.0, 18.0) <= 2.0 * RATE * 10
    # Afterwards it is the plan again, with no burst and no debt.
    assert 0.9 * RATE * 3 <= flood.passed(18.0, 21.0) <= 1.1 * RATE * 3
    assert 0.9 * RATE * 8 <= flood.passed(21.0, 29.0) <= 1.1 * RATE * 8


def test_connection_that_was_quiet_when_the_store_went_away_gets_an_equal_part_at_least() -> None:
    cluster = Cluster(RATE)
    for turn in range(20):
        cluster.now = turn * INTERVAL
        for _ in range(20):
            cluster.send("a")
        cluster.server("b")
        for name in ("a", "b"):
            cluster.exchange(name)
    cluster.cut_off = {"a", "b"}
    begin = cluster.passed
    for _ in range(100):
        cluster.now += INTERVAL
        for _ in range(20):
            cluster.send("b")
    assert cluster.passed - begin >= RATE / 2 * 9


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("stay", [0.5, 2.0, 5.0])
def test_user_over_the_plan_who_changes_between_processes_gains_one_burst_of_each_and_no_more(
    stay: float, number: int
) -> None:
    cluster, place, next_move, next_exchange, due = Cluster(RATE), 0, 0.0, 0.0, 0.0
    while cluster.now < 60.0:
        if cluster.now >= next_move:
            if cluster.servers:
                old = NAMES[place % number]
                cluster.servers[old].is_live = False
                cluster.exchange(old)
            place += 1
            cluster.move_to(NAMES[place % number])
            next_move += stay
        if cluster.now >= next_exchange:
            cluster.exchange(NAMES[place % number])
            next_exchange += INTERVAL
        cluster.now += STEP
        due += 5 * RATE * STEP
        while due >= 1.0:
            due -= 1.0
            cluster.send(NAMES[place % number])
    assert cluster.ideal.passed <= cluster.passed <= cluster.ideal.passed + (number - 1) * RATE + RATE * INTERVAL
