"""Adding, changing and deleting rows: who may, and what is counted under the lock."""

import datetime
import uuid
from collections.abc import Collection
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import BooleanField, DateTimeField, Field, ForeignKey, Model
from django.utils import timezone

from tenants import access, changes
from tenants.access import Actor, NotVisible
from tenants.changes import COMPANY_WRITABLE
from tenants.models import (
    ActivePair,
    ApiKey,
    AuditEntry,
    Ban,
    Company,
    CompanyOverride,
    MT5Account,
    RevokedToken,
    SubscriptionTier,
    User,
)
from tests.tenants.cast import Cast, make_trader, tier, version_of
from tests.tenants.rows import MAKERS, Rows, everything, just_before_the_lock, new_user, told

pytestmark = pytest.mark.django_db
UNKNOWN = "00000000-0000-0000-0000-000000000000"
NOT_A_COMPANYS: list[type[Model]] = [
    Company,
    SubscriptionTier,
    CompanyOverride,
    ApiKey,
    RevokedToken,
    Ban,
    AuditEntry,
]
# (model, field) that a company admin may not write.
CLOSED = [
    (model, field.name)
    for model, writable in COMPANY_WRITABLE.items()
    for field in model._meta.concrete_fields
    if field.name not in writable and not field.primary_key
]


@pytest.fixture
def admin(cast: Cast) -> Actor:
    return Actor.of(cast.alice, "192.0.2.7")


@pytest.fixture
def account(cast: Cast) -> MT5Account:
    return MT5Account.objects.create(login="100", broker_server="B", company=cast.alpha, owner=cast.bob)


def other_value(row: Model, field: Field[Any, Any], cast: Cast) -> Any:
    if isinstance(field, BooleanField):
        return not getattr(row, field.attname)
    if isinstance(field, DateTimeField):
        return timezone.now() - datetime.timedelta(days=9)
    if isinstance(field, ForeignKey):
        return cast.beta.pk
    return {"role": User.Role.COMPANY_ADMIN}[field.name]


def noting_locks(monkeypatch: pytest.MonkeyPatch) -> list[set[uuid.UUID]]:
    """The companies of each lock that is taken from now on."""
    locked: list[set[uuid.UUID]] = []
    lock = changes.lock

    def note(company_ids: Collection[uuid.UUID]) -> None:
        locked.append(set(company_ids))
        lock(company_ids)

    monkeypatch.setattr(changes, "lock", note)
    return locked


@pytest.mark.parametrize(("model", "name"), CLOSED)
@pytest.mark.parametrize("is_new", [False, True])
def test_company_admin_never_writes_a_field_that_is_not_theirs(
    cast: Cast, admin: Actor, model: type[Model], name: str, is_new: bool
) -> None:
    row: Any
    if model is User:
        row = new_user() if is_new else User.objects.get(pk=cast.bob.pk)
    elif is_new:
        row = MT5Account(login="7", broker_server="B", owner=cast.bob)
    else:
        row = MAKERS[model](cast.bob, 0)
    field: Any = model._meta.get_field(name)
    before, forged = everything(), other_value(row, field, cast)
    kept = getattr(row, field.attname)
    setattr(row, field.attname, forged)
    if field.editable and name not in ("date_joined", "last_login"):
        with pytest.raises((PermissionDenied, NotVisible)):
            access.save_row(admin, row)
        assert everything() == before
    else:
        # The product's own: what is sent has no effect, and does not stand in the way of the rest.
        access.save_row(admin, row)
        stored = getattr(model._default_manager.get(pk=row.pk), field.attname)
        assert stored != forged
        assert is_new or stored == kept


def test_fields_that_are_tried_are_those_that_give_power() -> None:
    assert {name for model, name in CLOSED if model is User} == {
        "company", "role", "is_staff", "is_superuser", "date_joined", "last_login",
    }  # fmt: skip
    assert {name for model, name in CLOSED if model is MT5Account} == {
        "company", "is_online", "last_seen_at", "created_at",
    }  # fmt: skip


@pytest.mark.parametrize("model", NOT_A_COMPANYS)
def test_company_admin_and_trader_write_no_row_of_another_kind(cast: Cast, admin: Actor, model: type[Model]) -> None:
    kept = Rows(cast).of(model)
    row = kept.get("bob", kept.get("alpha"))
    assert row is not None
    before = everything()
    for actor in (admin, Actor.of(cast.bob), Actor.of(AnonymousUser())):
        with pytest.raises((PermissionDenied, NotVisible)):
            access.save_row(actor, row)
        with pytest.raises((PermissionDenied, NotVisible)):
            access.delete_rows(actor, [row])
        with pytest.raises(PermissionDenied, match="not yours to change"):
            access.save_row(actor, model())
    assert everything() == before


@pytest.mark.parametrize("model", list(COMPANY_WRITABLE))
def test_trader_writes_and_deletes_nothing_of_their_own(cast: Cast, model: type[Model]) -> None:
    row = Rows(cast).of(model)["bob"]
    before = everything()
    for act in (access.save_row, lambda actor, row: access.delete_rows(actor, [row])):
        with pytest.raises(PermissionDenied):
            act(Actor.of(cast.bob), row)
    assert everything() == before


@pytest.mark.parametrize("model", list(COMPANY_WRITABLE))
def test_other_companys_row_is_unknown_to_a_company_admin(cast: Cast, admin: Actor, model: type[Model]) -> None:
    foreign = Rows(cast).of(model)["charlie"]
    unknown = model._default_manager.get(pk=foreign.pk)
    unknown.pk = UNKNOWN if model is User else 10_000_000
    before = everything()
    texts = set()
    for row in (foreign, unknown):
        for act in (access.save_row, lambda actor, row: access.delete_rows(actor, [row])):
            with pytest.raises(NotVisible) as caught:
                act(admin, row)
            texts.add(str(caught.value))
    assert texts == {f"there is no such {model._meta.verbose_name}"}
    assert everything() == before


@pytest.mark.parametrize("is_new", [False, True])
@pytest.mark.parametrize(("model", "field"), [(MT5Account, "owner_id"), (ActivePair, "user_id")])
def test_owner_of_another_company_looks_like_an_unknown_one(
    cast: Cast, admin: Actor, model: type[Model], field: str, is_new: bool
) -> None:
    before_text = set()
    for owner in (str(cast.charlie.pk), UNKNOWN):
        row: Any = model(login="7", broker_server="B") if model is MT5Account else model(symbol="GBPUSD")
        if not is_new:
            row = model._default_manager.first() or MAKERS[model](cast.bob, 0)
        setattr(row, field, owner)
        before = everything()
        with pytest.raises(NotVisible) as caught:
            access.save_row(admin, row)
        before_text.add(str(caught.value))
        assert everything() == before
    assert before_text == {"there is no such user"}


def test_operator_who_names_an_unknown_user_is_told_so(cast: Cast, operator: User) -> None:
    for row in (ActivePair(user_id=UNKNOWN, symbol="EURUSD"), ApiKey(user_id=UNKNOWN, name="VPS")):
        with pytest.raises(NotVisible, match="there is no such user"):
            access.save_row(Actor.of(operator), row)


def test_row_whose_required_reference_is_missing_is_no_row(cast: Cast, admin: Actor) -> None:
    before = everything()
    with pytest.raises(ValidationError):
        access.save_row(admin, MT5Account(login="7", broker_server="B"))
    assert everything() == before


def test_company_admin_adds_a_trader_of_the_own_company(cast: Cast, admin: Actor) -> None:
    access.save_row(admin, new_user())
    made = User.objects.get(username="alpha.dora")
    assert (made.company, made.role, made.is_staff, made.is_superuser) == (cast.alpha, User.Role.TRADER, False, False)
    assert (version_of(cast.alpha), version_of(cast.beta)) == (2, 1)


@pytest.mark.parametrize("username", ["dora", "beta.dora", "alpha-dora", "Alpha.dora"])
def test_company_admin_names_people_with_the_companys_own_prefix(cast: Cast, admin: Actor, username: str) -> None:
    make_trader("dora", cast.beta)
    before = everything()
    with pytest.raises(ValidationError, match=r"begin with alpha\."):
        access.save_row(admin, new_user(username))
    assert everything() == before


def test_company_admin_does_not_rename_people(cast: Cast, admin: Actor) -> None:
    cast.bob.username = "alpha.bob"
    with pytest.raises(PermissionDenied, match="username"):
        access.save_row(admin, cast.bob)
    assert User.objects.get(pk=cast.bob.pk).username == "bob"


def test_company_admin_writes_what_is_theirs(cast: Cast, admin: Actor, account: MT5Account) -> None:
    cast.bob.first_name, cast.bob.connection_limit, cast.bob.may_send_signals = "Bob", 1, False
    access.save_row(admin, cast.bob)
    account.owner, account.is_active = cast.alice, False
    access.save_row(admin, account)
    bob = User.objects.get(pk=cast.bob.pk)
    assert (bob.first_name, bob.connection_limit, bob.may_send_signals) == ("Bob", 1, False)
    assert MT5Account.objects.get(owner=cast.alice).is_active is False
    assert (version_of(cast.alpha), version_of(cast.beta)) == (3, 1)


def test_nobody_disables_or_deletes_their_own_account(cast: Cast, admin: Actor, operator: User) -> None:
    before = everything()
    cast.alice.is_active = False
    with pytest.raises(PermissionDenied, match="own account"):
        access.save_row(admin, cast.alice)
    for actor, user in ((admin, cast.alice), (Actor.of(operator), operator)):
        with pytest.raises(PermissionDenied, match="own account"):
            access.delete_rows(actor, [user])
    assert everything() == before


def test_company_admin_deletes_people_accounts_and_pairs(cast: Cast, admin: Actor, account: MT5Account) -> None:
    pair = ActivePair.objects.create(user=cast.alice, symbol="EURUSD")
    access.delete_rows(admin, [account, pair, cast.bob])
    assert list(User.objects.filter(company=cast.alpha)) == [cast.alice]
    assert not MT5Account.objects.exists() and not ActivePair.objects.exists()
    # One act, one version.
    assert (version_of(cast.alpha), version_of(cast.beta), len(told())) == (2, 1, 1)
    assert {entry.action for entry in AuditEntry.objects.all()} == {"delete"}


def test_rows_are_deleted_all_or_none(cast: Cast, admin: Actor, account: MT5Account) -> None:
    before = everything()
    with pytest.raises(NotVisible):
        access.delete_rows(admin, [account, cast.charlie])
    assert everything() == before


@pytest.mark.parametrize("limit", [2, 3])
def test_last_place_is_given_and_one_more_is_not(cast: Cast, admin: Actor, limit: int) -> None:
    CompanyOverride.objects.create(company=cast.alpha, company_account_limit=limit)
    for number in range(limit):
        access.save_row(admin, MT5Account(login=str(1 + number), broker_server="B", owner=cast.bob))
    before = everything()
    with pytest.raises(ValidationError, match=f"{limit} of {limit} MT5 accounts"):
        access.save_row(admin, MT5Account(login="900", broker_server="B", owner=cast.bob))
    assert everything() == before


def test_place_that_was_taken_while_waiting_for_the_lock_is_not_given_twice(
    cast: Cast, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    CompanyOverride.objects.create(company=cast.alpha, company_account_limit=1)
    just_before_the_lock(
        monkeypatch,
        lambda: MT5Account.objects.create(login="1", broker_server="B", company=cast.alpha, owner=cast.alice),
    )
    with pytest.raises(ValidationError, match="1 of 1 MT5 accounts"):
        access.save_row(admin, MT5Account(login="2", broker_server="B", owner=cast.bob))
    # Rolled back along with it here; the other transaction would be committed.
    assert not MT5Account.objects.exists()


def test_plan_that_shrank_while_waiting_for_the_lock_counts(
    cast: Cast, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cast.bob.company is not None and cast.bob.company.tier.code == "PRO"
    for number in range(5):
        MT5Account.objects.create(login=str(number), broker_server="B", company=cast.alpha, owner=cast.bob)
    just_before_the_lock(monkeypatch, lambda: Company.objects.filter(pk=cast.alpha.pk).update(tier=tier("FREE")))
    with pytest.raises(ValidationError, match="5 of 5 MT5 accounts"):
        access.save_row(admin, MT5Account(login="9", broker_server="B", owner=cast.bob, company=cast.bob.company))


def test_power_that_was_taken_while_waiting_for_the_lock_is_not_written_back(
    cast: Cast, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    carol = User.objects.create_user("carol", company=cast.alpha, role=User.Role.COMPANY_ADMIN)
    carol.first_name = "Carol"
    just_before_the_lock(monkeypatch, lambda: User.objects.filter(pk=carol.pk).update(role=User.Role.TRADER))
    with pytest.raises(PermissionDenied, match="role"):
        access.save_row(admin, carol)


@pytest.mark.parametrize("kind", ["account", "pair", "user"])
def test_new_row_is_counted_under_the_lock_of_the_admins_company(
    cast: Cast, admin: Actor, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    locked = noting_locks(monkeypatch)
    rows: dict[str, Model] = {
        "account": MT5Account(login="1", broker_server="B", owner=cast.bob),
        "pair": ActivePair(user=cast.bob, symbol="EURUSD"),
        "user": new_user(),
    }
    access.save_row(admin, rows[kind])
    assert locked == [{cast.alpha.pk}]


def test_move_locks_and_raises_both_companies(cast: Cast, operator: User, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = noting_locks(monkeypatch)
    cast.bob.company = cast.beta
    access.save_row(Actor.of(operator), cast.bob)
    assert locked == [{cast.alpha.pk, cast.beta.pk}]
    assert (version_of(cast.alpha), version_of(cast.beta)) == (2, 2)
    assert {event.company_id for event in told()} == {str(cast.alpha.pk), str(cast.beta.pk)}


def test_user_with_accounts_is_not_moved(cast: Cast, operator: User, account: MT5Account) -> None:
    cast.bob.company = cast.beta
    before = everything()
    with pytest.raises(ValidationError, match="belong to another company"):
        access.save_row(Actor.of(operator), cast.bob)
    assert everything() == before


@pytest.mark.parametrize("to", ["beta", "operators"])
def test_person_who_moves_brings_no_password_and_no_key_that_the_old_company_may_know(cast: Cast, to: str) -> None:
    cast.bob.set_password("known to Alice, who chose it")
    cast.bob.save()
    known, _ = access.create_api_key(Actor.of(cast.alice), cast.bob, "VPS")
    charlies, _ = access.create_api_key(Actor.system(), cast.charlie, "VPS")
    bob = User.objects.get(pk=cast.bob.pk)
    if to == "beta":
        bob.company = cast.beta
    else:
        bob.company, bob.role = None, User.Role.OPERATOR
    access.save_row(Actor.system(), bob)
    assert not User.objects.get(pk=bob.pk).has_usable_password()
    assert access.usable_api_key(known) is None and access.usable_api_key(charlies) is not None
    assert AuditEntry.objects.filter(action="revoke", object_type="apikey").count() == 1


def test_person_who_stays_keeps_password_and_keys(cast: Cast) -> None:
    cast.bob.set_password("a long enough password")
    cast.bob.save()
    key, _ = access.create_api_key(Actor.system(), cast.bob, "VPS")
    bob = User.objects.get(pk=cast.bob.pk)
    bob.first_name, bob.role = "Robert", User.Role.COMPANY_ADMIN
    access.save_row(Actor.system(), bob)
    assert User.objects.get(pk=bob.pk).has_usable_password() and access.usable_api_key(key) is not None
