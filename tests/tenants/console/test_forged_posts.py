"""A company admin's browser sends more than its forms have: none of it has an effect."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, Permission
from django.db.models import Field, Model
from django.test import Client

from tenants.changes import COMPANY_WRITABLE
from tenants.models import ActivePair, ApiKey, Company, MT5Account, SubscriptionTier, User
from tests.tenants.cast import Cast, tier
from tests.tenants.console.forms import fields_of, fill_in, page, run_action
from tests.tenants.rows import Rows, everything

pytestmark = pytest.mark.django_db
# What the forms of a company admin may set, by model; of a key once, when it is made.
FORM_FIELDS: dict[type[Model], frozenset[str]] = {
    **COMPANY_WRITABLE,
    User: COMPANY_WRITABLE[User] - {"password"},
    ApiKey: frozenset({"account", "user", "name", "scope", "expires_at"}),
}
ADDED: dict[type[Model], dict[str, Any]] = {
    User: {"username": "dora", "email": "dora@alpha.example"},
    MT5Account: {"login": "4711", "broker_server": "B"},
    ActivePair: {"symbol": "GBPUSD"},
    ApiKey: {"name": "VPS 2"},
}
# Fields that differ from one row to the next, whoever makes it.
OF_EACH = frozenset({"id", "created_at", "date_joined", "password", "prefix", "digest"})


def forged_names(model: type[Model]) -> Iterator[str]:
    """All that a row has and the form has not, under the names that a form or a filter could use."""
    for field in model._meta.get_fields():
        if field.name not in FORM_FIELDS.get(model, frozenset()):
            yield field.name
            if isinstance(field, Field) and field.attname != field.name:
                yield field.attname


def forged_values(cast: Cast, name: str) -> list[Any]:
    ids: dict[str, list[Any]] = {
        "role": ["operator", "company_admin"],
        "company": [str(cast.beta.pk)],
        "company_id": [str(cast.beta.pk)],
        "id": [str(cast.charlie.pk), str(uuid.uuid4()), "1"],
        "password": [make_password("forged password"), "forged password"],
        "groups": [str(Group.objects.get().pk)],
        "user_permissions": [str(Permission.objects.all()[0].pk)],
        "digest": ["0" * 64],
    }
    return ids.get(name, ["on", "1", "2030-01-01"])


def privileges(row: Model) -> dict[str, Any]:
    """Everything of the row that the form does not set."""
    allowed = FORM_FIELDS[type(row)] | OF_EACH
    values = {
        field.name: getattr(row, field.attname) for field in row._meta.concrete_fields if field.name not in allowed
    }
    if isinstance(row, User):
        values["groups"] = list(row.groups.values_list("pk", flat=True))
        values["user_permissions"] = list(row.user_permissions.values_list("pk", flat=True))
        values["knows"] = row.check_password("forged password")
    return values


@pytest.fixture(autouse=True)
def a_group(rows: Rows) -> None:
    Group.objects.create(name="Somebody")


def test_each_form_of_a_company_admin_is_tried() -> None:
    open_forms = {
        model
        for model, model_admin in admin.site._registry.items()
        if getattr(model_admin, "company_may", frozenset()) & {"add", "change"}
    }
    assert open_forms == set(ADDED)


@pytest.mark.parametrize("model", ADDED, ids=lambda model: model.__name__)
def test_no_forged_field_of_a_new_row_has_an_effect(
    rows: Rows, cast: Cast, alice_client: Client, model: type[Model]
) -> None:
    path = page(model, "add")
    fields = {**fields_of(alice_client, path), "owner": str(cast.bob.pk), "user": str(cast.bob.pk), **ADDED[model]}
    known = set(model._default_manager.values_list("pk", flat=True))

    def added(**forged: Any) -> dict[str, Any]:
        alice_client.post(path, {**fields, **forged})
        made = model._default_manager.exclude(pk__in=known).get()
        found = privileges(made)
        made.delete()
        return found

    wanted = added()
    for name in forged_names(model):
        for value in forged_values(cast, name):
            assert added(**{name: value}) == wanted, (name, value)


@pytest.mark.parametrize("model", ADDED, ids=lambda model: model.__name__)
def test_no_forged_field_of_a_changed_row_has_an_effect(
    rows: Rows, cast: Cast, alice_client: Client, model: type[Model]
) -> None:
    row = rows.of(model)["bob"]
    path = page(model, "change", row.pk)
    fields = {} if model is ApiKey else fields_of(alice_client, path)
    wanted, count = privileges(row), model._default_manager.count()
    for name in forged_names(model):
        for value in forged_values(cast, name):
            answer = alice_client.post(path, {**fields, name: value})
            # A key has no form at all: the answer to whatever is sent.
            assert answer.status_code == (403 if model is ApiKey else 302), (name, value)
            assert privileges(model._default_manager.get(pk=row.pk)) == wanted, (name, value)
            assert model._default_manager.count() == count


@pytest.mark.parametrize("sent", [{"_saveasnew": "1"}, {"_popup": "1"}, {"_to_field": "id"}, {"_continue": "1"}])
def test_forged_ways_of_saving_change_no_privilege(
    rows: Rows, cast: Cast, alice_client: Client, sent: dict[str, str]
) -> None:
    wanted = privileges(cast.bob)
    fields = {**sent, "is_superuser": "on", "role": "operator", "company": str(cast.beta.pk)}
    fill_in(alice_client, page(User, "change", cast.bob.pk), **fields)
    assert privileges(User.objects.get(pk=cast.bob.pk)) == wanted
    assert set(User.objects.filter(company=cast.beta)) == {cast.charlie}
    assert not User.objects.exclude(role__in=["company_admin", "trader"]).exists()


def test_forged_username_of_a_person_there_is_has_no_effect(cast: Cast, alice_client: Client) -> None:
    fill_in(alice_client, page(User, "change", cast.bob.pk), username="operator")
    assert User.objects.get(pk=cast.bob.pk).username == "bob"


def test_forged_plan_of_the_own_company_has_no_effect(cast: Cast, alice_client: Client) -> None:
    before = everything()
    sent = {
        "name": "Alpha", "slug": "alpha", "tier": tier("ENTERPRISE").pk, "status": "active",
        "paid_until_0": "2099-01-01", "paid_until_1": "00:00:00", "grace": "99 00:00:00", "access_version": "1",
        "override-TOTAL_FORMS": "1", "override-INITIAL_FORMS": "0", "override-0-user_limit": "1000",
        "override-0-company": str(cast.alpha.pk),
    }  # fmt: skip
    assert alice_client.post(page(Company, "change", cast.alpha.pk), sent).status_code == 403
    assert alice_client.post(page(Company, "add"), sent).status_code == 403
    assert everything() == before


@pytest.mark.parametrize(
    ("model", "action"),
    [(Company, "resume"), (Company, "suspend"), (User, "ban"), (SubscriptionTier, "delete_selected")],
)
def test_forged_action_of_an_operator_has_no_effect(
    rows: Rows, cast: Cast, alice_client: Client, model: type[Model], action: str
) -> None:
    row = {Company: cast.alpha, User: cast.bob}.get(model, tier("PRO"))
    before = everything()
    run_action(alice_client, model, action, row, reason="x", hours=1, detail="x")
    assert everything() == before


@pytest.mark.parametrize("model", [Company, SubscriptionTier, ApiKey], ids=lambda model: model.__name__)
def test_forged_deletion_has_no_effect(rows: Rows, cast: Cast, alice_client: Client, model: type[Model]) -> None:
    row = {Company: cast.alpha, ApiKey: rows.of(ApiKey)["bob"]}.get(model, tier("PRO"))
    before = everything()
    assert alice_client.post(page(model, "delete", row.pk), {"post": "yes"}).status_code in (403, 404)
    run_action(alice_client, model, "delete_selected", row)
    assert everything() == before


def test_forged_bulk_edit_of_a_list_has_no_effect(rows: Rows, cast: Cast, alice_client: Client) -> None:
    before = everything()
    sent = {
        "_save": "Save", "form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "1", "form-0-id": str(cast.charlie.pk),
        "form-0-is_active": "", "form-0-role": "operator",
    }  # fmt: skip
    assert alice_client.post(page(User, "changelist"), sent).status_code == 200
    assert everything() == before


def test_company_admin_does_not_disable_or_delete_themselves(cast: Cast, alice_client: Client) -> None:
    fill_in(alice_client, page(User, "change", cast.alice.pk), is_active=None)
    run_action(alice_client, User, "disable", cast.alice, cast.bob)
    run_action(alice_client, User, "delete_selected", cast.alice, cast.bob)
    assert alice_client.post(page(User, "delete", cast.alice.pk), {"post": "yes"}).status_code == 403
    assert set(User.objects.filter(is_active=True)) == {cast.alice, cast.bob, cast.charlie}


def test_request_without_a_csrf_token_changes_nothing(rows: Rows, cast: Cast) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(cast.alice)
    before = everything()
    for path in (
        page(User, "add"), page(User, "changelist"), page(User, "change", cast.bob.pk),
        page(User, "delete", cast.bob.pk), page(User, "password", cast.bob.pk),
        page(ApiKey, "rotate", rows.of(ApiKey)["bob"].pk), page(MT5Account, "import"),
    ):  # fmt: skip
        assert client.post(path, {"post": "yes"}).status_code == 403
    assert everything() == before
