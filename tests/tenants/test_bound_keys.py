"""API keys that are bound to one MT5 account: what they are good for, and how long."""

import json
import time
from typing import Any

import pytest
from django.test import Client

from tenants import access
from tenants.access import Actor, NotVisible
from tenants.api_keys import user_of_api_key
from tenants.models import ApiKey, MT5Account, User
from tenants.tokens import default_keyring
from tests.tenants import acts
from tests.tenants.cast import Cast

pytestmark = pytest.mark.django_db


def make_account(owner: User, login: str = "1001", **fields: Any) -> MT5Account:
    assert owner.company is not None
    values = {"login": login, "broker_server": "B", "company": owner.company, "owner": owner, **fields}
    return MT5Account.objects.create(**values)


def bound_key(account: MT5Account) -> str:
    return access.create_api_key(acts.SYSTEM, account.owner, "VPS", account=account)[0]


def exchange(key: str) -> Any:
    return Client().post("/api/v1/tokens", json.dumps({"api_key": key}), content_type="application/json")


def test_token_of_a_bound_key_carries_the_account_and_of_another_key_none(cast: Cast) -> None:
    account = make_account(cast.bob)
    for key, login in ((bound_key(account), "1001"), (acts.new_key(cast.bob, "any"), "")):
        body = exchange(key).json()
        claims = default_keyring().verify(body["token"], now=time.time() + 1)
        assert (claims.account, body["account"], claims.user_id) == (login, login, str(cast.bob.pk))


def test_key_is_bound_to_no_account_of_somebody_else(cast: Cast) -> None:
    for owner in (cast.alice, cast.charlie):
        with pytest.raises(NotVisible):
            access.create_api_key(acts.SYSTEM, cast.bob, "VPS", account=make_account(owner))
    assert not ApiKey.objects.exists()


def test_rotated_key_is_bound_as_the_one_before(cast: Cast) -> None:
    account = make_account(cast.bob)
    bound_key(account)
    new, row = access.rotate_api_key(acts.SYSTEM, ApiKey.objects.get())
    assert row.account == account and exchange(new).json()["account"] == "1001"


def test_key_of_a_disabled_account_gets_no_token_and_says_why(cast: Cast) -> None:
    account = make_account(cast.bob)
    key = bound_key(account)
    account.is_active = False
    access.save_row(acts.SYSTEM, account)
    answer = exchange(key)
    assert (answer.status_code, answer.json()["code"]) == (403, "account_not_allowed")
    assert "1001" in answer.json()["detail"]
    account.is_active = True
    access.save_row(acts.SYSTEM, account)
    assert exchange(key).status_code == 201


@pytest.mark.parametrize("who", ["operator", "company admin"])
def test_bound_keys_go_with_their_account_and_others_stay(cast: Cast, who: str) -> None:
    actor = acts.SYSTEM if who == "operator" else Actor.of(cast.alice)
    first, second = make_account(cast.bob), make_account(cast.bob, "1002")
    gone, kept, unbound = bound_key(first), bound_key(second), acts.new_key(cast.bob, "any")
    access.delete_rows(actor, [first])
    # It would be good for all accounts of the user otherwise.
    assert user_of_api_key(gone) is None
    assert user_of_api_key(kept) == user_of_api_key(unbound) == cast.bob
    assert ApiKey.objects.filter(revoked_at__isnull=False).get().account is None


def test_keys_of_an_account_that_gets_another_owner_end(cast: Cast) -> None:
    account = make_account(cast.bob)
    key = bound_key(account)
    account.broker_server = "B2"
    access.save_row(acts.SYSTEM, account)
    assert user_of_api_key(key) == cast.bob
    account.owner = cast.alice
    access.save_row(acts.SYSTEM, account)
    assert user_of_api_key(key) is None


@pytest.mark.parametrize("claim", [1001, None, ["1001"], {"login": "1001"}, True])
def test_account_claim_that_is_no_text_is_no_token_of_ours(cast: Cast, claim: Any) -> None:
    ring = default_keyring()
    token = ring.issue(user_id="u", company_id="c", tier="PRO", ttl=60, now=time.time() - 2, account=claim or "x")
    if claim:
        with pytest.raises(Exception, match="not valid"):
            ring.verify(token, now=time.time())
    else:
        assert ring.verify(token, now=time.time()).account == "x"
