"""What a user may do, from the rows of the user's own company."""

import dataclasses
import datetime
import math
import time

import pytest
from django.db import DatabaseError, transaction
from django.utils import timezone
from pytest_django import Settings

from tenants import access
from tenants.access import TerminalAccess
from tenants.models import ActivePair, Company, MT5Account, RevokedToken, SubscriptionTier, User
from tests.tenants import acts
from tests.tenants.cast import Cast, tier

pytestmark = pytest.mark.django_db


def of(user: User) -> TerminalAccess:
    found = access.terminal_access(str(user.pk))
    assert found is not None
    return found


def add_account(user: User, login: str, *, is_active: bool = True) -> MT5Account:
    assert user.company is not None
    return MT5Account.objects.create(
        login=login, broker_server="Broker-Live01", company=user.company, owner=user, is_active=is_active
    )


@pytest.mark.parametrize(
    ("code", "rate", "connections", "pairs", "accounts", "features"),
    [
        ("FREE", 20.0, 2, 5, 5, {"alerts"}),
        ("PRO", 50.0, 10, 20, 10, {"signals", "alerts"}),
        ("ENTERPRISE", 100.0, 20, 100, 20, {"signals", "alerts", "replay"}),
    ],
)
def test_user_has_the_limits_of_the_plan(
    cast: Cast, code: str, rate: float, connections: int, pairs: int, accounts: int, features: set[str]
) -> None:
    Company.objects.filter(pk=cast.alpha.pk).update(tier=tier(code))
    found = of(cast.bob)
    assert (found.tier, found.message_rate_limit, found.connection_limit) == (code, rate, connections)
    assert (found.pair_limit, found.account_limit, found.features) == (pairs, accounts, frozenset(features))
    assert (found.user_id, found.company_id) == (str(cast.bob.pk), str(cast.alpha.pk))
    assert (found.refusal, found.access_until) == ("", math.inf)


def test_plan_made_for_one_company_replaces_the_numbers_for_that_company_only(cast: Cast) -> None:
    row = tier("PRO")
    row.pk, row.code, row.connection_limit, row.message_rate_limit = None, "ALPHA", 3, 7.5
    row.save()
    Company.objects.filter(pk=cast.alpha.pk).update(tier=row)
    assert (of(cast.bob).tier, of(cast.bob).connection_limit, of(cast.bob).message_rate_limit) == ("ALPHA", 3, 7.5)
    assert (of(cast.charlie).tier, of(cast.charlie).connection_limit) == ("PRO", 10)


@pytest.mark.parametrize(("row", "granted"), [(99.9, 99.9), (100.0, 100.0), (100.1, 100.0), (1e9, 100.0)])
def test_no_plan_goes_above_the_ceiling_of_messages(cast: Cast, row: float, granted: float) -> None:
    SubscriptionTier.objects.filter(code="PRO").update(message_rate_limit=row)
    assert of(cast.bob).message_rate_limit == granted


def test_ceiling_of_messages_does_not_bind_in_measurements(cast: Cast, settings: Settings) -> None:
    settings.GATEWAY_BENCHMARK = True
    SubscriptionTier.objects.filter(code="PRO").update(message_rate_limit=1e9)
    assert of(cast.bob).message_rate_limit == 1e9


@pytest.mark.parametrize("user_id", ["", "bob", "\ud800", "0" * 32, "00000000-0000-0000-0000-000000000000", "\x00"])
def test_unknown_user_has_no_access(cast: Cast, user_id: str) -> None:
    assert access.terminal_access(user_id) is None


def test_operator_has_no_access_to_the_stream(operator: User) -> None:
    assert access.terminal_access(str(operator.pk)) is None


def test_disabled_user_is_refused_and_the_colleague_is_not(cast: Cast) -> None:
    acts.disable(str(cast.bob.pk))
    assert (of(cast.bob).refusal, of(cast.alice).refusal) == ("user_disabled", "")
    acts.enable(str(cast.bob.pk))
    assert of(cast.bob).refusal == ""


def test_suspended_company_is_refused_and_the_other_is_not(cast: Cast) -> None:
    acts.suspend(str(cast.alpha.pk))
    assert [of(user).refusal for user in (cast.alice, cast.bob, cast.charlie)] == ["company_suspended"] * 2 + [""]
    acts.resume(str(cast.alpha.pk))
    assert of(cast.bob).refusal == ""


def test_unpaid_company_is_refused(cast: Cast) -> None:
    Company.objects.filter(pk=cast.alpha.pk).update(status=Company.Status.UNPAID)
    assert of(cast.bob).refusal == "payment_required"


def test_paid_time_ends_with_the_grace(cast: Cast) -> None:
    now = timezone.now()
    grace = datetime.timedelta(days=3)
    for paid_until, refusal in ((now - grace + datetime.timedelta(minutes=1), ""), (now - grace, "payment_required")):
        Company.objects.filter(pk=cast.alpha.pk).update(paid_until=paid_until, grace=grace)
        assert of(cast.bob).access_until == (paid_until + grace).timestamp()
        assert of(cast.bob).refusal == refusal


def test_company_that_is_paid_until_the_last_year_is_let_in(cast: Cast) -> None:
    last = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
    Company.objects.filter(pk=cast.alpha.pk).update(paid_until=last)
    assert (of(cast.bob).access_until, of(cast.bob).refusal) == (math.inf, "")


def test_user_has_own_pairs_and_active_accounts(cast: Cast) -> None:
    ActivePair.objects.create(user=cast.bob, symbol="EURUSD")
    add_account(cast.bob, "100")
    add_account(cast.bob, "101", is_active=False)
    assert (of(cast.bob).active_pairs, of(cast.bob).accounts) == (frozenset({"EURUSD"}), frozenset({"100"}))


def test_trader_sees_nothing_of_a_colleague_or_of_another_company(cast: Cast) -> None:
    for user, login, symbol in ((cast.alice, "1", "AUDUSD"), (cast.charlie, "2", "GBPUSD")):
        add_account(user, login)
        ActivePair.objects.create(user=user, symbol=symbol)
    found = of(cast.bob)
    assert (found.active_pairs, found.accounts) == (frozenset(), frozenset())
    seen = str(dataclasses.asdict(found))
    assert str(cast.charlie.pk) not in seen and str(cast.beta.pk) not in seen


def test_database_refuses_an_account_whose_owner_is_of_another_company(cast: Cast) -> None:
    mine = add_account(cast.bob, "3")
    foreign = MT5Account(login="4", broker_server="B", company=cast.beta, owner=cast.bob)
    refused = pytest.raises(DatabaseError, match="the owner of an MT5 account is a user of its company")
    with refused, transaction.atomic():
        foreign.save()
    for change in ({"company": cast.beta}, {"owner": cast.charlie}):
        with refused, transaction.atomic():
            MT5Account.objects.filter(pk=mine.pk).update(**change)
    MT5Account.objects.filter(pk=mine.pk).update(company=cast.alpha, owner=cast.alice)


def test_user_who_was_moved_by_hand_takes_no_account_along(cast: Cast) -> None:
    add_account(cast.bob, "3")
    User.objects.filter(pk=cast.bob.pk).update(company=cast.beta)
    ids = [str(user.pk) for user in (cast.alice, cast.bob, cast.charlie)]
    assert of(cast.bob).accounts == frozenset()
    assert access.terminal_accesses(ids)[ids[1]].accounts == frozenset()


def test_same_account_and_pair_in_two_companies_stay_apart(cast: Cast) -> None:
    for user in (cast.bob, cast.charlie):
        add_account(user, "100")
        ActivePair.objects.create(user=user, symbol="EURUSD")
    MT5Account.objects.filter(company=cast.alpha).update(is_active=False)
    assert (of(cast.bob).accounts, of(cast.charlie).accounts) == (frozenset(), frozenset({"100"}))


def test_oldest_rows_count_after_a_downgrade(cast: Cast) -> None:
    for number in range(7):
        ActivePair.objects.create(user=cast.bob, symbol=f"PAIR{number}")
        add_account(cast.bob, str(number))
    Company.objects.filter(pk=cast.alpha.pk).update(tier=tier("FREE"))
    assert of(cast.bob).active_pairs == {f"PAIR{number}" for number in range(5)}
    assert of(cast.bob).accounts == {str(number) for number in range(5)}


def test_oldest_accounts_of_the_company_count_after_a_downgrade(cast: Cast) -> None:
    for number in range(3):
        add_account(cast.alice, f"1{number}")
    for number in range(3):
        add_account(cast.bob, f"2{number}")
    Company.objects.filter(pk=cast.alpha.pk).update(tier=tier("FREE"))
    assert of(cast.alice).accounts == {"10", "11", "12"}
    assert of(cast.bob).accounts == {"20", "21"}


def test_versions_are_those_of_the_companies_that_exist(cast: Cast) -> None:
    acts.suspend(str(cast.alpha.pk))
    ids = [str(cast.alpha.pk), str(cast.beta.pk), "00000000-0000-0000-0000-000000000000", "beta", ""]
    assert access.access_versions(ids) == {str(cast.alpha.pk): 2, str(cast.beta.pk): 1}
    assert access.access_versions([]) == {}


def test_versions_of_more_companies_than_one_query_takes(db: None) -> None:
    made = Company.objects.bulk_create(
        [Company(name=str(number), slug=f"c-{number}", tier=tier("FREE")) for number in range(501)]
    )
    assert len(access.access_versions([str(company.pk) for company in made])) == 501


def test_revoked_token_that_was_committed_late_is_still_listed(cast: Cast) -> None:
    expires = time.time() + 60
    acts.revoke_token("first", str(cast.bob.pk), expires)
    low = RevokedToken.objects.get().pk
    # The listener has read up to a row with a higher id; this one was not yet committed.
    assert [row[1] for row in access.revoked_tokens(low + 199)] == ["first"]
    assert access.revoked_tokens(low + 200) == []


def test_revoked_tokens_come_in_the_order_of_their_ids(cast: Cast) -> None:
    for number in range(5):
        acts.revoke_token(f"jti-{number}", str(cast.bob.pk), time.time() + 60 - number)
    rows = access.revoked_tokens(0)
    assert [jti for _, jti, _ in rows] == [f"jti-{number}" for number in range(5)]
    assert [row_id for row_id, _, _ in rows] == sorted(row_id for row_id, _, _ in rows)


def test_pruning_keeps_revoked_tokens_for_an_hour_after_their_end(cast: Cast) -> None:
    now = time.time()
    for name, age in (("living", -60), ("recent", 3_590), ("old", 3_610)):
        acts.revoke_token(name, str(cast.bob.pk), now - age)
    assert access.prune_revoked_tokens() == 1
    assert set(RevokedToken.objects.values_list("jti", flat=True)) == {"living", "recent"}
