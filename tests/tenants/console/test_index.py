"""The first page: what a new company does next."""

import re

import pytest
from django.test import Client
from django.utils import timezone

from tenants.models import ActivePair, ApiKey, Company, MT5Account, User
from tests.tenants import acts
from tests.tenants.cast import Cast, make_trader, tier
from tests.tenants.console.conftest import client_of
from tests.tenants.console.forms import fields_of, fill_in, page

pytestmark = pytest.mark.django_db


@pytest.fixture
def new_admin(db: None) -> User:
    company = Company.objects.create(name="Gamma", slug="gamma", tier=tier("PRO"))
    return User.objects.create_user("gamma.ana", company=company, role=User.Role.COMPANY_ADMIN)


def done(client: Client) -> list[bool]:
    """Which of the five steps are done."""
    text = client.get("/admin/").content.decode()
    return [bool(classes) for classes in re.findall(r'<li( class="done")?>\s*<span class="mark"', text)]


def test_steps_of_a_new_company_are_done_one_after_the_other(new_admin: User, cast: Cast) -> None:
    company = new_admin.company
    assert company is not None
    client = client_of(new_admin)
    # What Alpha has is nothing to Gamma.
    ActivePair.objects.create(user=cast.bob, symbol="EURUSD")
    acts.new_key(cast.bob, "VPS")
    assert done(client) == [False] * 5
    trader = make_trader("gamma.tom", company)
    assert done(client) == [True, False, False, False, False]
    account = MT5Account.objects.create(login="1", broker_server="B", company=company, owner=trader)
    assert done(client) == [True, True, False, False, False]
    ActivePair.objects.create(user=trader, symbol="EURUSD")
    assert done(client) == [True, True, True, False, False]
    acts.new_key(trader, "VPS")
    assert done(client) == [True, True, True, True, False]
    MT5Account.objects.filter(pk=account.pk).update(is_online=True, last_seen_at=timezone.now())
    assert done(client) == [True] * 5
    text = client.get("/admin/").content.decode()
    assert "Everything is set up" in text
    assert "1 active pair<" in text and "1 key in use<" in text


@pytest.fixture
def lone_admin(db: None) -> User:
    """Of a company whose plan has one user."""
    company = Company.objects.create(name="Solo", slug="solo", tier=tier("FREE"))
    return User.objects.create_user("solo.ana", company=company, role=User.Role.COMPANY_ADMIN)


def test_plan_for_one_user_begins_with_the_admins_own_account(lone_admin: User, cast: Cast) -> None:
    client = client_of(lone_admin)
    assert done(client) == [True, False, False, False, False]
    text = client.get("/admin/").content.decode()
    section = text[text.index("console-steps") : text.index("</ol>")]
    assert "The plan has one user: you." in section and "Invite a user" not in section
    links = re.findall(r'href="([^"]+)"', section)
    assert links[0] == links[2] == f"/admin/tenants/user/{lone_admin.pk}/change/"
    # Every step can be done: what its page offers is a form with a button.
    for link in links[1:4]:
        assert 'name="_save"' in client.get(link).content.decode(), link
    assert fill_in(client, links[1], login="1001", broker_server="B").status_code == 302
    assert MT5Account.objects.get(login="1001").owner == lone_admin
    assert fill_in(client, links[2], pairs="EURUSD").status_code == 302
    assert fill_in(client, links[3], name="VPS").status_code == 200
    key = ApiKey.objects.get()
    assert (key.user, key.account and key.account.login) == (lone_admin, "1001")
    assert done(client) == [True, True, True, True, False]


def test_larger_plan_of_one_admin_still_begins_with_an_invitation(new_admin: User) -> None:
    assert "Invite a user" in client_of(new_admin).get("/admin/").content.decode()


def test_each_step_leads_to_a_page(new_admin: User) -> None:
    client = client_of(new_admin)
    text = client.get("/admin/").content.decode()
    section = text[text.index("console-steps") : text.index("</ol>")]
    links = re.findall(r'href="([^"]+)"', section)
    assert len(links) == 5
    for link in links:
        assert client.get(link).status_code == 200, link


def test_admin_of_a_suspended_company_reads_why(new_admin: User) -> None:
    assert new_admin.company_id is not None
    acts.suspend(str(new_admin.company_id))
    text = client_of(new_admin).get("/admin/").content.decode()
    assert "The company is suspended. for a test" in text


def test_operator_has_no_steps(operator_client: Client) -> None:
    assert "console-steps" not in operator_client.get("/admin/").content.decode()


def test_empty_lists_say_what_to_do_next(new_admin: User) -> None:
    client = client_of(new_admin)
    for path, text in (
        ("mt5account", "No MT5 accounts yet: add one or import a CSV."),
        ("activepair", "No active pairs yet"),
        ("apikey", "No API keys yet"),
        ("ban", "No bans"),
    ):
        assert text in client.get(f"/admin/tenants/{path}/").content.decode()
    assert "Nothing matches" in client.get("/admin/tenants/user/?q=nobody").content.decode()


def test_admin_reads_the_console_in_indonesian(new_admin: User) -> None:
    client = client_of(new_admin)
    indonesian = {"accept-language": "id"}
    assert "Langkah berikutnya" in client.get("/admin/", headers=indonesian).content.decode()
    assert "1 dari 5 pengguna" in client.get("/admin/tenants/user/", headers=indonesian).content.decode()


def test_whoever_is_alone_is_chosen_for_pairs_and_accounts(lone_admin: User) -> None:
    client = client_of(lone_admin)
    for model, field in ((ActivePair, "user"), (MT5Account, "owner")):
        assert fields_of(client, page(model, "add"))[field] == str(lone_admin.pk)
