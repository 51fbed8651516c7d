"""The stand-in for Midtrans, one process for all tests of the room; each test has orders of its own."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from billing.midtrans.client import MidtransClient
from tests.support.midtrans import Receiver, StandIn

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def shared_receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.fixture(scope="session")
def shared_stand_in(tmp_path_factory: pytest.TempPathFactory, shared_receiver: Receiver) -> Iterator[StandIn]:
    stand_in = StandIn(tmp_path_factory.mktemp("midtrans"), shared_receiver.url)
    stand_in.wait_ready()
    yield stand_in
    stand_in.stop()


@pytest.fixture
def stand_in(shared_stand_in: StandIn) -> StandIn:
    """Without anything that an earlier test left."""
    shared_stand_in.control("reset", {})
    return shared_stand_in


@pytest.fixture
def receiver(shared_receiver: Receiver, stand_in: StandIn) -> Receiver:
    """Where the stand-in tells payments."""
    shared_receiver.bodies.clear()
    shared_receiver.headers.clear()
    shared_receiver.codes.clear()
    return shared_receiver


@pytest.fixture
def client(stand_in: StandIn) -> Iterator[MidtransClient]:
    with stand_in.client() as client:
        yield client


@pytest.fixture
def new_order() -> Callable[[], str]:
    """Order ids that no other test uses."""
    return lambda: f"gw-inv-test-{next(_numbers):06}"
