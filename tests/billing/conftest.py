"""The stand-in for Midtrans, one process for all tests of the room; each test has orders of its own."""

import itertools
from collections.abc import Callable, Iterator

import pytest
from pytest_django import Settings

from billing import background, intake, receipts
from billing.midtrans.client import MidtransClient
from tests.billing.notified import EVENT_SECRET, SERVER_KEY
from tests.support.midtrans import Receiver, StandIn
from tests.support.status_server import StatusServer

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


@pytest.fixture(scope="session")
def shared_status_server() -> Iterator[StatusServer]:
    server = StatusServer()
    yield server
    server.stop()


@pytest.fixture
def midtrans(shared_status_server: StatusServer, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> StatusServer:
    """What GET status says; receipts are looked after before they are answered, in the test's own transaction."""
    shared_status_server.reset()
    settings.MIDTRANS_BASE_URL = shared_status_server.url
    settings.MIDTRANS_SERVER_KEY = SERVER_KEY
    settings.MIDTRANS_SIGNING_KEYS = [SERVER_KEY]
    settings.MIDTRANS_READ_TIMEOUT = 2.0
    settings.GATEWAY_WEBHOOK_SECRETS = [EVENT_SECRET]
    monkeypatch.setattr(background, "submit", receipts.process)
    monkeypatch.setattr(intake, "_without_effect", intake.MinuteCounter())
    return shared_status_server
