"""API keys: kept as a digest, shown once, refused once they are not good."""

import datetime
import hashlib

import pytest
from django.db import connection
from django.utils import timezone

from tenants import access
from tenants.api_keys import KEY_FORM, create_api_key, user_of_api_key
from tenants.models import ApiKey
from tests.tenants.cast import Cast

pytestmark = pytest.mark.django_db


def test_new_key_belongs_to_its_user(cast: Cast) -> None:
    assert user_of_api_key(create_api_key(cast.bob, "VPS")) == cast.bob


def test_database_holds_the_digest_and_the_prefix_of_a_key_and_not_its_secret(cast: Cast) -> None:
    key = create_api_key(cast.bob, "VPS")
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM tenants_apikey")
        stored = repr(cursor.fetchall())
    assert KEY_FORM.fullmatch(key)
    assert hashlib.sha256(key.encode()).hexdigest() in stored
    assert key[:12] in stored
    assert key[12:] not in stored


def test_key_is_not_shown_again(cast: Cast) -> None:
    key = create_api_key(cast.bob, "VPS")
    row = ApiKey.objects.get()
    assert row.prefix == key[:12]
    assert key not in f"{row} {row!r} {row.__dict__}"


def test_no_two_keys_are_alike(cast: Cast) -> None:
    assert len({create_api_key(cast.bob, "VPS") for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "key", ["", "gwk_", "gwk_abcdefgh_" + "a" * 43, "gwk_abcdefgh_" + "a" * 42, "\ud800", "gwk_abcdefgh_" + "é" * 43]
)
def test_unknown_key_is_nobodys(cast: Cast, key: str) -> None:
    create_api_key(cast.bob, "VPS")
    assert user_of_api_key(key) is None


def test_changed_key_is_nobodys(cast: Cast) -> None:
    key = create_api_key(cast.bob, "VPS")
    other = "A" if key[-1] != "A" else "B"
    for changed in (key[:-1] + other, key + "A", key[:-1], f"{key}\n", f" {key}", key.upper()):
        assert user_of_api_key(changed) is None


def test_revoked_key_is_nobodys_and_the_users_other_key_lives_on(cast: Cast) -> None:
    key, other = create_api_key(cast.bob, "VPS"), create_api_key(cast.bob, "home")
    rows = ApiKey.objects.filter(prefix=key[:12])
    assert access.revoke_api_keys(rows) == 1
    assert access.revoke_api_keys(rows) == 0
    assert user_of_api_key(key) is None
    assert user_of_api_key(other) == cast.bob


def test_expired_key_is_nobodys(cast: Cast) -> None:
    now = timezone.now()
    living = create_api_key(cast.bob, "VPS", expires_at=now + datetime.timedelta(minutes=1))
    expired = create_api_key(cast.bob, "VPS", expires_at=now)
    assert user_of_api_key(living) == cast.bob
    assert user_of_api_key(expired) is None


def test_use_is_noted_once_a_minute(cast: Cast) -> None:
    key = create_api_key(cast.bob, "VPS")
    assert ApiKey.objects.get().last_used_at is None
    user_of_api_key(key)
    recent = ApiKey.objects.get().last_used_at
    assert recent is not None
    user_of_api_key(key)
    assert ApiKey.objects.get().last_used_at == recent
    old = recent - datetime.timedelta(seconds=61)
    ApiKey.objects.update(last_used_at=old)
    user_of_api_key(key)
    used = ApiKey.objects.get().last_used_at
    assert used is not None and used > old
