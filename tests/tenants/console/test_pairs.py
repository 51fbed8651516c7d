"""Pairs typed in the console: split, checked, one row each."""

from typing import Any

import pytest
from django.test import Client

from tenants.models import ActivePair, AuditEntry, SubscriptionTier, User
from tests.tenants.cast import Cast, version_of
from tests.tenants.console.forms import errors_of, fill_in, page

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["company admin", "operator"])
def client(request: pytest.FixtureRequest, alice_client: Client) -> Client:
    found: Client = alice_client if request.param == "company admin" else request.getfixturevalue("operator_client")
    return found


def pairs_of(user: User) -> list[str]:
    return list(user.active_pairs.values_list("symbol", flat=True))


def add(client: Client, user: User, symbol: str) -> Any:
    return fill_in(client, page(ActivePair, "add"), user=user.pk, symbol=symbol)


@pytest.mark.parametrize("typed", ["GBPUSD, USDJPY", "GBPUSD USDJPY", "GBPUSD\r\nUSDJPY", "GBPUSD, EURUSD, USDJPY"])
def test_several_symbols_become_a_row_each(cast: Cast, client: Client, typed: str) -> None:
    ActivePair.objects.create(user=cast.bob, symbol="EURUSD")
    assert add(client, cast.bob, typed).status_code == 302
    assert pairs_of(cast.bob) == ["EURUSD", "GBPUSD", "USDJPY"]
    assert AuditEntry.objects.filter(action="add", object_type="activepair").count() == 2
    assert version_of(cast.alpha) > 1


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ("gbpusd", "begins in lower case"),
        ("EURUSD.M", "differ in case only"),
        ("USDJPY, UsdJpy", "differ in case only"),
        ("EUR€", "is no symbol"),
        ("EURUSD.m", "active for the user already"),
        (",;", "Enter a symbol"),
        ("", "This field is required"),
        (" ".join(f"P{n}" for n in range(20)), "21 pairs; the plan has 20"),
    ],
)
def test_what_is_no_new_symbol_is_refused_where_it_is_typed(
    cast: Cast, client: Client, typed: str, complaint: str
) -> None:
    ActivePair.objects.create(user=cast.bob, symbol="EURUSD.m")
    assert complaint in errors_of(add(client, cast.bob, typed))
    assert pairs_of(cast.bob) == ["EURUSD.m"]


def test_pairs_up_to_the_limit_are_taken(cast: Cast, client: Client) -> None:
    SubscriptionTier.objects.update(pair_limit=3)
    assert add(client, cast.bob, "EURUSD, GBPUSD, USDJPY").status_code == 302
    assert len(pairs_of(cast.bob)) == 3
    assert add(client, cast.alice, "EURUSD, GBPUSD, USDJPY, XAUUSD").status_code == 200


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [("GBPUSD, USDJPY", "is no symbol"), ("gbpusd", "begins in lower case"), ("XAUUSD", "differ in case only")],
)
def test_row_of_a_pair_is_changed_to_one_symbol_only(cast: Cast, client: Client, typed: str, complaint: str) -> None:
    row = ActivePair.objects.create(user=cast.bob, symbol="EURUSD")
    ActivePair.objects.create(user=cast.bob, symbol="XauUsd")
    path = page(ActivePair, "change", row.pk)
    assert complaint in errors_of(fill_in(client, path, symbol=typed))
    assert fill_in(client, path, symbol="EURUSD.m").status_code == 302
    assert pairs_of(cast.bob) == ["EURUSD.m", "XauUsd"]


def test_page_of_a_user_takes_spaces_and_another_spelling_in_place_of_one(cast: Cast, client: Client) -> None:
    path = page(User, "change", cast.bob.pk)
    assert fill_in(client, path, pairs='EURUSD GBPUSD "Volatility 75 Index"').status_code == 302
    assert pairs_of(cast.bob) == ["EURUSD", "GBPUSD", "Volatility 75 Index"]
    # Sent back as it stands, nothing changes.
    assert fill_in(client, path).status_code == 302
    assert pairs_of(cast.bob) == ["EURUSD", "GBPUSD", "Volatility 75 Index"]
    assert "differ in case only" in errors_of(fill_in(client, path, pairs="EURUSD, EurUsd"))
    assert fill_in(client, path, pairs="EurUsd").status_code == 302
    assert pairs_of(cast.bob) == ["EurUsd"]
