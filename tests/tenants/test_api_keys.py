"""API keys: kept as a digest, shown once, refused once they are not good."""

import datetime
import hashlib
import math

import pytest
from django.db import IntegrityError, connection
from django.utils import timezone

from tenants import access
from tenants.access import Actor, NotVisible
from tenants.api_keys import KEY_FORM, digest_of, usable_api_key, user_of_api_key
from tenants.models import ApiKey, AuditEntry, User
from tests.tenants import acts
from tests.tenants.cast import Cast, version_of
from tests.tenants.rows import everything, told

pytestmark = pytest.mark.django_db


def keys_of(user: User) -> dict[str, float]:
    """The keys that gateways take tokens of."""
    found = access.terminal_access(str(user.pk))
    assert found is not None
    return found.api_keys


def test_new_key_belongs_to_its_user(cast: Cast) -> None:
    assert user_of_api_key(acts.new_key(cast.bob, "VPS")) == cast.bob


def test_database_holds_the_digest_and_the_prefix_of_a_key_and_not_its_secret(cast: Cast) -> None:
    key = acts.new_key(cast.bob, "VPS")
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM tenants_apikey")
        stored = repr(cursor.fetchall())
    assert KEY_FORM.fullmatch(key)
    assert hashlib.sha256(key.encode()).hexdigest() in stored
    assert key[:12] in stored
    assert key[12:] not in stored


def test_key_is_not_shown_again(cast: Cast) -> None:
    key = acts.new_key(cast.bob, "VPS")
    row = ApiKey.objects.get()
    assert row.prefix == key[:12]
    assert key not in f"{row} {row!r} {row.__dict__}"


def test_no_two_keys_are_alike(cast: Cast) -> None:
    assert len({acts.new_key(cast.bob, "VPS") for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "key", ["", "gwk_", "gwk_abcdefgh_" + "a" * 43, "gwk_abcdefgh_" + "a" * 42, "\ud800", "gwk_abcdefgh_" + "é" * 43]
)
def test_unknown_key_is_nobodys(cast: Cast, key: str) -> None:
    acts.new_key(cast.bob, "VPS")
    assert user_of_api_key(key) is None


def test_changed_key_is_nobodys(cast: Cast) -> None:
    key = acts.new_key(cast.bob, "VPS")
    other = "A" if key[-1] != "A" else "B"
    for changed in (key[:-1] + other, key + "A", key[:-1], f"{key}\n", f" {key}", key.upper()):
        assert user_of_api_key(changed) is None


def test_revoked_key_is_nobodys_and_the_users_other_key_lives_on(cast: Cast) -> None:
    key, other = acts.new_key(cast.bob, "VPS"), acts.new_key(cast.bob, "home")
    rows = ApiKey.objects.filter(prefix=key[:12])
    assert access.revoke_api_keys(acts.SYSTEM, rows) == 1
    assert access.revoke_api_keys(acts.SYSTEM, rows) == 0
    assert user_of_api_key(key) is None
    assert user_of_api_key(other) == cast.bob


def test_expired_key_is_nobodys(cast: Cast) -> None:
    now = timezone.now()
    living = acts.new_key(cast.bob, "VPS", expires_at=now + datetime.timedelta(minutes=1))
    expired = acts.new_key(cast.bob, "VPS", expires_at=now)
    assert user_of_api_key(living) == cast.bob
    assert user_of_api_key(expired) is None


def test_use_is_noted_once_a_minute(cast: Cast) -> None:
    key = acts.new_key(cast.bob, "VPS")
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


@pytest.mark.parametrize(("scope", "is_told"), [("stream", True), ("read", False)])
def test_gateways_know_the_keys_that_may_stream(cast: Cast, scope: str, is_told: bool) -> None:
    key = acts.new_key(cast.bob, "VPS", scope=scope)
    row = usable_api_key(key)
    assert row is not None and row.scope == scope
    assert (str(row.pk) in keys_of(cast.bob)) is is_told


def test_scope_that_is_none_is_refused_by_the_database(cast: Cast) -> None:
    before = everything()
    with pytest.raises(IntegrityError):
        acts.new_key(cast.bob, "VPS", scope="write")
    assert everything() == before


def test_new_and_revoked_keys_raise_the_version_of_their_company_and_are_noted(cast: Cast) -> None:
    actor = Actor.of(cast.alice)
    key, row = access.create_api_key(actor, cast.bob, "VPS")
    assert (version_of(cast.alpha), version_of(cast.beta)) == (2, 1)
    assert access.revoke_api_keys(actor, [row]) == 1
    assert (version_of(cast.alpha), version_of(cast.beta)) == (3, 1)
    assert [event.access_version for event in told()] == [2, 3]
    added, revoked = AuditEntry.objects.order_by("id")
    assert (added.action, revoked.action, added.actor, revoked.actor) == ("add", "revoke", "alice", "alice")
    assert (added.after["prefix"], added.after["digest"]) == (key[:12], "***")
    assert set(revoked.before) == set(revoked.after) == {"revoked_at"}
    # Nothing is left to revoke.
    before = everything()
    assert access.revoke_api_keys(actor, [row]) == 0
    assert everything() == before


def test_audit_log_holds_neither_key_nor_digest(cast: Cast) -> None:
    key, row = access.create_api_key(acts.SYSTEM, cast.bob, "VPS")
    other, _ = access.rotate_api_key(acts.SYSTEM, row)
    access.revoke_api_keys(acts.SYSTEM, [row])
    written = str(list(AuditEntry.objects.values()))
    for secret in (key, key[13:], other, other[13:], row.digest, digest_of(other)):
        assert secret not in written


def test_key_of_another_companys_user_is_neither_made_nor_rotated(cast: Cast) -> None:
    _, foreign = access.create_api_key(acts.SYSTEM, cast.charlie, "VPS")
    before = everything()
    actor, texts = Actor.of(cast.alice), set()
    for user in (cast.charlie, User(username="nobody")):
        with pytest.raises(NotVisible) as caught:
            access.create_api_key(actor, user, "VPS")
        texts.add(str(caught.value))
    assert texts == {"there is no such user"}
    texts.clear()
    for key in (foreign, ApiKey(pk=10_000_000)):
        with pytest.raises(NotVisible) as caught:
            access.rotate_api_key(actor, key)
        texts.add(str(caught.value))
    assert texts == {"there is no such API key"}
    assert everything() == before


def test_rotated_key_works_along_with_the_new_one_until_the_overlap_ends(cast: Cast) -> None:
    old_key, old = access.create_api_key(acts.SYSTEM, cast.bob, "VPS", scope="stream")
    before = timezone.now()
    new_key, new = access.rotate_api_key(Actor.of(cast.alice), old, overlap=datetime.timedelta(hours=2))
    assert user_of_api_key(old_key) == user_of_api_key(new_key) == cast.bob
    assert (new.user, new.name, new.scope, new.expires_at) == (cast.bob, "VPS", "stream", None)
    old.refresh_from_db()
    assert old.replaced_by == new and old.revoked_at is None
    assert old.expires_at is not None
    end = old.expires_at - datetime.timedelta(hours=2)
    assert before <= end <= timezone.now()
    # Gateways let tokens of the old key go on as long, and no longer.
    assert keys_of(cast.bob) == {str(old.pk): old.expires_at.timestamp(), str(new.pk): math.inf}
    ApiKey.objects.filter(pk=old.pk).update(expires_at=timezone.now())
    assert user_of_api_key(old_key) is None and user_of_api_key(new_key) == cast.bob
    assert keys_of(cast.bob) == {str(new.pk): math.inf}
    assert AuditEntry.objects.get(action="rotate").after["replaced_by"] == str(new.pk)


def test_rotation_lasts_a_day_and_raises_the_version(cast: Cast) -> None:
    _, old = access.create_api_key(acts.SYSTEM, cast.bob, "VPS")
    before = version_of(cast.alpha)
    access.rotate_api_key(acts.SYSTEM, old)
    old.refresh_from_db()
    assert old.expires_at is not None
    left = (old.expires_at - timezone.now()).total_seconds()
    assert 86_400 - 60 < left <= 86_400
    assert (version_of(cast.alpha), version_of(cast.beta)) == (before + 1, 1)


def test_rotation_does_not_lengthen_the_life_of_a_key(cast: Cast) -> None:
    soon = timezone.now() + datetime.timedelta(minutes=5)
    _, old = access.create_api_key(acts.SYSTEM, cast.bob, "VPS", scope="read", expires_at=soon)
    _, new = access.rotate_api_key(acts.SYSTEM, old)
    old.refresh_from_db()
    assert (old.expires_at, new.expires_at, new.scope) == (soon, soon, "read")


def test_revoked_key_is_not_rotated_back_to_life(cast: Cast) -> None:
    _, row = access.create_api_key(acts.SYSTEM, cast.bob, "VPS")
    access.revoke_api_keys(acts.SYSTEM, [row])
    before = everything()
    with pytest.raises(NotVisible):
        access.rotate_api_key(acts.SYSTEM, row)
    assert everything() == before


def test_key_has_one_successor(cast: Cast) -> None:
    _, row = access.create_api_key(acts.SYSTEM, cast.bob, "VPS")
    access.rotate_api_key(acts.SYSTEM, row)
    before = everything()
    with pytest.raises(NotVisible):
        # As it was read before the other one came.
        access.rotate_api_key(acts.SYSTEM, row)
    assert everything() == before


def test_revoked_and_expired_keys_are_no_keys_for_the_gateways(cast: Cast) -> None:
    now = timezone.now()
    soon = now + datetime.timedelta(hours=1)
    _, living = access.create_api_key(acts.SYSTEM, cast.bob, "VPS", expires_at=soon)
    _, revoked = access.create_api_key(acts.SYSTEM, cast.bob, "VPS")
    access.create_api_key(acts.SYSTEM, cast.bob, "VPS", expires_at=now)
    access.create_api_key(acts.SYSTEM, cast.alice, "VPS")
    access.revoke_api_keys(acts.SYSTEM, [revoked])
    assert keys_of(cast.bob) == {str(living.pk): soon.timestamp()}
