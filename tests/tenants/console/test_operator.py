"""The admin as an operator has it: all of it; and as those have it for whom it is not."""

import re
from typing import Any

import pytest
from django.contrib import admin
from django.db.models import Model
from django.test import Client

from tenants import access
from tenants.models import Ban, Company, CompanyOverride, SubscriptionTier, User
from tests.tenants import acts
from tests.tenants.acts import SYSTEM
from tests.tenants.cast import Cast, tier
from tests.tenants.console.conftest import client_of
from tests.tenants.console.forms import errors_of, fill_in, page, run_action
from tests.tenants.rows import Rows, make_ban

pytestmark = pytest.mark.django_db
MODELS: list[type[Model]] = sorted(
    (model for model in admin.site._registry if model._meta.app_label == "tenants"), key=lambda model: model.__name__
)
NAMES = [model.__name__ for model in MODELS]
PASSWORD = "a long enough password"


def test_each_model_of_the_room_has_a_page() -> None:
    assert NAMES == [
        "ActivePair", "ApiKey", "AuditEntry", "Ban", "Company", "MT5Account", "RevokedToken", "SubscriptionTier",
        "User",
    ]  # fmt: skip


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_operator_opens_each_list_each_row_and_its_history(
    rows: Rows, operator_client: Client, model: type[Model]
) -> None:
    listed = operator_client.get(page(model, "changelist"))
    assert listed.status_code == 200
    assert listed.context["cl"].result_count == model._default_manager.count() > 0
    for row in model._default_manager.all():
        assert operator_client.get(page(model, "change", row.pk)).status_code == 200
        assert operator_client.get(page(model, "history", row.pk)).status_code == 200


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_operator_adds_what_can_be_added(rows: Rows, operator_client: Client, model: type[Model]) -> None:
    expected = 403 if model._meta.model_name in ("ban", "auditentry") else 200
    assert operator_client.get(page(model, "add")).status_code == expected


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_operator_searches_filters_and_sorts_each_list(rows: Rows, operator_client: Client, model: type[Model]) -> None:
    listed = operator_client.get(page(model, "changelist"), {"q": "alice"})
    assert listed.status_code == 200
    for spec in listed.context["cl"].filter_specs:
        for choice in spec.choices(listed.context["cl"]):
            assert operator_client.get(page(model, "changelist") + choice["query_string"]).status_code == 200
    for column in range(1, len(listed.context["cl"].list_display) + 1):
        assert operator_client.get(page(model, "changelist"), {"o": column}).status_code == 200
    if date := listed.context["cl"].date_hierarchy:
        assert operator_client.get(page(model, "changelist"), {f"{date}__year": "2026"}).status_code == 200


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_trader_gets_no_page(rows: Rows, cast: Cast, model: type[Model]) -> None:
    User.objects.filter(pk=cast.bob.pk).update(is_staff=True, is_superuser=True)
    client = client_of(User.objects.get(pk=cast.bob.pk))
    for name in ("changelist", "add"):
        assert client.get(page(model, name)).status_code in (302, 403)
    row = model._default_manager.all()[0]
    for name in ("change", "delete", "history"):
        assert client.get(page(model, name, row.pk)).status_code in (302, 403)


@pytest.mark.parametrize("model", [SubscriptionTier, CompanyOverride, Company], ids=str)
def test_company_admin_with_an_operators_flags_stays_a_company_admin(
    rows: Rows, cast: Cast, model: type[Model]
) -> None:
    User.objects.filter(pk=cast.alice.pk).update(is_staff=True, is_superuser=True)
    client = client_of(User.objects.get(pk=cast.alice.pk))
    assert client.get(page(SubscriptionTier, "changelist")).status_code == 403
    text = client.get(page(Company, "change", cast.alpha.pk)).content.decode()
    assert "Beta" not in text and 'name="tier"' not in text and "override" not in text


def test_disabled_operator_gets_no_page(operator: User, operator_client: Client) -> None:
    acts.disable(str(operator.pk))
    assert operator_client.get(page(User, "changelist")).status_code == 302


def test_operator_adds_users_up_to_the_plan(cast: Cast, operator_client: Client) -> None:
    SubscriptionTier.objects.filter(code="PRO").update(user_limit=3)
    fields = {"password1": PASSWORD, "password2": PASSWORD, "company": cast.alpha.pk, "role": "trader"}
    assert fill_in(operator_client, page(User, "add"), username="dora", **fields).status_code == 302
    dora = User.objects.get(username="dora")
    assert dora.company == cast.alpha and dora.check_password(PASSWORD) and not dora.is_staff
    answer = fill_in(operator_client, page(User, "add"), username="one-more", **fields)
    assert "3 of 3 users of the plan are taken" in errors_of(answer)
    assert not User.objects.filter(username="one-more").exists()


def test_operator_who_moves_a_person_is_told_to_invite_anew(cast: Cast, operator_client: Client) -> None:
    cast.bob.set_password(PASSWORD)
    cast.bob.save()
    path = page(User, "change", cast.bob.pk)
    fill_in(operator_client, path, company=cast.beta.pk)
    bob = User.objects.get(pk=cast.bob.pk)
    assert bob.company == cast.beta and not bob.has_usable_password()
    opened = operator_client.get(path).content.decode()
    assert "do not work any more" in opened and "send the invitation again" in opened


def test_operator_is_told_that_a_trader_needs_a_company(operator_client: Client) -> None:
    fields = {"password1": PASSWORD, "password2": PASSWORD, "company": "", "role": "trader"}
    answer = fill_in(operator_client, page(User, "add"), username="dora", **fields)
    assert "Choose the company" in errors_of(answer)


def test_operator_makes_another_operator(operator_client: Client) -> None:
    fields = {"password1": PASSWORD, "password2": PASSWORD, "company": "", "role": "operator"}
    assert fill_in(operator_client, page(User, "add"), username="olga", **fields).status_code == 302
    olga = User.objects.get(username="olga")
    assert olga.is_superuser and client_of(olga).get(page(Company, "changelist")).status_code == 200


def test_operator_who_becomes_a_company_admin_keeps_no_flag(cast: Cast, operator_client: Client) -> None:
    olga = User.objects.create_superuser("olga", email="olga@alpha.example")
    fill_in(operator_client, page(User, "change", olga.pk), role="company_admin", company=cast.alpha.pk)
    olga.refresh_from_db()
    assert (olga.role, olga.is_superuser, olga.is_staff) == ("company_admin", False, False)


def test_operator_does_not_lock_themselves_out(operator: User, cast: Cast, operator_client: Client) -> None:
    path = page(User, "change", operator.pk)
    fill_in(operator_client, path, role="trader", company=cast.alpha.pk, is_active=None)
    operator.refresh_from_db()
    assert operator.is_active and operator.role == "operator"
    assert operator_client.post(page(User, "delete", operator.pk), {"post": "yes"}).status_code == 403
    run_action(operator_client, User, "disable", operator, cast.bob)
    run_action(operator_client, User, "delete_selected", operator, cast.bob)
    assert User.objects.filter(pk__in=[operator.pk, cast.bob.pk], is_active=True).count() == 2


def test_operator_suspends_with_a_reason_and_resumes(cast: Cast, operator_client: Client) -> None:
    asked = run_action(operator_client, Company, "suspend", cast.alpha)
    assert asked.status_code == 200
    assert Company.objects.get(pk=cast.alpha.pk).status == "active"
    run_action(operator_client, Company, "suspend", cast.alpha, reason="Invoice 7 is open")
    suspended = Company.objects.get(pk=cast.alpha.pk)
    assert (suspended.status, suspended.status_reason) == ("suspended", "Invoice 7 is open")
    run_action(operator_client, Company, "resume", cast.alpha)
    assert Company.objects.get(pk=cast.alpha.pk).status == "active"


def test_operator_who_enters_a_payment_lets_an_unpaid_company_in_again(cast: Cast, operator_client: Client) -> None:
    Company.objects.filter(pk=cast.alpha.pk).update(status="unpaid")
    path = page(Company, "change", cast.alpha.pk)
    fill_in(operator_client, path, paid_until_0="2030-01-01", paid_until_1="00:00:00")
    company = Company.objects.get(pk=cast.alpha.pk)
    assert company.status == "active" and company.paid_until is not None


def test_operator_gives_a_company_limits_of_its_own(cast: Cast, operator_client: Client) -> None:
    fill_in(operator_client, page(Company, "change", cast.alpha.pk), **{"override-0-user_limit": 3})
    assert Company.objects.get(pk=cast.alpha.pk).override.user_limit == 3
    assert "2 of 3 users" in operator_client.get(page(Company, "change", cast.alpha.pk)).content.decode()


def test_operator_bans_for_a_time_and_lifts(cast: Cast, operator_client: Client) -> None:
    assert run_action(operator_client, User, "ban", cast.bob).status_code == 200
    assert not Ban.objects.exists()
    run_action(operator_client, User, "ban", cast.bob, hours=24, detail="Floods the gateway")
    ban = Ban.objects.get()
    assert (ban.user, ban.reason, ban.detail) == (cast.bob, "operator", "Floods the gateway")
    assert (ban.until - ban.starts_at).total_seconds() == pytest.approx(86_400)
    run_action(operator_client, Ban, "lift", ban)
    assert Ban.objects.get().lifted_by == "operator"


@pytest.mark.parametrize(
    ("fields", "kept_out", "earned_by"),
    [
        ({"is_for_all": True}, "all connections", "–"),
        ({"account": "5012345", "session_id": "c0ffee"}, "MT5 account 5012345", "connection c0ffee"),
        ({"account": "5012345", "is_for_all": True}, "all connections", "MT5 account 5012345"),
        ({"session_id": "c0ffee"}, "connections without account and key", "connection c0ffee"),
        ({"api_key": True}, "API key gwk_", "API key gwk_"),
    ],
)
def test_list_of_bans_says_who_is_kept_out_and_whose_messages_they_were(
    cast: Cast, operator_client: Client, fields: dict[str, Any], kept_out: str, earned_by: str
) -> None:
    key = access.create_api_key(SYSTEM, cast.bob, "VPS")[1]
    values = {"is_for_all": False, **fields, **({"api_key": key} if "api_key" in fields else {})}
    ban = make_ban(cast.bob, **values)
    text = operator_client.get(page(Ban, "changelist")).content.decode()
    columns = dict(re.findall(r'<td class="field-(scope|earned_by)">([^<]*)', text))
    assert kept_out in columns["scope"] and earned_by in columns["earned_by"]
    assert operator_client.get(page(Ban, "change", ban.pk)).status_code == 200


def test_operator_does_not_delete_a_plan_that_is_in_use(cast: Cast, operator_client: Client) -> None:
    answer = operator_client.post(page(SubscriptionTier, "delete", tier("PRO").pk), {"post": "yes"})
    assert "Company: Alpha" in answer.content.decode()
    assert tier("PRO").companies.count() == 2


def test_operator_deletes_a_company_with_its_people_only_after_having_seen_them(
    rows: Rows, cast: Cast, operator_client: Client
) -> None:
    path = page(Company, "delete", cast.alpha.pk)
    text = operator_client.get(path).content.decode()
    assert "User: bob" in text and "MT5 account: 101@B" in text and "charlie" not in text
    assert Company.objects.filter(pk=cast.alpha.pk).exists()
    operator_client.post(path, {"post": "yes"})
    assert set(Company.objects.all()) == {cast.beta}
    assert set(User.objects.exclude(role="operator")) == {cast.charlie}


def test_access_version_is_shown_and_not_taken_from_the_form(cast: Cast, operator_client: Client) -> None:
    path = page(Company, "change", cast.alpha.pk)
    assert re.search(r"access.version", operator_client.get(path).content.decode(), re.IGNORECASE)
    fill_in(operator_client, path, access_version=99)
    assert Company.objects.get(pk=cast.alpha.pk).access_version == 2


@pytest.mark.parametrize("name", ["password", "digest", "user__password", "owner__password", "users__password"])
@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_nobody_probes_a_secret_by_the_rows_that_come(
    rows: Rows, operator_client: Client, model: type[Model], name: str
) -> None:
    assert operator_client.get(page(model, "changelist"), {f"{name}__startswith": "a"}).status_code in (302, 400)


def test_no_page_shows_a_hash_or_a_digest(rows: Rows, operator_client: Client, cast: Cast) -> None:
    cast.bob.set_password(PASSWORD)
    cast.bob.save()
    for model in MODELS:
        for row in model._default_manager.all():
            text = operator_client.get(page(model, "change", row.pk)).content.decode()
            assert cast.bob.password.split("$")[-1] not in text
            assert f"{1:064d}" not in text


def test_operator_is_offered_nobody_who_can_own_nothing(cast: Cast, operator_client: Client) -> None:
    sent = {"app_label": "tenants", "model_name": "mt5account", "field_name": "owner", "term": ""}
    found = operator_client.get("/admin/autocomplete/", sent).json()["results"]
    assert [row["text"] for row in found] == ["alice", "bob", "charlie"]
