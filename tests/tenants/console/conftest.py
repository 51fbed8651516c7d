"""Fixtures of the admin's tests."""

import pytest
from django.test import Client

from tenants.models import User
from tests.tenants.cast import Cast
from tests.tenants.rows import Rows


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def rows(cast: Cast) -> Rows:
    """One row at least of each model and company."""
    return Rows(cast)


@pytest.fixture
def alice_client(cast: Cast) -> Client:
    """Signed in as the admin of company Alpha."""
    return client_of(cast.alice)
