"""A plan's limits on rows: the last one fits, one more does not."""

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from tenants.models import ActivePair, Company, CompanyOverride, MT5Account, SubscriptionTier, User
from tests.tenants.cast import Cast, tier

pytestmark = pytest.mark.django_db
FULL = "choose a larger plan"


def new_user(username: str, company: Company) -> User:
    # Loaded anew: a plan that was edited meanwhile counts.
    user = User(username=username, company=Company.objects.get(pk=company.pk), role=User.Role.TRADER)
    user.set_password("a long enough password")
    return user


def new_account(owner: User, login: str, broker: str = "B") -> MT5Account:
    return MT5Account(login=login, broker_server=broker, company=owner.company, owner=owner)


def fill_accounts(owner: User, first: int, count: int) -> None:
    MT5Account.objects.bulk_create([new_account(owner, str(first + number)) for number in range(count)])


def fill_pairs(user: User, count: int) -> None:
    ActivePair.objects.bulk_create([ActivePair(user=user, symbol=f"P{number}") for number in range(count)])


@pytest.mark.parametrize(("code", "limit"), [("FREE", 1), ("PRO", 5), ("ENTERPRISE", 10)])
def test_company_takes_as_many_users_as_the_plan_has(code: str, limit: int) -> None:
    company = Company.objects.create(name="Gamma", slug="gamma", tier=tier(code))
    for number in range(limit):
        user = new_user(f"user-{number}", company)
        user.full_clean()
        user.save()
    with pytest.raises(ValidationError, match=FULL):
        new_user("one-more", company).full_clean()


def test_disabled_user_keeps_the_place(cast: Cast) -> None:
    SubscriptionTier.objects.filter(code="PRO").update(user_limit=2)
    User.objects.filter(pk=cast.bob.pk).update(is_active=False)
    with pytest.raises(ValidationError, match=FULL):
        new_user("dora", cast.alpha).full_clean()


def test_full_company_does_not_fill_another(cast: Cast) -> None:
    SubscriptionTier.objects.filter(code="PRO").update(user_limit=2)
    new_user("dora", cast.beta).full_clean()


def test_user_does_not_move_into_a_full_company(cast: Cast) -> None:
    SubscriptionTier.objects.filter(code="PRO").update(user_limit=2)
    cast.charlie.password = "unusable"
    cast.charlie.company = Company.objects.get(pk=cast.alpha.pk)
    with pytest.raises(ValidationError, match=FULL):
        cast.charlie.full_clean()


def test_user_does_not_move_away_from_accounts(cast: Cast) -> None:
    new_account(cast.bob, "100").save()
    cast.bob.company = cast.beta
    with pytest.raises(ValidationError, match="belong to another company"):
        cast.bob.full_clean()


@pytest.mark.parametrize(("code", "limit"), [("FREE", 5), ("PRO", 10), ("ENTERPRISE", 20)])
def test_user_takes_as_many_accounts_as_the_plan_has(cast: Cast, code: str, limit: int) -> None:
    cast.alpha.tier = tier(code)
    cast.alpha.save()
    fill_accounts(cast.bob, 0, limit - 1)
    last = new_account(cast.bob, "900")
    last.full_clean()
    last.save()
    with pytest.raises(ValidationError, match=FULL):
        new_account(cast.bob, "901").full_clean()


@pytest.mark.parametrize(("code", "limit"), [("FREE", 5), ("PRO", 20), ("ENTERPRISE", 50)])
def test_company_takes_as_many_accounts_as_the_plan_has(cast: Cast, code: str, limit: int) -> None:
    cast.alpha.tier = tier(code)
    cast.alpha.save()
    fill_accounts(cast.alice, 0, limit - 1)
    last = new_account(cast.bob, "900")
    last.full_clean()
    last.save()
    with pytest.raises(ValidationError, match=f"{limit} of {limit} MT5 accounts of the plan are taken"):
        new_account(cast.bob, "901").full_clean()
    new_account(cast.charlie, "901").full_clean()


@pytest.mark.parametrize(("code", "limit"), [("FREE", 5), ("PRO", 20), ("ENTERPRISE", 100)])
def test_user_takes_as_many_pairs_as_the_plan_has(cast: Cast, code: str, limit: int) -> None:
    cast.alpha.tier = tier(code)
    cast.alpha.save()
    fill_pairs(cast.bob, limit - 1)
    last = ActivePair(user=cast.bob, symbol="EURUSD")
    last.full_clean()
    last.save()
    with pytest.raises(ValidationError, match=FULL):
        ActivePair(user=cast.bob, symbol="GBPUSD").full_clean()
    ActivePair(user=cast.alice, symbol="GBPUSD").full_clean()


def test_rows_above_a_smaller_plan_can_still_be_edited(cast: Cast) -> None:
    fill_accounts(cast.bob, 0, 8)
    fill_pairs(cast.bob, 8)
    cast.alpha.tier = tier("FREE")
    cast.alpha.save()
    for row in (*MT5Account.objects.all(), *ActivePair.objects.all()):
        row.full_clean()
    cast.bob.password = "unusable"
    cast.bob.full_clean()


def test_whoever_is_refused_is_told_how_many_places_are_taken_and_what_to_do(cast: Cast) -> None:
    fill_pairs(cast.bob, 20)
    with pytest.raises(ValidationError) as caught:
        ActivePair(user=cast.bob, symbol="EURUSD").full_clean()
    [error] = caught.value.error_dict["__all__"]
    assert error.code == "plan_limit"
    assert error.messages == ["this user has 20 of 20 active pairs: remove one or choose a larger plan"]


@pytest.mark.parametrize("limit", [1, 3])
def test_override_of_a_company_counts_instead_of_its_plan(cast: Cast, limit: int) -> None:
    CompanyOverride.objects.create(company=cast.alpha, pair_limit=limit)
    fill_pairs(cast.bob, limit - 1)
    ActivePair.objects.create(user=cast.bob, symbol="EURUSD")
    fill_pairs(cast.charlie, limit)
    with pytest.raises(ValidationError, match=FULL):
        ActivePair(user=User.objects.get(pk=cast.bob.pk), symbol="GBPUSD").full_clean()
    ActivePair(user=cast.charlie, symbol="GBPUSD").full_clean()


def test_plan_that_became_smaller_counts_for_a_copy_that_was_read_before(cast: Cast) -> None:
    fill_pairs(cast.bob, 5)
    assert cast.bob.company is not None and cast.bob.company.tier.code == "PRO"
    Company.objects.filter(pk=cast.alpha.pk).update(tier=tier("FREE"))
    with pytest.raises(ValidationError, match="5 of 5"):
        ActivePair(user=cast.bob, symbol="EURUSD").full_clean()


def test_operator_has_no_pairs(operator: User) -> None:
    with pytest.raises(ValidationError, match="no company"):
        ActivePair(user=operator, symbol="EURUSD").full_clean()


def test_empty_forms_are_refused_by_their_fields() -> None:
    for row in (MT5Account(login="1", broker_server="B"), ActivePair(symbol="EURUSD")):
        with pytest.raises(ValidationError, match="cannot be null"):
            row.full_clean()


def test_account_belongs_to_a_user_of_its_company(cast: Cast) -> None:
    MT5Account(login="1", broker_server="B", company=cast.alpha, owner=cast.alice).full_clean()
    with pytest.raises(ValidationError, match="must be a user of the account's company"):
        MT5Account(login="1", broker_server="B", company=cast.alpha, owner=cast.charlie).full_clean()


@pytest.mark.parametrize("login", ["1", "9" * 20])
def test_account_login_is_a_number(cast: Cast, login: str) -> None:
    new_account(cast.bob, login).full_clean()


@pytest.mark.parametrize("login", ["", "9" * 21, "12a", "-1", "1\n", "٣"])
def test_account_login_that_is_no_number_is_refused(cast: Cast, login: str) -> None:
    with pytest.raises(ValidationError):
        new_account(cast.bob, login).full_clean()


def test_same_account_of_two_companies_neither_blocks_nor_shows(cast: Cast) -> None:
    new_account(cast.charlie, "100").save()
    mine = new_account(cast.bob, "100")
    mine.full_clean()
    mine.save()
    with pytest.raises(ValidationError, match="already exists"):
        new_account(cast.alice, "100").full_clean()
    with pytest.raises(IntegrityError), transaction.atomic():
        new_account(cast.alice, "100").save()
    new_account(cast.alice, "100", broker="C").full_clean()


def test_pair_is_active_once_for_a_user(cast: Cast) -> None:
    ActivePair.objects.create(user=cast.bob, symbol="EURUSD")
    with pytest.raises(IntegrityError), transaction.atomic():
        ActivePair.objects.create(user=cast.bob, symbol="EURUSD")
    ActivePair.objects.create(user=cast.charlie, symbol="EURUSD")


def test_trader_without_a_company_and_operator_with_one_are_refused(cast: Cast) -> None:
    for role, company in ((User.Role.TRADER, None), (User.Role.OPERATOR, cast.alpha), ("owner", cast.alpha)):
        with pytest.raises(IntegrityError), transaction.atomic():
            User.objects.create_user("dora", role=role, company=company)


def test_superuser_is_an_operator_without_a_company(cast: Cast) -> None:
    made = User.objects.create_superuser("root", password="a long enough password")
    assert (made.role, made.company, made.is_staff, made.is_superuser) == (User.Role.OPERATOR, None, True, True)
    for fields in ({"company": cast.alpha}, {"role": User.Role.TRADER}):
        with pytest.raises(ValueError, match="a superuser is an operator"):
            User.objects.create_superuser("other", **fields)
