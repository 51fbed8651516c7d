"""The life of an API key in the admin."""

import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from tenants import access, api_keys
from tenants.access import Actor
from tenants.api_keys import KEY_FORM, user_of_api_key
from tenants.models import ApiKey, AuditEntry, MT5Account, User
from tests.tenants import acts
from tests.tenants.cast import Cast
from tests.tenants.console.forms import errors_of, fields_of, fill_in, page, run_action

pytestmark = pytest.mark.django_db


def issue(client: Client, user: User, **fields: str) -> str:
    """The key as the page shows it."""
    answer = fill_in(client, page(ApiKey, "add"), user=user.pk, **{"name": "VPS", **fields})
    assert answer.status_code == 200
    shown = KEY_FORM.search(answer.content.decode())
    assert shown is not None
    return shown[0]


@pytest.fixture(params=["company admin", "operator"])
def client(request: pytest.FixtureRequest, alice_client: Client) -> Client:
    """Keys are issued by both alike."""
    found: Client = alice_client if request.param == "company admin" else request.getfixturevalue("operator_client")
    return found


def test_new_key_is_shown_once_with_what_the_terminal_needs(cast: Cast, client: Client) -> None:
    answer = fill_in(client, page(ApiKey, "add"), user=cast.bob.pk, name="VPS")
    text = answer.content.decode()
    shown = KEY_FORM.search(text)
    assert shown is not None
    key = shown[0]
    assert user_of_api_key(key) == cast.bob
    assert "ws://testserver/ws/mt5" in text and "no-store" in answer["Cache-Control"]
    row = ApiKey.objects.get()
    for path in (
        page(ApiKey, "changelist"),
        page(ApiKey, "change", row.pk),
        "/admin/",
        page(ApiKey, "history", row.pk),
    ):
        text = client.get(path).content.decode()
        assert key not in text and row.digest not in text
    assert LogEntry.objects.get().object_repr == f"{key[:12]}… (VPS)"
    assert key not in str(client.session.items()) and key not in str(AuditEntry.objects.values())


def test_key_gets_its_scope_and_its_end(cast: Cast, client: Client) -> None:
    issue(client, cast.bob, scope="read", expires_at_0="2099-01-01", expires_at_1="12:00:00")
    key = ApiKey.objects.get()
    assert key.scope == "read" and key.expires_at is not None and key.expires_at.year == 2099


def test_key_that_would_be_over_already_is_refused(cast: Cast, client: Client) -> None:
    answer = fill_in(
        client, page(ApiKey, "add"), user=cast.bob.pk, name="V", expires_at_0="2020-01-01", expires_at_1="00:00"
    )
    assert "This is over already" in errors_of(answer)
    assert not ApiKey.objects.exists()


def test_rotated_key_works_for_a_day_beside_the_new_one(cast: Cast, client: Client) -> None:
    old = issue(client, cast.bob)
    row = ApiKey.objects.get()
    path = page(ApiKey, "rotate", row.pk)
    assert "24 hours" in client.get(path).content.decode()
    assert ApiKey.objects.count() == 1
    shown = KEY_FORM.search(client.post(path).content.decode())
    assert shown is not None and shown[0] != old
    assert user_of_api_key(old) == user_of_api_key(shown[0]) == cast.bob
    row.refresh_from_db()
    assert row.expires_at is not None
    assert timedelta(hours=23, minutes=59) < row.expires_at - timezone.now() <= timedelta(hours=24)
    # Once only: the key that took the place is the one to rotate now.
    assert client.post(path).status_code == 302
    assert ApiKey.objects.count() == 2


def test_slower_of_two_who_rotate_one_key_is_told_and_makes_none(
    cast: Cast, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts.new_key(cast.bob, "VPS")
    row, path = ApiKey.objects.get(), page(ApiKey, "rotate", ApiKey.objects.get().pk)
    rotate = api_keys.rotate_api_key

    def after_somebody_else(actor: Actor, key: ApiKey) -> tuple[str, ApiKey]:
        rotate(acts.SYSTEM, key)
        return rotate(actor, key)

    monkeypatch.setattr(access, "rotate_api_key", after_somebody_else)
    assert client.post(path)["Location"] == page(ApiKey, "change", row.pk)
    assert ApiKey.objects.count() == 2


def test_revoked_key_is_refused_and_stays_in_the_list(cast: Cast, client: Client) -> None:
    key = acts.new_key(cast.bob, "VPS")
    row = ApiKey.objects.get()
    asked = client.post(page(ApiKey, "changelist"), {"action": "revoke", "_selected_action": row.pk})
    assert asked.status_code == 200 and user_of_api_key(key) == cast.bob
    run_action(client, ApiKey, "revoke", row)
    assert user_of_api_key(key) is None
    assert "revoked" in client.get(page(ApiKey, "changelist")).content.decode()
    assert client.get(page(ApiKey, "rotate", row.pk)).status_code == 302


def test_key_is_neither_changed_nor_deleted(cast: Cast, client: Client) -> None:
    key = acts.new_key(cast.bob, "VPS")
    row = ApiKey.objects.get()
    assert client.post(page(ApiKey, "change", row.pk), {"name": "other"}).status_code == 403
    assert client.post(page(ApiKey, "delete", row.pk), {"post": "yes"}).status_code == 403
    assert user_of_api_key(key) == cast.bob


def test_page_of_a_user_lists_their_keys_without_the_digest(cast: Cast, client: Client) -> None:
    key = acts.new_key(cast.bob, "VPS Jakarta")
    text = client.get(page(User, "change", cast.bob.pk)).content.decode()
    assert "VPS Jakarta" in text and key not in text and ApiKey.objects.get().digest not in text
    assert re.search(rf"/admin/tenants/apikey/add/\?user={cast.bob.pk}", text)


# --- A key for one account --------------------------------------------------------------------------------------------


def account_of(owner: User, login: str = "1001") -> MT5Account:
    assert owner.company is not None
    return MT5Account.objects.create(login=login, broker_server="B", company=owner.company, owner=owner)


def test_account_is_offered_first_and_says_whose_key_it_is(cast: Cast, client: Client) -> None:
    account, path = account_of(cast.bob), page(ApiKey, "add")
    text = client.get(path).content.decode()
    rows = [text.index(f"form-row field-{name}") for name in ("account", "user", "name")]
    assert rows == sorted(rows)
    answer = fill_in(client, path, account=account.pk, user=None, name="VPS")
    assert (ApiKey.objects.get().account, ApiKey.objects.get().user) == (account, cast.bob)
    shown = answer.content.decode()
    assert "1001@B alone" in shown and "ws://testserver/ws/mt5</code>" in shown and "?account=" not in shown


def test_key_for_no_account_shows_the_address_of_each(cast: Cast, client: Client) -> None:
    account_of(cast.bob), account_of(cast.bob, "1002")
    text = fill_in(client, page(ApiKey, "add"), account="", user=cast.bob.pk, name="VPS").content.decode()
    assert "ws://testserver/ws/mt5?account=1001" in text and "ws://testserver/ws/mt5?account=1002" in text


@pytest.mark.parametrize(("number", "chosen"), [(0, False), (1, True), (2, False)])
def test_only_account_there_is_is_chosen_beforehand(cast: Cast, client: Client, number: int, chosen: bool) -> None:
    for place in range(number):
        account_of(cast.bob, str(place))
    MT5Account.objects.create(login="9", broker_server="B", company=cast.alpha, owner=cast.alice)
    fields = fields_of(client, f"{page(ApiKey, 'add')}?user={cast.bob.pk}")
    assert bool(fields.get("account")) == chosen


def test_page_of_an_account_leads_to_a_key_for_it(cast: Cast, client: Client) -> None:
    account = account_of(cast.bob)
    account_of(cast.alice, "2")
    link = f"{page(ApiKey, 'add')}?account={account.pk}"
    assert link in client.get(page(MT5Account, "change", account.pk)).content.decode()
    assert fields_of(client, link)["account"] == str(account.pk)


def test_account_and_user_that_do_not_belong_together_are_refused(cast: Cast, client: Client) -> None:
    account, path = account_of(cast.bob), page(ApiKey, "add")
    assert "belongs to bob" in errors_of(fill_in(client, path, account=account.pk, user=cast.alice.pk, name="V"))
    assert "Choose the MT5 account" in errors_of(fill_in(client, path, account="", user="", name="V"))
    assert not ApiKey.objects.exists()


def test_disabled_account_is_not_offered(cast: Cast, client: Client) -> None:
    account = account_of(cast.bob)
    MT5Account.objects.update(is_active=False)
    assert "valid choice" in errors_of(fill_in(client, page(ApiKey, "add"), account=account.pk, name="V"))


def test_company_admin_finds_no_account_of_another_company(cast: Cast, alice_client: Client) -> None:
    theirs = account_of(cast.charlie, "777000777")
    text = alice_client.get(f"{page(ApiKey, 'add')}?account={theirs.pk}").content.decode()
    assert "777000777" not in text
    answer = fill_in(alice_client, page(ApiKey, "add"), account=theirs.pk, name="V")
    assert "valid choice" in errors_of(answer)


def test_list_and_page_of_a_key_name_its_account(cast: Cast, client: Client) -> None:
    access.create_api_key(acts.SYSTEM, cast.bob, "VPS", account=account_of(cast.bob, "5012345"))
    for path in (page(ApiKey, "changelist"), page(ApiKey, "change", ApiKey.objects.get().pk)):
        assert "5012345@B" in client.get(path).content.decode()


# --- Has the terminal come online? ------------------------------------------------------------------------------------


def seen(client: Client, key: ApiKey) -> tuple[str, str]:
    answer = client.get(page(ApiKey, "seen", key.pk))
    assert "no-store" in answer["Cache-Control"]
    return answer.json()["state"], answer.json()["text"]


@pytest.mark.parametrize("is_bound", [True, False])
def test_page_of_a_new_key_says_when_its_terminal_comes_online(cast: Cast, client: Client, is_bound: bool) -> None:
    account, other = account_of(cast.bob), account_of(cast.bob, "1002")
    # Online since long ago, by another key.
    MT5Account.objects.update(is_online=True, last_seen_at=timezone.now() - timedelta(hours=1))
    text = fill_in(
        client, page(ApiKey, "add"), account=account.pk if is_bound else "", user=cast.bob.pk, name="V"
    ).content.decode()
    key = ApiKey.objects.get()
    assert page(ApiKey, "seen", key.pk) in text and "nobody has used this key yet" in text
    assert seen(client, key)[0] == "waiting"
    ApiKey.objects.update(last_used_at=timezone.now())
    state, words = seen(client, key)
    # Whether it is this terminal nobody can tell; that it is missing is not said.
    assert state == "token" and "was online before" in words and ("1001" in words or not is_bound)
    MT5Account.objects.update(is_online=False)
    assert "is not connected yet" in seen(client, key)[1]
    MT5Account.objects.update(is_online=True)
    MT5Account.objects.filter(pk=other.pk).update(last_seen_at=timezone.now())
    assert seen(client, key)[0] == ("token" if is_bound else "online")
    MT5Account.objects.filter(pk=account.pk).update(last_seen_at=timezone.now())
    state, words = seen(client, key)
    assert state == "online" and "is online" in words and ("1001" in words or not is_bound)


def test_another_terminal_of_the_user_is_not_taken_for_the_new_one(cast: Cast, client: Client) -> None:
    account = account_of(cast.bob)
    acts.new_key(cast.bob, "V")
    MT5Account.objects.filter(pk=account.pk).update(is_online=True, last_seen_at=timezone.now())
    assert seen(client, ApiKey.objects.get())[0] == "waiting"


def test_page_of_a_new_key_has_all_that_a_terminal_of_ones_own_needs(cast: Cast, client: Client) -> None:
    """What it prints is enough to come online: the address of the exchange, what is sent there, and the gateway's."""
    text = fill_in(client, page(ApiKey, "add"), user=cast.bob.pk, name="VPS").content.decode()
    key = KEY_FORM.search(text)
    exchange = re.search(r"<code>http://testserver(/\S+)</code>", text)
    assert key is not None and exchange is not None
    assert "<code>ws://testserver/ws/mt5</code>" in text.replace(' id="console-address"', "")
    assert "application/json" in text and "api_key" in text
    answer = Client().post(exchange[1], {"api_key": key[0]}, content_type="application/json")
    assert answer.status_code == 201 and answer.json()["token"]
