"""The operator's admin: all of it for the operator, none of it for anybody else."""

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.db.models import Model
from django.test import Client
from django.utils import timezone

from tenants import access
from tenants.api_keys import KEY_FORM, create_api_key, user_of_api_key
from tenants.models import ActivePair, ApiKey, Company, MT5Account, RevokedToken, SubscriptionTier, User
from tests.tenants.cast import Cast, tier
from tests.tenants.forms import errors_of, fill_in, page, run_action

pytestmark = pytest.mark.django_db
MODELS: list[type[Model]] = [ActivePair, ApiKey, Company, MT5Account, RevokedToken, SubscriptionTier, User]
NAMES = [model.__name__ for model in MODELS]
PASSWORD = "a long enough password"


@pytest.fixture
def rows(cast: Cast) -> Cast:
    """One row at least of each model."""
    ActivePair.objects.create(user=cast.bob, symbol="EURUSD")
    MT5Account.objects.create(login="100", broker_server="B", company=cast.alpha, owner=cast.bob)
    create_api_key(cast.bob, "VPS")
    access.revoke_token("a" * 32, str(cast.bob.pk), timezone.now().timestamp() + 60)
    return cast


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_operator_opens_each_list_and_each_row(rows: Cast, operator_client: Client, model: type[Model]) -> None:
    listed = operator_client.get(page(model, "changelist"))
    assert listed.status_code == 200
    assert listed.context["cl"].result_count == model._default_manager.count() > 0
    for row in model._default_manager.all():
        assert operator_client.get(page(model, "change", row.pk)).status_code == 200
    assert operator_client.get(page(model, "add")).status_code == 200


@pytest.mark.parametrize("model", [ActivePair, ApiKey, Company, MT5Account, RevokedToken, User])
def test_operator_searches_each_list(rows: Cast, operator_client: Client, model: type[Model]) -> None:
    assert operator_client.get(page(model, "changelist"), {"q": "alice"}).status_code == 200


def test_operator_logs_in_with_a_password(operator: User) -> None:
    client = Client()
    sent = {"username": "operator", "password": PASSWORD}
    assert client.post("/admin/login/?next=/admin/", sent)["Location"] == "/admin/"
    assert client.get("/admin/").status_code == 200


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_company_admin_and_trader_do_not_log_in(cast: Cast, name: str) -> None:
    user = User.objects.get(username=name)
    user.set_password(PASSWORD)
    user.save()
    client = Client()
    answer = client.post("/admin/login/?next=/admin/", {"username": name, "password": PASSWORD})
    assert answer.status_code == 200
    assert "_auth_user_id" not in client.session


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
@pytest.mark.parametrize("name", ["alice", "bob"])
def test_company_admin_and_trader_are_sent_to_the_login(rows: Cast, name: str, model: type[Model]) -> None:
    answer = client_of(User.objects.get(username=name)).get(page(model, "changelist"))
    assert answer.status_code == 302
    assert answer["Location"].startswith("/admin/login/")


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_company_admin_marked_as_staff_gets_no_rows(rows: Cast, model: type[Model]) -> None:
    User.objects.filter(pk=rows.alice.pk).update(is_staff=True)
    client = client_of(rows.alice)
    assert client.get(page(model, "changelist")).status_code == 403
    row = model._default_manager.all()[0]
    for name in ("change", "delete"):
        assert client.get(page(model, name, row.pk)).status_code == 403
    assert client.get(page(model, "add")).status_code == 403
    assert client.get("/admin/").context["app_list"] == []


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_company_admin_marked_as_superuser_gets_no_rows(rows: Cast, model: type[Model]) -> None:
    User.objects.filter(pk=rows.alice.pk).update(is_staff=True, is_superuser=True)
    assert client_of(rows.alice).get(page(model, "changelist")).status_code == 403


def test_disabled_operator_is_sent_to_the_login(operator: User, operator_client: Client) -> None:
    access.disable_user(str(operator.pk))
    assert operator_client.get(page(User, "changelist")).status_code == 302


def test_operator_adds_users_up_to_the_plan(cast: Cast, operator_client: Client) -> None:
    SubscriptionTier.objects.filter(code="PRO").update(user_limit=3)
    fields = {"password1": PASSWORD, "password2": PASSWORD, "company": cast.alpha.pk, "role": "trader"}
    assert fill_in(operator_client, page(User, "add"), username="dora", **fields).status_code == 302
    assert User.objects.get(username="dora").company == cast.alpha
    answer = fill_in(operator_client, page(User, "add"), username="one-more", **fields)
    assert "the plan has 3 users a company, and all are taken" in errors_of(answer)


def test_operator_is_told_that_a_trader_needs_a_company(operator_client: Client) -> None:
    fields = {"password1": PASSWORD, "password2": PASSWORD, "company": "", "role": "trader"}
    assert "user_has_a_company" in errors_of(fill_in(operator_client, page(User, "add"), username="dora", **fields))


def test_operator_sees_a_new_key_once(cast: Cast, operator_client: Client) -> None:
    made = fill_in(operator_client, page(ApiKey, "add"), user=cast.bob.pk, name="VPS")
    shown = KEY_FORM.search(operator_client.get(made["Location"]).content.decode())
    assert shown is not None
    key = shown[0]
    assert user_of_api_key(key) == cast.bob
    row = ApiKey.objects.get()
    for path in (page(ApiKey, "changelist"), page(ApiKey, "change", row.pk), "/admin/"):
        text = operator_client.get(path).content.decode()
        assert key not in text and row.digest not in text
    assert LogEntry.objects.get().object_repr == f"{key[:12]}… (VPS)"


def test_operator_revokes_a_key_and_cannot_change_it(cast: Cast, operator_client: Client) -> None:
    key = create_api_key(cast.bob, "VPS")
    row = ApiKey.objects.get()
    assert operator_client.post(page(ApiKey, "change", row.pk), {"name": "other"}).status_code == 403
    run_action(operator_client, ApiKey, "revoke", row)
    assert user_of_api_key(key) is None


def test_operator_does_not_delete_a_plan_that_is_in_use(cast: Cast, operator_client: Client) -> None:
    operator_client.post(page(SubscriptionTier, "delete", tier("PRO").pk), {"post": "yes"})
    assert tier("PRO").companies.count() == 2


def test_access_version_is_shown_and_not_taken_from_the_form(cast: Cast, operator_client: Client) -> None:
    path = page(Company, "change", cast.alpha.pk)
    assert re.search(r"access.version", operator_client.get(path).content.decode(), re.IGNORECASE)
    fill_in(operator_client, path, access_version=99)
    assert Company.objects.get(pk=cast.alpha.pk).access_version == 2
