"""The limits of the plan, where they bind: at the limit, one above, and when somebody else was faster."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.test import Client

from tenants import access
from tenants.models import ActivePair, MT5Account, SubscriptionTier, User
from tests.tenants.cast import Cast, make_trader
from tests.tenants.console.forms import errors_of, fill_in, page
from tests.tenants.rows import everything

pytestmark = pytest.mark.django_db


@pytest.fixture
def full_of_accounts(cast: Cast) -> Cast:
    """One account less than the plan has for the company, whose users may have any number."""
    SubscriptionTier.objects.update(company_account_limit=3, user_account_limit=100)
    for number in range(2):
        MT5Account.objects.create(login=str(number), broker_server="B", company=cast.alpha, owner=cast.bob)
    return cast


def add_account(client: Client, owner: User, login: str) -> Any:
    return fill_in(client, page(MT5Account, "add"), owner=owner.pk, login=login, broker_server="B")


def test_last_place_for_a_user_is_taken_and_one_above_is_refused(cast: Cast, alice_client: Client) -> None:
    SubscriptionTier.objects.update(user_limit=3)
    assert "2 of 3 users" in alice_client.get(page(User, "changelist")).content.decode()
    fields = {"username": "dora", "email": "dora@alpha.example"}
    assert fill_in(alice_client, page(User, "add"), **fields).status_code == 302
    fields = {"username": "emil", "email": "emil@alpha.example"}
    refused = alice_client.post(page(User, "add"), fields)
    assert "3 of 3 users of the plan are taken: remove one or choose a larger plan" in errors_of(refused)
    assert User.objects.filter(company=cast.alpha).count() == 3


def test_list_without_a_place_says_what_to_do_instead_of_offering_to_add(cast: Cast, alice_client: Client) -> None:
    SubscriptionTier.objects.update(user_limit=2)
    text = alice_client.get(page(User, "changelist")).content.decode()
    assert "2 of 2 users of the plan are taken: remove one or choose a larger plan" in text
    assert "Add user" not in text
    form = alice_client.get(page(User, "add")).content.decode()
    assert "2 of 2 users of the plan are taken" in form and 'name="_save"' not in form


def test_last_place_for_an_account_is_taken_and_one_above_is_refused(
    full_of_accounts: Cast, alice_client: Client
) -> None:
    cast = full_of_accounts
    assert "2 of 3 MT5 accounts" in alice_client.get(page(MT5Account, "changelist")).content.decode()
    assert add_account(alice_client, cast.bob, "4711").status_code == 302
    assert "3 of 3 MT5 accounts of the plan are taken" in errors_of(add_account(alice_client, cast.bob, "4712"))
    assert MT5Account.objects.count() == 3


def test_last_account_of_a_user_is_taken_and_one_above_is_refused(cast: Cast, alice_client: Client) -> None:
    SubscriptionTier.objects.update(user_account_limit=1)
    assert add_account(alice_client, cast.bob, "1").status_code == 302
    assert "this user has 1 of 1 MT5 accounts" in errors_of(add_account(alice_client, cast.bob, "2"))
    assert add_account(alice_client, cast.alice, "3").status_code == 302


def test_last_pair_of_a_user_is_taken_and_one_above_is_refused(cast: Cast, alice_client: Client) -> None:
    SubscriptionTier.objects.update(pair_limit=1)
    add = page(ActivePair, "add")
    assert fill_in(alice_client, add, user=cast.bob.pk, symbol="EURUSD").status_code == 302
    assert "this user has 1 of 1 active pairs" in errors_of(
        fill_in(alice_client, add, user=cast.bob.pk, symbol="GBPUSD")
    )


def test_two_accounts_for_one_place_in_one_form_are_both_refused_and_kept_in_it(
    full_of_accounts: Cast, alice_client: Client
) -> None:
    new = {"accounts-TOTAL_FORMS": "4"}
    for number in (2, 3):
        new |= {
            f"accounts-{number}-login": f"900{number}", f"accounts-{number}-broker_server": "B",
            f"accounts-{number}-id": "",
        }  # fmt: skip
    answer = fill_in(alice_client, page(User, "change", full_of_accounts.bob.pk), **new)
    assert "3 of 3 MT5 accounts of the plan are taken" in errors_of(answer)
    assert "9003" in answer.content.decode()
    assert MT5Account.objects.count() == 2


def just_before_saving(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Lets ``act`` happen when the form has been found right, as if nothing had been locked."""
    save_row, waiting = access.save_row, [act]

    def save_later(*args: Any, **kwargs: Any) -> None:
        if waiting:
            waiting.pop()()
        save_row(*args, **kwargs)

    monkeypatch.setattr(access, "save_row", save_later)


def test_place_that_was_lost_while_saving_is_an_error_of_the_form(
    full_of_accounts: Cast, alice_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast = full_of_accounts
    before = everything()
    just_before_saving(monkeypatch, lambda: SubscriptionTier.objects.update(company_account_limit=2))
    answer = add_account(alice_client, cast.bob, "4711")
    # The other's change is undone with ours here, as both are in one transaction; the refusal is told all the same.
    assert "MT5 accounts of the plan are taken" in errors_of(answer)
    assert "4711" in answer.content.decode()
    assert everything() == before


def test_user_whose_place_was_lost_while_saving_gets_no_invitation(
    cast: Cast, alice_client: Client, monkeypatch: pytest.MonkeyPatch, mailoutbox: list[Any]
) -> None:
    just_before_saving(monkeypatch, lambda: SubscriptionTier.objects.update(user_limit=1))
    answer = fill_in(alice_client, page(User, "add"), username="dora", email="dora@alpha.example")
    assert "users of the plan are taken" in errors_of(answer)
    assert mailoutbox == [] and User.objects.filter(company=cast.alpha).count() == 2


def test_same_row_saved_by_somebody_else_meanwhile_is_an_error_of_the_form(
    cast: Cast, operator_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise IntegrityError("UNIQUE constraint failed")

    monkeypatch.setattr(access, "save_row", fail)
    answer = fill_in(operator_client, page(SubscriptionTier, "add"), **_tier_fields())
    assert "Somebody else saved the same" in errors_of(answer)


def _tier_fields() -> dict[str, str]:
    limits = (
        "user_limit", "company_account_limit", "user_account_limit", "pair_limit", "message_rate_limit",
        "connection_limit", "company_connection_limit", "monthly_data_limit", "monthly_api_call_limit",
    )  # fmt: skip
    return {"code": "GOLD", **dict.fromkeys(limits, "5")}


def test_company_over_the_limits_of_a_smaller_plan_still_edits_what_it_has(cast: Cast, alice_client: Client) -> None:
    make_trader("alpha.dora", cast.alpha)
    SubscriptionTier.objects.update(user_limit=1)
    assert fill_in(alice_client, page(User, "change", cast.bob.pk), first_name="Bobby").status_code == 302
    assert "3 of 1 users" in alice_client.get(page(User, "changelist")).content.decode()


def test_user_whose_pairs_were_refused_while_saving_gets_no_invitation(
    cast: Cast, alice_client: Client, monkeypatch: pytest.MonkeyPatch, mailoutbox: list[Any]
) -> None:
    def refuse(*args: Any) -> None:
        raise ValidationError("the plan has become smaller")

    monkeypatch.setattr(access, "set_pairs", refuse)
    answer = fill_in(alice_client, page(User, "add"), username="dora", email="dora@alpha.example", pairs="EURUSD")
    assert "the plan has become smaller" in errors_of(answer)
    assert mailoutbox == [] and not User.objects.filter(username="alpha.dora").exists()
