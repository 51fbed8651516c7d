"""Who sees which rows: a row of another company looks like one that does not exist."""

import uuid
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db.models import Model

from events.models import OutboxEvent
from tenants import scope
from tenants.models import (
    ActivePair,
    ApiKey,
    AuditEntry,
    Ban,
    Company,
    CompanyOverride,
    Kick,
    MT5Account,
    RevokedToken,
    SubscriptionTier,
    User,
)
from tenants.scope import Actor, NotVisible, company_ids_of, find, is_tenant_model, visible
from tests.tenants.cast import Cast
from tests.tenants.rows import Rows

pytestmark = pytest.mark.django_db
OF_A_PERSON: list[type[Model]] = [User, MT5Account, ActivePair, ApiKey, RevokedToken, Ban]
OF_OPERATORS: list[type[Model]] = [CompanyOverride, SubscriptionTier]
ALL: list[type[Model]] = [Company, *OF_A_PERSON, AuditEntry, *OF_OPERATORS]


@pytest.fixture
def rows(cast: Cast) -> Rows:
    return Rows(cast)


def names(rows: Rows, actor: Actor, model: type[Model]) -> set[str]:
    """Whose rows the actor sees; a row that nobody expects has no name and fails here."""
    by_key = {row.pk: name for name, row in rows.of(model).items()}
    return {by_key[pk] for pk in visible(actor, model).values_list("pk", flat=True)}


def with_operators_own(rows: Rows, operator: User, model: type[Model]) -> set[Any]:
    return {row.pk for row in rows.of(model).values()} | ({operator.pk} if model is User else set())


@pytest.mark.parametrize("model", ALL)
def test_operator_and_the_product_see_all_rows(rows: Rows, operator: User, model: type[Model]) -> None:
    wanted = with_operators_own(rows, operator, model)
    for actor in (Actor.of(operator), Actor.system()):
        found = set(visible(actor, model).values_list("pk", flat=True))
        # The tiers that no company of the cast has are there too.
        assert found >= wanted if model is SubscriptionTier else found == wanted


@pytest.mark.parametrize("model", OF_A_PERSON)
def test_company_admin_sees_the_rows_of_all_people_of_the_company(rows: Rows, cast: Cast, model: type[Model]) -> None:
    assert names(rows, Actor.of(cast.alice), model) == {"alice", "bob"}


@pytest.mark.parametrize("model", OF_A_PERSON)
def test_trader_sees_own_rows_and_none_of_a_colleague(rows: Rows, cast: Cast, model: type[Model]) -> None:
    assert names(rows, Actor.of(cast.bob), model) == {"bob"}
    assert names(rows, Actor.of(cast.charlie), model) == {"charlie"}


def test_people_see_their_own_company(rows: Rows, cast: Cast) -> None:
    assert names(rows, Actor.of(cast.alice), Company) == names(rows, Actor.of(cast.bob), Company) == {"alpha"}
    assert names(rows, Actor.of(cast.charlie), Company) == {"beta"}


def test_company_admin_reads_the_companys_audit_log_and_a_trader_reads_none(rows: Rows, cast: Cast) -> None:
    assert names(rows, Actor.of(cast.alice), AuditEntry) == {"alpha"}
    assert names(rows, Actor.of(cast.bob), AuditEntry) == set()


@pytest.mark.parametrize("model", OF_OPERATORS)
def test_nobody_but_operators_sees_tiers_and_overrides(rows: Rows, cast: Cast, model: type[Model]) -> None:
    for user in (cast.alice, cast.bob, cast.charlie):
        assert not visible(Actor.of(user), model).exists()


@pytest.mark.parametrize("model", OF_OPERATORS)
def test_company_admin_does_not_read_of_an_operators_row_in_the_audit_log(
    rows: Rows, cast: Cast, model: type[Model]
) -> None:
    name = str(model._meta.model_name)
    AuditEntry.objects.create(
        actor="operator", company_id=cast.alpha.pk, action="add", object_type=name, after={"note": "a secret discount"}
    )
    assert not visible(Actor.of(cast.alice), AuditEntry).filter(object_type=name).exists()
    assert visible(Actor.system(), AuditEntry).filter(object_type=name).exists()


def test_row_that_another_room_keeps_for_operators_is_not_read_of_either(
    cast: Cast, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scope, "_PATHS", dict(scope._PATHS))
    scope.register_scope(OutboxEvent, None)
    AuditEntry.objects.create(actor="operator", company_id=cast.alpha.pk, action="add", object_type="outboxevent")
    for user, is_seen in ((cast.alice, False), (operator, True)):
        assert visible(Actor.of(user), AuditEntry).filter(object_type="outboxevent").exists() is is_seen


@pytest.mark.parametrize("model", ALL)
def test_whoever_is_nobody_sees_nothing(rows: Rows, cast: Cast, operator: User, model: type[Model]) -> None:
    cast.alice.is_active = cast.bob.is_active = False
    flagless = User.objects.create_user("flagless", role=User.Role.OPERATOR, is_staff=True)
    disabled = User(username="o", role=User.Role.OPERATOR, is_superuser=True, is_active=False)
    homeless = User(username="h", role=User.Role.COMPANY_ADMIN)
    for user in (AnonymousUser(), cast.alice, cast.bob, flagless, disabled, homeless):
        assert not visible(Actor.of(user), model).exists(), user
    assert not visible(Actor(role="owner", name="x", company_id=cast.alpha.pk), model).exists()


@pytest.mark.parametrize("model", ALL)
def test_flags_set_by_mistake_show_a_companys_person_no_more(rows: Rows, cast: Cast, model: type[Model]) -> None:
    for user in (cast.alice, cast.bob):
        before = set(visible(Actor.of(user), model).values_list("pk", flat=True))
        user.is_superuser = user.is_staff = True
        assert set(visible(Actor.of(user), model).values_list("pk", flat=True)) == before


@pytest.mark.parametrize("model", ALL)
@pytest.mark.parametrize("name", ["alice", "bob", "nobody"])
def test_other_companys_row_looks_like_an_unknown_one(rows: Rows, cast: Cast, name: str, model: type[Model]) -> None:
    people: dict[str, User | AnonymousUser] = {"alice": cast.alice, "bob": cast.bob, "nobody": AnonymousUser()}
    actor = Actor.of(people[name])
    kept = rows.of(model)
    foreign = kept["charlie" if "charlie" in kept else "beta" if "beta" in kept else "alpha"].pk
    unknown = uuid.uuid4() if isinstance(foreign, uuid.UUID) else 10_000_000
    texts = set()
    for key in (foreign, str(foreign), unknown, "none", "", "\x00", "\ud800", 2**70, None, ["x"]):
        with pytest.raises(NotVisible) as caught:
            find(actor, model, pk=key)
        assert type(caught.value) is NotVisible
        texts.add(str(caught.value))
    assert texts == {f"there is no such {model._meta.verbose_name}"}


@pytest.mark.parametrize("model", OF_A_PERSON)
def test_trader_asks_for_a_colleagues_row_in_vain(rows: Rows, cast: Cast, model: type[Model]) -> None:
    with pytest.raises(NotVisible):
        find(Actor.of(cast.bob), model, pk=rows.of(model)["alice"].pk)
    assert find(Actor.of(cast.alice), model, pk=rows.of(model)["bob"].pk) == rows.of(model)["bob"]


@pytest.mark.parametrize("text", ["charlie", "nobody-at-all", "\x00", "\ud800", "x" * 500])
def test_name_of_another_companys_user_looks_like_an_unknown_one(cast: Cast, text: str) -> None:
    with pytest.raises(NotVisible, match="there is no such user"):
        find(Actor.of(cast.alice), User, username=text)


def test_disabled_user_who_is_enabled_again_sees_own_rows_again(rows: Rows, cast: Cast) -> None:
    cast.bob.is_active = False
    assert Actor.of(cast.bob) == Actor(role="", name="")
    cast.bob.is_active = True
    assert names(rows, Actor.of(cast.bob), MT5Account) == {"bob"}


def test_trader_who_was_moved_by_hand_sees_no_account_that_stayed_behind(rows: Rows, cast: Cast) -> None:
    User.objects.filter(pk=cast.bob.pk).update(company=cast.beta)
    moved = Actor.of(User.objects.get(pk=cast.bob.pk))
    assert names(rows, moved, MT5Account) == set()
    assert names(rows, moved, ActivePair) == {"bob"}


def test_actor_knows_who_and_from_where(cast: Cast, operator: User) -> None:
    actor = Actor.of(cast.alice, address="192.0.2.7")
    assert actor == Actor("company_admin", "alice", cast.alice.pk, cast.alpha.pk, "192.0.2.7")
    assert (actor.is_company_admin, actor.sees_all) == (True, False)
    assert (Actor.of(operator).is_company_admin, Actor.of(operator).sees_all) == (False, True)
    assert (Actor.of(cast.bob).is_company_admin, Actor.of(cast.bob).sees_all) == (False, False)
    assert Actor.system("shell:root").name == "shell:root"


def test_rows_that_are_no_tenants_are_not_asked_for_here(cast: Cast) -> None:
    assert all(is_tenant_model(model) for model in ALL)
    # An order to the gateways, not a row that anybody looks at.
    assert not is_tenant_model(Kick)
    with pytest.raises(KeyError):
        visible(Actor.system(), Kick)


@pytest.mark.parametrize("model", [model for model in ALL if model not in (AuditEntry, SubscriptionTier)])
def test_change_of_a_row_concerns_the_company_of_its_owner(rows: Rows, cast: Cast, model: type[Model]) -> None:
    for name, company in (("alpha", cast.alpha), ("bob", cast.alpha), ("beta", cast.beta), ("charlie", cast.beta)):
        if name in rows.of(model):
            assert company_ids_of(rows.of(model)[name]) == {company.pk}


def test_change_of_a_tier_concerns_the_companies_that_have_it(rows: Rows, cast: Cast, operator: User) -> None:
    Company.objects.filter(pk=cast.beta.pk).update(tier=SubscriptionTier.objects.get(code="FREE"))
    by_code = {row.code: company_ids_of(row) for row in SubscriptionTier.objects.all()}
    assert by_code == {"FREE": {cast.beta.pk}, "PRO": {cast.alpha.pk}, "ENTERPRISE": set()}
    assert company_ids_of(operator) == set()
