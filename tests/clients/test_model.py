"""Whatever breaks between a client and Kafka, each message is accounted for, once, and signals keep their order.

A short form runs with the suite. ``MODEL_RUNS=1000 .venv/bin/python -m pytest tests/clients/test_model.py --timeout 0``
runs a thousand, each from its own seed; ``--hypothesis-seed=N`` chooses them.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.clients.model_world import World

RUNS = int(os.environ.get("MODEL_RUNS", "20"))
STEPS = 60

some = st.integers(min_value=1, max_value=8)
place = st.integers(min_value=0, max_value=1)
few = st.integers(min_value=0, max_value=4)


class Stream(RuleBasedStateMachine):
    """Each rule is one thing that happens."""

    world: World

    @initialize(latest=st.booleans())
    def begin(self, latest: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.world = World(self.folder / "journal", latest=latest)

    @rule(
        count=some,
        kind=st.sampled_from(["trading_signal", "trading_signal", "tick_data"]),
        fault=st.sampled_from(["", "", "", "pair", "account"]),
    )
    def application_offers(self, count: int, kind: str, fault: str) -> None:
        for _ in range(count):
            self.world.offer(kind, fault)

    @precondition(lambda self: self.world.wire is None)
    @rule(place=place)
    def client_connects(self, place: int) -> None:
        self.world.connect(place)
        self.world.carry_down(1)

    @rule(count=some)
    def frames_arrive_at_the_gateway(self, count: int) -> None:
        self.world.carry_up(count)

    @rule(count=some)
    def answers_arrive_at_the_client(self, count: int) -> None:
        self.world.carry_down(count)

    @rule(place=place, count=some)
    def kafka_reports(self, place: int, count: int) -> None:
        self.world.processes[place].sink.deliver(count)

    @rule(place=place, recorded=few)
    def kafka_fails(self, place: int, recorded: int) -> None:
        self.world.fail_kafka(place, recorded)

    @precondition(lambda self: self.world.wire is not None)
    @rule()
    def connection_breaks(self) -> None:
        self.world.drop(1006)

    @rule(place=place, recorded=few)
    def gateway_process_is_killed(self, place: int, recorded: int) -> None:
        self.world.kill_process(place, recorded)

    @rule()
    def client_is_killed_and_starts_again(self) -> None:
        self.world.restart_client()

    @rule(place=place)
    def positions_are_written(self, place: int) -> None:
        self.world.processes[place].write_positions()

    @rule(place=place)
    def news_of_a_claim_arrives(self, place: int) -> None:
        self.world.processes[place].hear_news()

    @rule()
    def redis_loses_everything(self) -> None:
        self.world.redis.fence = 0
        self.world.redis.positions.clear()

    @rule(place=place, count=st.integers(min_value=1, max_value=20))
    def another_bridge_of_the_user_sends(self, place: int, count: int) -> None:
        for _ in range(count):
            self.world.processes[place].bucket.take(self.world.now)

    @rule(is_ill=st.booleans())
    def topic_of_the_signals_changes(self, is_ill: bool) -> None:
        self.world.make_ill(is_ill)

    @rule(seconds=st.sampled_from([0.02, 0.3, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @invariant()
    def every_promise_holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.world.come_to_rest()
                self.world.check_rest()
            finally:
                self.world.core.journal.close()
                shutil.rmtree(self.folder)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power does not fail here: what is written need not reach the disk."""
    monkeypatch.setattr("trading_gateway_client.linefile.os.fsync", lambda _: None)


def test_every_message_is_accounted_for_whatever_breaks() -> None:
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    run_state_machine_as_test(
        Stream,
        settings=settings(
            max_examples=RUNS, stateful_step_count=STEPS, deadline=None, suppress_health_check=checks, database=None
        ),
    )
