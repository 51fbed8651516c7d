"""Fixtures of the tenants room."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from django.test import Client
from pytest_django import Settings

from tenants import attempts, tokens, views
from tenants.models import User
from tenants.signin import mail
from tenants.signin.invitations import invitation_limiters
from tenants.signin.views import sign_in_limiter
from tests.tenants.cast import Cast, make_cast, secret_item


@pytest.fixture(autouse=True)
def identity_settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Known keys, attempts that start afresh and are all made at one moment, and passwords that cost nothing."""
    monkeypatch.setattr(attempts, "time", SimpleNamespace(monotonic=lambda: 1_000.0))
    settings.GATEWAY_JWT_KEYS = secret_item("one")
    settings.GATEWAY_TOKEN_LEEWAY = 0.0
    settings.GATEWAY_TOKEN_TTL = 3600.0
    settings.GATEWAY_TOKEN_TTL_LIMIT = 86_400.0
    settings.GATEWAY_TOKEN_EXCHANGE_RATE_LIMIT = 10.0
    settings.GATEWAY_BENCHMARK = False
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    tokens.default_keyring.cache_clear()
    views._limiter.cache_clear()
    invitation_limiters.cache_clear()
    sign_in_limiter.cache_clear()
    yield
    if mail._sender.cache_info().currsize:
        # A mail that is still on its way must not arrive in the next test.
        mail._sender().submit(lambda: None).result(10)
    tokens.default_keyring.cache_clear()
    views._limiter.cache_clear()
    invitation_limiters.cache_clear()
    sign_in_limiter.cache_clear()


@pytest.fixture
def cast(db: None) -> Cast:
    return make_cast()


@pytest.fixture
def operator(db: None) -> User:
    return User.objects.create_superuser("operator", password="a long enough password")


@pytest.fixture
def operator_client(operator: User) -> Client:
    client = Client()
    client.force_login(operator)
    return client
