"""Two companies that buy, an operator, and Midtrans in this process."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from django.core.cache import cache
from django.test import Client
from pytest_django import Settings

from billing import clock
from tenants.models import User
from tests.billing.shop import Shopper
from tests.support.midtrans_twin import Twin, install

START = datetime(2026, 1, 10, 3, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def hand(settings: Settings) -> Iterator[clock.Hand]:
    settings.MIDTRANS_BASE_URL = "http://midtrans.test"
    cache.clear()
    with clock.stopped_at(START) as hand:
        yield hand


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Twin:
    return install(monkeypatch)


@pytest.fixture
def alpha(db: None, twin: Twin) -> Shopper:
    return Shopper.new(twin, "alpha")


@pytest.fixture
def beta(db: None, twin: Twin) -> Shopper:
    """Whose name is a word to look for."""
    return Shopper.new(twin, "zebra")


@pytest.fixture
def as_alpha(alpha: Shopper) -> Client:
    return client_of(User.objects.get(company=alpha.company))


@pytest.fixture
def as_operator(db: None) -> Client:
    return client_of(User.objects.create_superuser("olivia", password="a long enough password"))


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client
