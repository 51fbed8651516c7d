"""The audit log: it only grows, it says what differs, and it holds no secret."""

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from tenants import access, audit
from tenants.access import Actor
from tenants.models import ApiKey, AuditEntry, Company, User
from tests.support.gateway import clean_environment, manage
from tests.support.postgres import Postgres
from tests.tenants.cast import Cast

REFUSED = "audit entries are never changed or deleted"


@pytest.fixture
def entry(cast: Cast) -> AuditEntry:
    audit.record(Actor.of(cast.alice), "add", cast.bob, company_id=cast.alpha.pk, after={"username": "bob"})
    return AuditEntry.objects.get()


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.django_db
def test_entry_is_not_changed_or_deleted_through_the_model(entry: AuditEntry) -> None:
    entry.actor = "somebody else"
    with pytest.raises(TypeError, match="never changed"):
        entry.save()
    with pytest.raises(TypeError, match="never changed"):
        AuditEntry.objects.get().save(update_fields=["actor"])
    with pytest.raises(TypeError, match="never deleted"):
        entry.delete()
    assert AuditEntry.objects.get().actor == "alice"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "act",
    [
        lambda: AuditEntry.objects.update(actor="somebody else"),
        lambda: AuditEntry.objects.all().delete(),
        lambda: AuditEntry.objects.all()._raw_delete(using="default"),
        lambda: AuditEntry.objects.bulk_update([AuditEntry(pk=AuditEntry.objects.get().pk, actor="x")], ["actor"]),
        lambda: AuditEntry.objects.update_or_create(action="add", defaults={"actor": "somebody else"}),
        lambda: execute("UPDATE tenants_auditentry SET actor = 'somebody else'"),
        lambda: execute("UPDATE tenants_auditentry SET id = id + 1"),
        lambda: execute("DELETE FROM tenants_auditentry"),
    ],
    ids=["update", "delete", "raw delete", "bulk update", "update or create", "SQL", "SQL of the id", "SQL delete"],
)
def test_entry_is_not_changed_or_deleted_behind_the_model(entry: AuditEntry, act: Callable[[], Any]) -> None:
    before = list(AuditEntry.objects.values())
    with pytest.raises((DatabaseError, TypeError), match=r"never changed"), transaction.atomic():
        act()
    assert list(AuditEntry.objects.values()) == before


@pytest.mark.django_db
def test_entry_outlives_what_it_speaks_of(cast: Cast, entry: AuditEntry, operator: User) -> None:
    access.delete_rows(Actor.of(operator), [cast.alpha])
    kept = AuditEntry.objects.get(pk=entry.pk)
    assert (kept.object_name, kept.actor, kept.company_id) == ("bob", "alice", entry.company_id)
    assert not Company.objects.filter(slug="alpha").exists()


@pytest.mark.django_db
def test_entry_keeps_only_what_differs(cast: Cast) -> None:
    before = {"a": "1", "b": "2", "gone": "3"}
    after = {"a": "1", "b": "5", "new": "4"}
    audit.record(Actor.system(), "change", cast.bob, company_id=None, before=before, after=after)
    entry = AuditEntry.objects.get()
    assert (entry.before, entry.after) == ({"b": "2", "gone": "3"}, {"b": "5", "new": "4"})


@pytest.mark.django_db
def test_entry_says_who_acted_and_from_where(cast: Cast) -> None:
    nobody = Actor.of(AnonymousUser())
    for actor in (Actor.of(cast.alice, "2001:db8::7"), Actor.system("shell:root"), nobody):
        audit.record(actor, "change", cast.bob, company_id=cast.alpha.pk)
    rows = AuditEntry.objects.order_by("id").values_list("actor", "actor_id", "address")
    assert list(rows) == [("alice", cast.alice.pk, "2001:db8::7"), ("shell:root", None, ""), ("anonymous", None, "")]


@pytest.mark.django_db
def test_entry_of_long_names_fits(cast: Cast) -> None:
    cast.alpha.name = "n" * 120
    actor = Actor("system", "system", address="a" * 65)
    audit.record(actor, "change", cast.alpha, company_id=None, after={"status_reason": "r" * 200})
    entry = AuditEntry.objects.get()
    assert (entry.address, entry.object_name) == ("a" * 64, "n" * 120)


@pytest.mark.django_db
def test_snapshot_of_a_secret_says_only_that_there_is_one(cast: Cast) -> None:
    cast.bob.set_password("a long enough password")
    key = ApiKey(user=cast.bob, name="VPS", prefix="gwk_abcdefgh", digest="d" * 64)
    assert audit.snapshot(cast.bob)["password"] == audit.snapshot(key)["digest"] == "***"
    assert cast.bob.password not in str(audit.snapshot(cast.bob))
    earlier = User.objects.get(pk=cast.bob.pk)
    assert audit.snapshot(cast.bob, earlier)["password"] == "*** (another)"
    assert audit.snapshot(earlier, earlier)["password"] == "***"


@pytest.mark.django_db
def test_snapshot_names_each_field_as_text_and_leaves_out_noise(cast: Cast) -> None:
    cast.alpha.paid_until = datetime.datetime(2030, 1, 2, tzinfo=datetime.UTC)
    cast.alpha.status_reason = "r" * 600
    found = audit.snapshot(cast.alpha)
    assert (found["tier"], found["paid_until"]) == (str(cast.alpha.tier_id), "2030-01-02 00:00:00+00:00")
    assert found["status_reason"] == "r" * 500
    cast.alpha.paid_until = None
    assert audit.snapshot(cast.alpha)["paid_until"] == ""
    assert not {"id", "access_version", "updated_at"} & found.keys()
    cast.bob.last_login = timezone.now()
    assert "last_login" not in audit.snapshot(cast.bob)


# The same on a PostgreSQL of its own, whichever database the other tests run on.


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a migrated database with one entry, two companies, a user each and an account."""
    server = Postgres()
    server.start()
    folder: Path = tmp_path_factory.mktemp("state")
    try:
        environment = clean_environment(folder, DATABASE_URL=server.url)
        manage("migrate", "-v0", environment=environment)
        manage("shell", "--no-imports", "-c", _ROWS, environment=environment)
        with psycopg.connect(server.url, autocommit=True) as opened:
            yield opened
    finally:
        server.stop()


_ROWS = """
from tenants.access import Actor, save_row
from tenants.models import Company, MT5Account, SubscriptionTier, User
actor = Actor.system("tests")
tier = SubscriptionTier.objects.get(code="PRO")
for slug in ("alpha", "beta"):
    company = Company(name=slug, slug=slug, tier=tier)
    save_row(actor, company)
    user = User(username=slug, company=company, role="trader")
    user.set_unusable_password()
    save_row(actor, user)
save_row(actor, MT5Account(login="1", broker_server="B", company=company, owner=user))
"""


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tenants_auditentry SET actor = 'somebody else'",
        "DELETE FROM tenants_auditentry",
        "INSERT INTO tenants_auditentry SELECT * FROM tenants_auditentry ON CONFLICT (id) DO UPDATE SET actor = 'x'",
    ],
)
def test_postgresql_refuses_to_change_or_delete_an_entry(postgres: "psycopg.Connection[Any]", statement: str) -> None:
    before = postgres.execute("SELECT * FROM tenants_auditentry ORDER BY id").fetchall()
    assert len(before) == 5
    with pytest.raises(psycopg.errors.RaiseException, match=REFUSED):
        postgres.execute(statement)
    assert postgres.execute("SELECT * FROM tenants_auditentry ORDER BY id").fetchall() == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tenants_mt5account SET company_id = (SELECT id FROM tenants_company WHERE slug = 'alpha')",
        "UPDATE tenants_mt5account SET owner_id = (SELECT id FROM tenants_user WHERE username = 'alpha')",
        "INSERT INTO tenants_mt5account (login, broker_server, company_id, owner_id, is_active, is_online, created_at)"
        " SELECT '2', 'B', c.id, u.id, true, false, now() FROM tenants_company c, tenants_user u"
        " WHERE c.slug = 'alpha' AND u.username = 'beta'",
    ],
)
def test_postgresql_refuses_an_account_of_two_companies(postgres: "psycopg.Connection[Any]", statement: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="the owner of an MT5 account is a user of its company"):
        postgres.execute(statement)
    assert postgres.execute("SELECT count(*) FROM tenants_mt5account").fetchone() == (1,)
    postgres.execute("UPDATE tenants_mt5account SET is_active = NOT is_active, owner_id = owner_id")
