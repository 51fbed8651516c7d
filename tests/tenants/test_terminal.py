"""One answer made of tier, override and the user's own settings; for many users as for one."""

import datetime
import time
import uuid
from typing import Any

import pytest
from django.db.models import Field
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from tenants import access
from tenants.access import TerminalAccess
from tenants.models import ActivePair, ApiKey, Company, CompanyOverride, MT5Account, SubscriptionTier, User
from tests.tenants.cast import Cast, make_trader, tier
from tests.tenants.rows import make_ban

pytestmark = pytest.mark.django_db
OVERRIDES = [field for field in CompanyOverride._meta.concrete_fields if field.name not in ("id", "company", "note")]


def of(user: User) -> TerminalAccess:
    found = access.terminal_access(str(user.pk))
    assert found is not None
    return found


def limits(user: User) -> dict[str, Any]:
    """What the user's answer says, by the names that tiers and overrides have."""
    found = of(user)
    return {
        "user_account_limit": found.account_limit,
        "pair_limit": found.pair_limit,
        "message_rate_limit": found.message_rate_limit,
        "connection_limit": found.connection_limit,
        "company_connection_limit": found.company_connection_limit,
        "monthly_data_limit": found.monthly_data_limit,
        "refuses_over_quota": found.refuses_over_quota,
        "has_signals": "signals" in found.features,
        "has_alerts": "alerts" in found.features,
        "has_replay": "replay" in found.features,
    }


@pytest.mark.parametrize("field", OVERRIDES, ids=lambda field: str(field.name))
def test_override_replaces_one_limit_of_the_tier_for_one_company(cast: Cast, field: "Field[Any, Any]") -> None:
    before = limits(cast.bob)
    of_tier = getattr(tier("PRO"), field.name)
    other = not of_tier if isinstance(of_tier, bool) else 7
    CompanyOverride.objects.create(company=cast.alpha, **{field.name: other})
    if field.name in before:
        assert before[field.name] == of_tier
        before[field.name] = other
    else:
        # Counts people, accounts or calls of the whole company: terminals are not told.
        assert field.name in ("user_limit", "company_account_limit", "monthly_api_call_limit")
    assert limits(cast.bob) == before
    assert limits(cast.charlie)["pair_limit"] == 20


def test_override_of_nothing_is_an_override(cast: Cast) -> None:
    CompanyOverride.objects.create(company=cast.alpha, pair_limit=0, has_alerts=False, monthly_data_limit=0)
    ActivePair.objects.create(user=cast.bob, symbol="EURUSD")
    found = of(cast.bob)
    assert (found.pair_limit, found.active_pairs, found.monthly_data_limit) == (0, frozenset(), 0)
    assert "alerts" not in found.features


@pytest.mark.parametrize("above", [1, 0, 1_000])
def test_user_settings_lower_limits_and_never_raise_them(cast: Cast, above: int) -> None:
    for own, granted in (((3, 5.0), (3, 5.0)), ((10 + above, 50.0 + above), (10, 50.0)), ((None, None), (10, 50.0))):
        User.objects.filter(pk=cast.bob.pk).update(connection_limit=own[0], message_rate_limit=own[1])
        found = of(cast.bob)
        assert (found.connection_limit, found.message_rate_limit) == granted
    User.objects.filter(pk=cast.bob.pk).update(connection_limit=3, message_rate_limit=5.0)
    assert (of(cast.alice).connection_limit, of(cast.alice).message_rate_limit) == (10, 50.0)


def test_user_may_have_no_connection_at_all(cast: Cast) -> None:
    User.objects.filter(pk=cast.bob.pk).update(connection_limit=0)
    assert of(cast.bob).connection_limit == 0


def test_user_settings_are_held_against_the_override(cast: Cast) -> None:
    CompanyOverride.objects.create(company=cast.alpha, connection_limit=4, message_rate_limit=8.0)
    User.objects.filter(pk=cast.bob.pk).update(connection_limit=6, message_rate_limit=2.0)
    assert (of(cast.bob).connection_limit, of(cast.bob).message_rate_limit) == (4, 2.0)


@pytest.mark.parametrize(("rate", "granted"), [(100.0, 100.0), (100.1, 100.0)])
def test_override_does_not_go_above_the_ceiling_of_messages(cast: Cast, rate: float, granted: float) -> None:
    CompanyOverride.objects.create(company=cast.alpha, message_rate_limit=rate)
    assert of(cast.bob).message_rate_limit == granted


@pytest.mark.parametrize("code", ["FREE", "PRO"])
def test_user_sends_signals_where_plan_and_user_allow_it(cast: Cast, code: str) -> None:
    Company.objects.filter(pk=cast.alpha.pk).update(tier=tier(code))
    assert ("signals" in of(cast.bob).features) is (code == "PRO")
    User.objects.filter(pk=cast.bob.pk).update(may_send_signals=False)
    assert "signals" not in of(cast.bob).features
    assert "alerts" in of(cast.bob).features
    assert ("signals" in of(cast.alice).features) is (code == "PRO")


def test_oldest_rows_count_under_an_override(cast: Cast) -> None:
    CompanyOverride.objects.create(company=cast.alpha, pair_limit=2, user_account_limit=3, company_account_limit=4)
    for number in range(4):
        ActivePair.objects.create(user=cast.bob, symbol=f"P{9 - number}")
    for user, first in ((cast.bob, 10), (cast.alice, 20)):
        for number in range(4):
            MT5Account.objects.create(
                login=str(first + number), broker_server="B", company=cast.alpha, owner=user, is_active=number > 0
            )
    assert of(cast.bob).active_pairs == {"P9", "P8"}
    # One is disabled and takes no place of the three, nor of the company's four.
    assert of(cast.bob).accounts == {"11", "12", "13"}
    assert of(cast.alice).accounts == {"21"}


def test_many_are_answered_as_each_alone(cast: Cast, operator: User) -> None:
    now = timezone.now()
    dora = make_trader("dora", cast.beta)
    CompanyOverride.objects.create(company=cast.alpha, company_account_limit=3, pair_limit=2)
    for number, user in enumerate((cast.alice, cast.bob, cast.charlie, dora)):
        assert user.company is not None
        for place in range(3):
            ActivePair.objects.create(user=user, symbol=f"P{number}{place}")
            MT5Account.objects.create(login=f"{number}{place}", broker_server="B", company=user.company, owner=user)
        expires_at = now + datetime.timedelta(hours=number) if number else None
        ApiKey.objects.create(user=user, name="VPS", prefix="gwk", digest=str(number), expires_at=expires_at)
        make_ban(user, until=now + datetime.timedelta(hours=number + 1))
    User.objects.filter(pk=dora.pk).update(is_active=False, connection_limit=1)
    Company.objects.filter(pk=cast.beta.pk).update(status=Company.Status.SUSPENDED)
    ids = [str(user.pk) for user in (cast.alice, cast.bob, cast.charlie, dora)]
    together = access.terminal_accesses([*ids, str(operator.pk), str(uuid.uuid4()), "none", "", *ids])
    assert list(together) == ids
    assert together == {user_id: access.terminal_access(user_id) for user_id in ids}
    assert [together[user_id].refusal for user_id in ids] == ["", "", "company_suspended", "user_disabled"]
    assert together[ids[0]].accounts == {"00", "01", "02"} and together[ids[1]].accounts == frozenset()


def test_answer_comes_under_the_id_as_it_was_asked(cast: Cast) -> None:
    forms = [str(cast.bob.pk), cast.bob.pk.hex, str(cast.bob.pk).upper(), f"{{{cast.bob.pk}}}"]
    found = access.terminal_accesses(forms)
    assert list(found) == forms
    assert {answer.user_id for answer in found.values()} == {str(cast.bob.pk)}


def test_nobody_is_asked_for(cast: Cast, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(0):
        assert access.terminal_accesses([]) == access.terminal_accesses(["none", ""]) == {}


def people(count: int, companies: int) -> list[str]:
    """Ids of traders with a pair, an account, a key and a ban each, spread over companies with an override each."""
    plan = SubscriptionTier.objects.get(code="ENTERPRISE")
    made = Company.objects.bulk_create(
        [Company(name=str(number), slug=f"c-{count}-{number}", tier=plan) for number in range(companies)]
    )
    CompanyOverride.objects.bulk_create([CompanyOverride(company=company, pair_limit=9) for company in made])
    users = User.objects.bulk_create(
        [
            User(username=f"u-{count}-{number}", password="!", company=made[number % companies])
            for number in range(count)
        ]
    )
    now = timezone.now()
    for number, user in enumerate(users):
        company = made[number % companies]
        ActivePair.objects.create(user=user, symbol="EURUSD")
        MT5Account.objects.create(login=str(number), broker_server="B", company=company, owner=user)
        ApiKey.objects.create(user=user, name="VPS", prefix="gwk", digest=f"{count}-{number}")
        make_ban(user, until=now + datetime.timedelta(hours=1))
    return [str(user.pk) for user in users]


@pytest.mark.parametrize(("count", "companies"), [(1, 1), (10, 1), (10, 10), (100, 20)])
def test_number_of_queries_does_not_grow_with_the_users(
    count: int, companies: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    ids = people(count, companies)
    # People with company, tier and override; pairs; accounts; keys; bans.
    with django_assert_num_queries(5):
        found = access.terminal_accesses(ids)
    assert len(found) == count
    assert all(answer.active_pairs and answer.accounts and answer.api_keys and answer.bans for answer in found.values())
    assert {answer.pair_limit for answer in found.values()} == {9}


def test_more_users_than_one_query_takes(cast: Cast, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    users = User.objects.bulk_create(
        [User(username=f"u-{number}", password="!", company=cast.alpha) for number in range(401)]
    )
    with django_assert_num_queries(10):
        assert len(access.terminal_accesses([str(user.pk) for user in users])) == 401


def test_plan_without_an_override_costs_no_query_more(
    cast: Cast, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(5):
        assert len(access.terminal_accesses([str(cast.bob.pk), str(cast.charlie.pk)])) == 2


def test_api_keys_say_when_they_end(cast: Cast) -> None:
    soon = timezone.now() + datetime.timedelta(seconds=30)
    ApiKey.objects.create(user=cast.bob, name="a", prefix="gwk", digest="a", expires_at=soon)
    over = ApiKey.objects.create(user=cast.bob, name="b", prefix="gwk", digest="b", expires_at=timezone.now())
    for_ever = ApiKey.objects.create(user=cast.bob, name="c", prefix="gwk", digest="c")
    found = of(cast.bob).api_keys
    assert str(over.pk) not in found
    assert sorted(found.values()) == [soon.timestamp(), float("inf")]
    assert found[str(for_ever.pk)] == float("inf")
    assert time.time() < soon.timestamp()
