"""Each change of what users may do raises the access version of their company, and of no other."""

import pytest

from tenants import access
from tenants.access import Actor, NotVisible
from tenants.models import ActivePair, Company, CompanyOverride, MT5Account, User
from tests.tenants import acts
from tests.tenants.cast import Cast, make_trader, tier, version_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(cast: Cast) -> MT5Account:
    return MT5Account.objects.create(login="100", broker_server="B", company=cast.alpha, owner=cast.bob)


@pytest.fixture
def actor(operator: User) -> Actor:
    return Actor.of(operator)


def versions(cast: Cast) -> tuple[int, int]:
    return version_of(cast.alpha), version_of(cast.beta)


def test_user_is_disabled_and_enabled(cast: Cast) -> None:
    acts.disable(str(cast.bob.pk))
    assert versions(cast) == (2, 1)
    acts.enable(str(cast.bob.pk))
    assert versions(cast) == (3, 1)


def test_company_is_suspended_and_resumed(cast: Cast) -> None:
    acts.suspend(str(cast.alpha.pk))
    assert versions(cast) == (2, 1)
    acts.resume(str(cast.alpha.pk))
    assert versions(cast) == (3, 1)


def test_operator_is_disabled_without_any_company(cast: Cast, operator: User) -> None:
    acts.disable(str(operator.pk))
    assert versions(cast) == (1, 1)


def test_unknown_user_is_not_disabled(cast: Cast) -> None:
    with pytest.raises(NotVisible):
        acts.disable("00000000-0000-0000-0000-000000000000")
    assert versions(cast) == (1, 1)


def test_operator_disables_chosen_users(cast: Cast, actor: Actor) -> None:
    assert access.set_users_active(actor, [cast.bob, cast.alice], is_active=False) == 2
    assert versions(cast) == (2, 1)
    assert not User.objects.get(pk=cast.bob.pk).is_active
    assert access.set_users_active(actor, [cast.bob, cast.alice, cast.charlie], is_active=True) == 2
    assert versions(cast) == (3, 1)
    assert User.objects.get(pk=cast.bob.pk).is_active


def test_operator_disables_a_user_in_the_form(cast: Cast, actor: Actor) -> None:
    cast.bob.is_active = False
    access.save_row(actor, cast.bob)
    assert versions(cast) == (2, 1)
    assert not User.objects.get(pk=cast.bob.pk).is_active


def test_operator_suspends_and_resumes_a_company(cast: Cast, actor: Actor) -> None:
    access.set_company_status(actor, cast.alpha, Company.Status.SUSPENDED)
    assert versions(cast) == (2, 1)
    access.set_company_status(actor, cast.alpha, Company.Status.ACTIVE)
    assert versions(cast) == (3, 1)
    assert Company.objects.get(pk=cast.alpha.pk).status == Company.Status.ACTIVE


def test_operator_gives_a_company_another_plan(cast: Cast, actor: Actor) -> None:
    access.set_tier(actor, cast.alpha, tier("FREE"))
    assert versions(cast) == (2, 1)
    found = access.terminal_access(str(cast.bob.pk))
    assert found is not None and (found.tier, found.access_version) == ("FREE", 2)


def test_operator_edits_a_plan_of_both_companies(cast: Cast, actor: Actor) -> None:
    plan = tier("PRO")
    plan.connection_limit = 3
    access.save_row(actor, plan)
    assert versions(cast) == (2, 2)


def test_operator_edits_a_plan_that_only_one_company_has(cast: Cast, actor: Actor) -> None:
    Company.objects.filter(pk=cast.beta.pk).update(tier=tier("FREE"))
    plan = tier("FREE")
    plan.connection_limit = 3
    access.save_row(actor, plan)
    assert versions(cast) == (1, 2)


def test_operator_gives_a_company_limits_of_its_own_and_takes_them_back(cast: Cast, actor: Actor) -> None:
    override = CompanyOverride(company=cast.alpha, pair_limit=7)
    access.save_row(actor, override)
    assert versions(cast) == (2, 1)
    access.delete_rows(actor, [override])
    assert versions(cast) == (3, 1)


def test_operator_adds_and_removes_a_pair(cast: Cast, actor: Actor) -> None:
    pair = ActivePair(user=cast.bob, symbol="EURUSD")
    access.save_row(actor, pair)
    assert versions(cast) == (2, 1)
    access.delete_rows(actor, [pair])
    assert versions(cast) == (3, 1)
    assert not ActivePair.objects.exists()


def test_operator_gives_a_pair_to_a_user_of_another_company(cast: Cast, actor: Actor) -> None:
    pair = ActivePair.objects.create(user=cast.bob, symbol="EURUSD")
    pair.user = cast.charlie
    access.save_row(actor, pair)
    assert versions(cast) == (2, 2)


def test_operator_removes_chosen_pairs(cast: Cast, actor: Actor) -> None:
    pairs = [ActivePair.objects.create(user=cast.bob, symbol=symbol) for symbol in ("EURUSD", "GBPUSD")]
    access.delete_rows(actor, pairs)
    assert not ActivePair.objects.exists()
    assert versions(cast) == (2, 1)


def test_operator_adds_an_account(cast: Cast, actor: Actor) -> None:
    access.save_row(actor, MT5Account(login="100", broker_server="B", company=cast.alpha, owner=cast.bob))
    assert versions(cast) == (2, 1)


def test_operator_removes_an_account(cast: Cast, account: MT5Account, actor: Actor) -> None:
    access.delete_rows(actor, [account])
    assert versions(cast) == (2, 1)
    assert not MT5Account.objects.exists()


def test_operator_disables_an_account(cast: Cast, account: MT5Account, actor: Actor) -> None:
    account.is_active = False
    access.save_row(actor, account)
    assert versions(cast) == (2, 1)
    assert not MT5Account.objects.get().is_active


def test_operator_moves_a_user_to_another_company(cast: Cast, actor: Actor) -> None:
    cast.bob.company = cast.beta
    access.save_row(actor, cast.bob)
    assert versions(cast) == (2, 2)


def test_operator_deletes_a_user(cast: Cast, actor: Actor) -> None:
    access.delete_rows(actor, [cast.bob])
    assert versions(cast) == (2, 1)
    assert access.terminal_access(str(cast.charlie.pk)) is not None


def test_operator_deletes_a_company_and_no_version_of_it_is_left(cast: Cast, actor: Actor) -> None:
    access.delete_rows(actor, [cast.beta])
    assert access.access_versions([str(cast.alpha.pk), str(cast.beta.pk)]) == {str(cast.alpha.pk): 1}


def test_stale_copy_of_a_company_does_not_take_its_version_back(cast: Cast) -> None:
    stale = Company.objects.get(pk=cast.alpha.pk)
    access.touch([cast.alpha.pk])
    stale.name = "Alpha Trading"
    stale.save()
    stale.save(update_fields=["name", "access_version"])
    assert (version_of(cast.alpha), Company.objects.get(pk=stale.pk).name) == (2, "Alpha Trading")


def test_partly_loaded_company_is_saved_without_its_version_and_without_the_rest(cast: Cast) -> None:
    stale = Company.objects.only("name", "access_version").get(pk=cast.alpha.pk)
    access.touch([cast.alpha.pk])
    Company.objects.filter(pk=cast.alpha.pk).update(tier=tier("FREE"))
    stale.name = "Alpha Trading"
    stale.save()
    found = Company.objects.get(pk=cast.alpha.pk)
    assert (found.name, found.access_version, found.tier.code) == ("Alpha Trading", 2, "FREE")


def test_save_notes_when_a_company_changed(cast: Cast) -> None:
    before = Company.objects.get(pk=cast.alpha.pk)
    before.save()
    assert Company.objects.get(pk=cast.alpha.pk).updated_at > cast.alpha.updated_at


def test_new_company_begins_with_its_version(cast: Cast) -> None:
    made = Company(name="Gamma", slug="gamma", tier=tier("PRO"), access_version=7)
    made.save()
    make_trader("gina", made)
    assert version_of(made) == 7
