"""A user on several processes gets what the one true bucket would give, and little more; in a simulated clock."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.streaming.core.mirrors import Cluster

RATE = 50.0
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
