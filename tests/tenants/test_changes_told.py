"""What a change leaves behind: an entry in the audit log, an event, news for the gateways; or nothing of all."""

import datetime
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from events import outbox
from tenants import access
from tenants.access import Actor
from tenants.models import AuditEntry, Company, User
from tests.tenants.cast import Cast, tier
from tests.tenants.rows import announced, everything, new_user, told

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(cast: Cast) -> Actor:
    return Actor.of(cast.alice, "192.0.2.7")


def test_entry_says_who_changed_what_and_only_what_differs(cast: Cast, admin: Actor) -> None:
    cast.bob.first_name = "Bob"
    access.save_row(admin, cast.bob)
    entry = AuditEntry.objects.get()
    assert (entry.actor_id, entry.actor, entry.address) == (cast.alice.pk, "alice", "192.0.2.7")
    assert (entry.company_id, entry.action, entry.object_type) == (cast.alpha.pk, "change", "user")
    assert (entry.object_id, entry.object_name) == (str(cast.bob.pk), "bob")
    assert (entry.before, entry.after) == ({"first_name": ""}, {"first_name": "Bob"})


def test_entry_says_that_a_password_was_changed_and_nothing_of_it(cast: Cast, admin: Actor) -> None:
    cast.bob.set_password("a long enough password")
    access.save_row(admin, cast.bob)
    made = new_user(first_name="Dora")
    made.set_password("another long password")
    access.save_row(admin, made)
    changed, added = AuditEntry.objects.order_by("id")
    assert (changed.before, changed.after) == ({"password": "***"}, {"password": "*** (another)"})
    assert (added.action, added.before, added.after["password"]) == ("add", {}, "***")
    assert added.after["first_name"] == "Dora"
    for user in (cast.bob, made):
        assert user.password not in str(list(AuditEntry.objects.values()))


def test_event_tells_the_companys_state_and_new_version(cast: Cast, operator: User) -> None:
    paid_until = timezone.now().replace(microsecond=0) + datetime.timedelta(days=30)
    company = Company.objects.get(pk=cast.alpha.pk)
    company.paid_until, company.tier = paid_until, tier("ENTERPRISE")
    before = timezone.now().timestamp() * 1000
    access.save_row(Actor.of(operator), company)
    [event] = told()
    assert (event.company_id, event.tier, event.status) == (str(cast.alpha.pk), "ENTERPRISE", "active")
    assert (event.paid_until, event.access_version) == (int(paid_until.timestamp() * 1000), 2)
    assert before - 1 <= event.occurred_at <= timezone.now().timestamp() * 1000


def test_event_of_a_company_without_an_end_says_zero(cast: Cast, admin: Actor) -> None:
    access.save_row(admin, cast.bob)
    [event] = told()
    assert (event.tier, event.paid_until, event.access_version) == ("PRO", 0, 2)


def test_deleted_company_is_told_as_deleted(cast: Cast, operator: User) -> None:
    company_id = cast.alpha.pk
    access.delete_rows(Actor.of(operator), [cast.alpha])
    [event] = told()
    assert (event.company_id, event.status, event.tier) == (str(company_id), "deleted", "")
    assert not User.objects.filter(username__in=["alice", "bob"]).exists()
    [entry] = AuditEntry.objects.all()
    assert (entry.action, entry.company_id, entry.object_name) == ("delete", company_id, "Alpha")


def test_gateways_hear_of_a_change_when_it_is_committed(
    cast: Cast, admin: Actor, settings: Settings, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    with django_capture_on_commit_callbacks() as callbacks:
        access.save_row(admin, cast.bob)
    assert announced(callbacks) == [{"kind": "access", "company_id": str(cast.alpha.pk), "version": 2}]


def test_nothing_is_left_of_a_change_that_is_rolled_back(
    cast: Cast, admin: Actor, settings: Settings, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    before = everything()
    with django_capture_on_commit_callbacks() as callbacks, pytest.raises(ZeroDivisionError), transaction.atomic():
        access.save_row(admin, new_user())
        access.set_pairs(admin, cast.bob, ["EURUSD"])
        access.set_users_active(admin, [cast.bob], is_active=False)
        access.create_api_key(admin, cast.bob, "VPS")
        access.kick(admin, str(cast.bob.pk))
        raise ZeroDivisionError
    assert everything() == before
    assert announced(callbacks) == []


def test_change_that_cannot_be_told_of_is_not_made(cast: Cast, admin: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(outbox, "record_all", fail)
    before = everything()
    with pytest.raises(ZeroDivisionError):
        access.save_row(admin, new_user())
    with pytest.raises(ZeroDivisionError):
        access.delete_rows(admin, [cast.bob])
    assert everything() == before


@pytest.mark.parametrize("count", [10, 4_000])
def test_change_that_concerns_many_companies_is_told_in_few_visits(cast: Cast, settings: Settings, count: int) -> None:
    settings.REDIS_URL = "redis://nowhere.invalid/0"
    plan = tier("PRO")
    made = Company.objects.bulk_create(Company(name=f"C{n}", slug=f"c{n}", tier=plan) for n in range(count))
    with CaptureQueriesContext(connection) as visits, transaction.atomic():
        access.touch({company.pk for company in made})
    # An UPDATE, a SELECT, the savepoint's two, and the events in batches.
    assert len(visits) <= 6 + count // 100
    versions = [event.access_version for event in told("subscription-status")]
    assert len(versions) == count and set(versions) == {Company.objects.get(slug="c0").access_version}
