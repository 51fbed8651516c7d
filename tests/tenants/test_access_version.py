"""Each change of what users may do raises the access version of their company, and of no other."""

import pytest
from django.test import Client

from tenants import access
from tenants.models import ActivePair, Company, MT5Account, SubscriptionTier, User
from tests.tenants.cast import Cast, make_trader, tier, version_of
from tests.tenants.forms import delete, fill_in, page, run_action

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(cast: Cast) -> MT5Account:
    return MT5Account.objects.create(login="100", broker_server="B", company=cast.alpha, owner=cast.bob)


def versions(cast: Cast) -> tuple[int, int]:
    return version_of(cast.alpha), version_of(cast.beta)


def test_user_is_disabled_and_enabled(cast: Cast) -> None:
    access.disable_user(str(cast.bob.pk))
    assert versions(cast) == (2, 1)
    access.enable_user(str(cast.bob.pk))
    assert versions(cast) == (3, 1)


def test_company_is_suspended_and_resumed(cast: Cast) -> None:
    access.suspend_company(str(cast.alpha.pk))
    assert versions(cast) == (2, 1)
    access.resume_company(str(cast.alpha.pk))
    assert versions(cast) == (3, 1)


def test_operator_is_disabled_without_any_company(cast: Cast, operator: User) -> None:
    access.disable_user(str(operator.pk))
    assert versions(cast) == (1, 1)


def test_unknown_user_is_not_disabled(cast: Cast) -> None:
    with pytest.raises(User.DoesNotExist):
        access.disable_user("00000000-0000-0000-0000-000000000000")


def test_operator_disables_chosen_users(cast: Cast, operator_client: Client) -> None:
    run_action(operator_client, User, "disable", cast.bob)
    assert versions(cast) == (2, 1)
    assert not User.objects.get(pk=cast.bob.pk).is_active
    run_action(operator_client, User, "enable", cast.bob)
    assert User.objects.get(pk=cast.bob.pk).is_active


def test_operator_disables_a_user_in_the_form(cast: Cast, operator_client: Client) -> None:
    assert fill_in(operator_client, page(User, "change", cast.bob.pk), is_active=None).status_code == 302
    assert versions(cast) == (2, 1)
    assert not User.objects.get(pk=cast.bob.pk).is_active


def test_operator_suspends_chosen_companies(cast: Cast, operator_client: Client) -> None:
    run_action(operator_client, Company, "suspend", cast.alpha)
    assert versions(cast) == (2, 1)
    run_action(operator_client, Company, "resume", cast.alpha)
    assert versions(cast) == (3, 1)
    assert Company.objects.get(pk=cast.alpha.pk).status == Company.Status.ACTIVE


def test_operator_gives_a_company_another_plan(cast: Cast, operator_client: Client) -> None:
    path = page(Company, "change", cast.alpha.pk)
    assert fill_in(operator_client, path, tier=tier("FREE").pk).status_code == 302
    assert versions(cast) == (2, 1)
    found = access.terminal_access(str(cast.bob.pk))
    assert found is not None and found.tier == "FREE"


def test_operator_edits_a_plan_of_both_companies(cast: Cast, operator_client: Client) -> None:
    path = page(SubscriptionTier, "change", tier("PRO").pk)
    assert fill_in(operator_client, path, connection_limit=3).status_code == 302
    assert versions(cast) == (2, 2)


def test_operator_edits_a_plan_that_only_one_company_has(cast: Cast, operator_client: Client) -> None:
    Company.objects.filter(pk=cast.beta.pk).update(tier=tier("FREE"))
    fill_in(operator_client, page(SubscriptionTier, "change", tier("FREE").pk), connection_limit=3)
    assert versions(cast) == (1, 2)


def test_operator_adds_and_removes_a_pair(cast: Cast, operator_client: Client) -> None:
    path = page(ActivePair, "add")
    assert fill_in(operator_client, path, user=cast.bob.pk, symbol="EURUSD").status_code == 302
    assert versions(cast) == (2, 1)
    delete(operator_client, ActivePair.objects.get())
    assert versions(cast) == (3, 1)
    assert not ActivePair.objects.exists()


def test_operator_gives_a_pair_to_a_user_of_another_company(cast: Cast, operator_client: Client) -> None:
    pair = ActivePair.objects.create(user=cast.bob, symbol="EURUSD")
    fill_in(operator_client, page(ActivePair, "change", pair.pk), user=cast.charlie.pk)
    assert versions(cast) == (2, 2)


def test_operator_removes_chosen_pairs(cast: Cast, operator_client: Client) -> None:
    pairs = [ActivePair.objects.create(user=cast.bob, symbol=symbol) for symbol in ("EURUSD", "GBPUSD")]
    run_action(operator_client, ActivePair, "delete_selected", *pairs)
    assert not ActivePair.objects.exists()
    assert versions(cast) == (2, 1)


def test_operator_adds_an_account(cast: Cast, operator_client: Client) -> None:
    fields = {"login": "100", "broker_server": "B", "company": cast.alpha.pk, "owner": cast.bob.pk}
    assert fill_in(operator_client, page(MT5Account, "add"), **fields).status_code == 302
    assert versions(cast) == (2, 1)


def test_operator_removes_an_account(cast: Cast, account: MT5Account, operator_client: Client) -> None:
    delete(operator_client, account)
    assert versions(cast) == (2, 1)
    assert not MT5Account.objects.exists()


def test_operator_disables_an_account(cast: Cast, account: MT5Account, operator_client: Client) -> None:
    fill_in(operator_client, page(MT5Account, "change", account.pk), is_active=None)
    assert versions(cast) == (2, 1)
    assert not MT5Account.objects.get().is_active


def test_operator_moves_a_user_to_another_company(cast: Cast, operator_client: Client) -> None:
    assert fill_in(operator_client, page(User, "change", cast.bob.pk), company=cast.beta.pk).status_code == 302
    assert versions(cast) == (2, 2)


def test_operator_deletes_a_user(cast: Cast, operator_client: Client) -> None:
    delete(operator_client, cast.bob)
    assert versions(cast) == (2, 1)


def test_operator_deletes_a_company_and_no_version_of_it_is_left(cast: Cast, operator_client: Client) -> None:
    delete(operator_client, cast.beta)
    assert access.access_versions([str(cast.alpha.pk), str(cast.beta.pk)]) == {str(cast.alpha.pk): 1}


def test_stale_copy_of_a_company_does_not_take_its_version_back(cast: Cast) -> None:
    stale = Company.objects.get(pk=cast.alpha.pk)
    access.raise_access_version([cast.alpha.pk])
    stale.name = "Alpha Trading"
    stale.save()
    stale.save(update_fields=["name", "access_version"])
    assert (version_of(cast.alpha), Company.objects.get(pk=stale.pk).name) == (2, "Alpha Trading")


def test_partly_loaded_company_is_saved_without_its_version_and_without_the_rest(cast: Cast) -> None:
    stale = Company.objects.only("name", "access_version").get(pk=cast.alpha.pk)
    access.raise_access_version([cast.alpha.pk])
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
