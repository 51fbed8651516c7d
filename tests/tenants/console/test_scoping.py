"""Company Alpha's admin and what is Beta's: on every path it answers as what never was."""

import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from tenants.access import Actor
from tenants.console.base import Scoped, ScopedAdmin
from tenants.console.scoping import forbidding
from tenants.models import (
    ActivePair,
    ApiKey,
    AuditEntry,
    Ban,
    Company,
    MT5Account,
    RevokedToken,
    SubscriptionTier,
    User,
)
from tests.tenants import acts
from tests.tenants.cast import Cast
from tests.tenants.console.conftest import client_of
from tests.tenants.console.forms import errors_of, fill_in, page, run_action
from tests.tenants.rows import Rows, everything

pytestmark = pytest.mark.django_db
OWN: list[type[Model]] = [ActivePair, ApiKey, AuditEntry, Ban, Company, MT5Account, User]
FOREIGN: list[type[Model]] = [*OWN, RevokedToken, SubscriptionTier]
# What was sent comes back as it was sent: in the search field, in links that keep the search, in the language switch.
_ECHO = re.compile(r'name="next" value="[^"]*"|name="q" value="[^"]*"|[?;&]q=\w+|q%3D\w+')
_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="\w+"')


def never_was(model: type[Model]) -> str:
    return str(uuid.uuid4()) if model in (User, Company) else "987654321"


def theirs(rows: Rows, model: type[Model]) -> Model:
    """The row of Beta."""
    found = rows.of(model)
    return found.get("charlie") or found.get("beta") or next(iter(found.values()))


def told(answer: Any, *keys: str) -> tuple[int, str, str]:
    """Status, where to, and the text, without what differs between two equal requests."""
    text, location = _TOKEN.sub("", answer.content.decode()), answer.get("Location", "")
    for key in keys:
        # A number stands in many places; as an id it is part of a path.
        sought, instead = (f"/{key}/", "/KEY/") if key.isdigit() else (key, "KEY")
        text, location = text.replace(sought, instead), location.replace(sought, instead)
    return answer.status_code, location, text


@pytest.fixture(autouse=True)
def beta_has_a_name_of_its_own(cast: Cast) -> None:
    """A word to look for on pages."""
    Company.objects.filter(pk=cast.beta.pk).update(name="Zebra Capital")
    User.objects.filter(pk=cast.charlie.pk).update(username="zebra.charlie", email="charlie@zebra.example")


def paths(model: type[Model], key: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each page of one row, with what a curious person sends."""
    for name in ("change", "delete", "history"):
        yield "get", page(model, name, key), {}
        yield "get", page(model, name, key) + "?_to_field=id&_popup=1", {}
        yield "post", page(model, name, key), {"post": "yes", "_save": "1"}
    yield "get", f"{page(model, 'changelist')}{key}/", {}
    if model is User:
        yield "get", reverse("admin:tenants_user_password", args=[key]), {}
        yield "post", reverse("admin:tenants_user_password", args=[key]), {"password1": "x", "password2": "x"}
    if model is ApiKey:
        yield "get", reverse("admin:tenants_apikey_rotate", args=[key]), {}
        yield "post", reverse("admin:tenants_apikey_rotate", args=[key]), {}


@pytest.mark.parametrize("model", FOREIGN, ids=lambda model: model.__name__)
def test_row_of_another_company_answers_as_one_that_never_was(
    rows: Rows, alice_client: Client, model: type[Model]
) -> None:
    foreign, nothing = str(theirs(rows, model).pk), never_was(model)
    before = everything()
    for (method, path, sent), (_, twin, _sent) in zip(paths(model, foreign), paths(model, nothing), strict=True):
        answers = [getattr(alice_client, method)(place, sent) for place in (path, twin)]
        assert told(answers[0], foreign) == told(answers[1], nothing), path
        assert answers[0].status_code in (301, 302, 403, 404), path
        assert b"ebra" not in answers[0].content
    assert everything() == before


@pytest.mark.parametrize("model", OWN, ids=lambda model: model.__name__)
def test_lists_name_nothing_of_another_company(
    rows: Rows, cast: Cast, alice_client: Client, model: type[Model]
) -> None:
    queries = ["", "q=charlie", "q=Zebra", "_popup=1", "_popup=1&_to_field=id", "_facets=True", "all="]
    for query in queries:
        answer = alice_client.get(f"{page(model, 'changelist')}?{query}", follow=True)
        assert answer.status_code == 200
        text = _ECHO.sub("", answer.content.decode())
        assert "ebra" not in text and "charlie" not in text and str(cast.beta.pk) not in text, query


@pytest.mark.parametrize("model", OWN, ids=lambda model: model.__name__)
def test_filters_by_company_do_not_exist_for_a_company_admin(
    rows: Rows, cast: Cast, alice_client: Client, model: type[Model]
) -> None:
    if model is Company:
        return
    for lookup in (
        "company__name__startswith", "company__id__exact", "company", "user__company__name__startswith",
        "owner__company__slug__contains", "user__email__startswith", "owner__password__startswith", "email__startswith",
        "accounts__login__startswith", "company__users__username", "user__company__access_version__gt", "logentry__id",
    ):  # fmt: skip
        if lookup == "company__id__exact" and model in (User, MT5Account):
            continue  # a link of the operator's pages: it finds nothing more
        assert alice_client.get(page(model, "changelist"), {lookup: "a"}).status_code == 400, lookup


@pytest.mark.parametrize("number", ["10000", "4294967296", "9" * 25])
@pytest.mark.parametrize(
    ("model", "name"), [(User, "date_joined"), (ApiKey, "created_at"), (AuditEntry, "at")], ids=["user", "key", "audit"]
)
def test_date_beyond_all_dates_is_no_error_of_ours(
    rows: Rows, alice_client: Client, model: type[Model], name: str, number: str
) -> None:
    answer = alice_client.get(page(model, "changelist"), {f"{name}__year": number})
    assert (answer.status_code, answer["Location"]) == (302, f"{page(model, 'changelist')}?e=1")


@pytest.mark.parametrize("model", [User, MT5Account], ids=lambda model: model.__name__)
def test_link_to_the_rows_of_another_company_finds_none(
    rows: Rows, cast: Cast, alice_client: Client, model: type[Model]
) -> None:
    for company in (str(cast.beta.pk), never_was(Company)):
        answer = alice_client.get(page(model, "changelist"), {"company__id__exact": company})
        assert answer.context["cl"].result_count == 0


@pytest.mark.parametrize(
    ("model", "lookup"), [(MT5Account, "owner"), (ActivePair, "user"), (ApiKey, "user")], ids=["owner", "pair", "key"]
)
def test_filter_by_a_user_of_another_company_finds_none_and_offers_none(
    rows: Rows, cast: Cast, alice_client: Client, model: type[Model], lookup: str
) -> None:
    answers = []
    for key in (str(cast.charlie.pk), never_was(User)):
        answer = alice_client.get(page(model, "changelist"), {f"{lookup}__id__exact": key})
        assert answer.context["cl"].result_count == 0
        answers.append(told(answer, key))
    assert answers[0] == answers[1]
    assert "bob" in answers[0][2]


def test_no_list_offers_tiers_or_overrides(rows: Rows, alice_client: Client) -> None:
    assert alice_client.get(page(SubscriptionTier, "changelist")).status_code == 403
    text = alice_client.get("/admin/").content.decode()
    assert "subscriptiontier" not in text and "revokedtoken" not in text


AUTOCOMPLETES = [
    ("tenants", "mt5account", "owner"),
    ("tenants", "activepair", "user"),
    ("tenants", "user", "company"),
    ("tenants", "company", "tier"),
    ("admin", "logentry", "user"),
    ("tenants", "ban", "user"),
    ("tenants", "companyoverride", "company"),
]


@pytest.mark.parametrize(("app", "model", "field"), AUTOCOMPLETES)
def test_autocomplete_finds_nobody_of_another_company(
    rows: Rows, alice_client: Client, app: str, model: str, field: str
) -> None:
    for term in ("", "charlie", "zebra", "e", "\x00"):
        sent = {"app_label": app, "model_name": model, "field_name": field, "term": term}
        answer = alice_client.get("/admin/autocomplete/", sent)
        assert answer.status_code in (200, 403)
        assert b"ebra" not in answer.content and b"charlie" not in answer.content


@pytest.mark.parametrize("model", [MT5Account, ActivePair, ApiKey, User], ids=lambda model: model.__name__)
def test_add_form_offers_and_fills_in_nobody_of_another_company(
    rows: Rows, cast: Cast, alice_client: Client, model: type[Model]
) -> None:
    sent = {"owner": str(cast.charlie.pk), "user": str(cast.charlie.pk), "company": str(cast.beta.pk)}
    text = _ECHO.sub("", alice_client.get(page(model, "add"), sent).content.decode())
    assert "ebra" not in text and str(cast.charlie.pk) not in text and str(cast.beta.pk) not in text


def test_owner_of_another_company_is_refused_in_the_words_for_nobody(
    rows: Rows, cast: Cast, alice_client: Client
) -> None:
    fields = {"login": "777", "broker_server": "B"}
    theirs_, nobodys = (
        fill_in(alice_client, page(MT5Account, "add"), owner=key, **fields) for key in (cast.charlie.pk, uuid.uuid4())
    )
    assert errors_of(theirs_) == errors_of(nobodys) != ""
    assert not MT5Account.objects.filter(login="777").exists()
    own = MT5Account.objects.get(owner=cast.bob)
    changes = [
        fill_in(alice_client, page(MT5Account, "change", own.pk), owner=key) for key in (cast.charlie.pk, uuid.uuid4())
    ]
    assert errors_of(changes[0]) == errors_of(changes[1]) != ""
    assert MT5Account.objects.get(pk=own.pk).owner == cast.bob


@pytest.mark.parametrize(("model", "fields"), [(ActivePair, {"symbol": "GBPUSD"}), (ApiKey, {"name": "VPS 2"})])
def test_user_of_another_company_is_refused_in_the_words_for_nobody(
    rows: Rows, cast: Cast, alice_client: Client, model: type[Model], fields: dict[str, str]
) -> None:
    before = everything()
    answers = [fill_in(alice_client, page(model, "add"), user=key, **fields) for key in (cast.charlie.pk, uuid.uuid4())]
    assert errors_of(answers[0]) == errors_of(answers[1]) != ""
    assert everything() == before


ACTIONS = [
    (User, "disable"), (User, "enable"), (User, "invite_again"), (User, "remove_device"), (User, "ban"),
    (User, "delete_selected"), (MT5Account, "disable"), (MT5Account, "enable"), (MT5Account, "delete_selected"),
    (ActivePair, "delete_selected"), (ApiKey, "revoke"), (ApiKey, "delete_selected"), (Ban, "lift"),
    (Company, "suspend"), (Company, "resume"), (Company, "delete_selected"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "action"), ACTIONS, ids=lambda value: getattr(value, "__name__", value))
def test_action_on_rows_of_another_company_does_what_it_does_to_none(
    rows: Rows, alice_client: Client, model: type[Model], action: str
) -> None:
    foreign, nothing = str(theirs(rows, model).pk), never_was(model)
    before = everything()
    for extra in ({}, {"post": "yes"}, {"post": "yes", "hours": "24", "detail": "x", "reason": "x"}):
        answers = []
        for key in (foreign, nothing):
            sent = {"action": action, "_selected_action": key, **extra}
            answers.append(told(alice_client.post(page(model, "changelist"), sent, follow=True), key))
        assert answers[0] == answers[1]
        assert "zebra.charlie" not in answers[0][2]
    assert everything() == before


@pytest.mark.parametrize("model", OWN, ids=lambda model: model.__name__)
def test_unreadable_ids_are_answered_and_harm_nothing(rows: Rows, alice_client: Client, model: type[Model]) -> None:
    before = everything()
    for key in ("0", "-1", "nothing", "99999999999999999999999", "\x00", "'; --", "_5F", "é"):
        for name in ("change", "delete", "history"):
            assert alice_client.get(page(model, name, key)).status_code in (403, 404), key
        sent = {"action": "delete_selected", "_selected_action": ["", key], "post": "yes"}
        assert alice_client.post(page(model, "changelist"), sent).status_code in (200, 302), key
    assert everything() == before


def test_select_across_takes_only_own_rows(rows: Rows, cast: Cast, alice_client: Client) -> None:
    sent = {"action": "disable", "_selected_action": MT5Account.objects.get(owner=cast.bob).pk, "select_across": "1"}
    alice_client.post(page(MT5Account, "changelist"), sent)
    assert set(MT5Account.objects.filter(is_active=True)) == {MT5Account.objects.get(owner=cast.charlie)}


def test_inline_takes_no_account_of_another_company(rows: Rows, cast: Cast, alice_client: Client) -> None:
    foreign = MT5Account.objects.get(owner=cast.charlie)
    own = MT5Account.objects.get(owner=cast.bob)
    path = page(User, "change", cast.bob.pk)
    answers = []
    for key in (str(foreign.pk), never_was(MT5Account)):
        fields = {"accounts-0-id": key, "accounts-0-login": "666", "accounts-0-DELETE": "on"}
        answer = fill_in(alice_client, path, **fields)
        answers.append(told(answer, key))
        assert {row.login for row in MT5Account.objects.all()} >= {foreign.login, own.login}
    assert answers[0] == answers[1]
    assert MT5Account.objects.get(pk=foreign.pk).login == foreign.login


def test_inline_gives_no_account_to_another_company(rows: Rows, cast: Cast, alice_client: Client) -> None:
    path = page(User, "change", cast.bob.pk)
    fields = {"accounts-0-owner": cast.charlie.pk, "accounts-0-company": cast.beta.pk, "accounts-0-login": "4711"}
    fill_in(alice_client, path, **fields)
    assert MT5Account.objects.filter(owner=cast.charlie).count() == 1
    assert MT5Account.objects.get(owner=cast.bob).company == cast.alpha


def test_page_of_a_deletion_names_what_goes_and_nothing_else(rows: Rows, cast: Cast, alice_client: Client) -> None:
    text = alice_client.get(page(User, "delete", cast.bob.pk)).content.decode()
    assert "MT5 account: 101@B" in text and "ebra" not in text
    chosen = alice_client.post(page(User, "changelist"), {"action": "delete_selected", "_selected_action": cast.bob.pk})
    assert "MT5 account: 101@B" in chosen.content.decode()
    alice_client.post(page(User, "delete", cast.bob.pk), {"post": "yes"})
    assert not User.objects.filter(pk=cast.bob.pk).exists()
    assert User.objects.filter(pk=cast.charlie.pk).exists()


def test_history_brings_no_name_from_another_company(rows: Rows, cast: Cast, alice_client: Client) -> None:
    kind = ContentType.objects.get_for_model(User)
    for user, text in ((cast.charlie, "Changed in Zebra"), (cast.alice, "Changed in Alpha")):
        LogEntry.objects.create(
            user=user, content_type=kind, object_id=str(cast.bob.pk), object_repr="bob", action_flag=CHANGE,
            change_message=text,
        )  # fmt: skip
    text = alice_client.get(page(User, "history", cast.bob.pk)).content.decode()
    assert "Changed in Alpha" in text and "ebra" not in text


def test_index_shows_only_ones_own_recent_actions(rows: Rows, cast: Cast, alice_client: Client) -> None:
    kind = ContentType.objects.get_for_model(User)
    LogEntry.objects.create(
        user=cast.charlie, content_type=kind, object_id=str(cast.charlie.pk), object_repr="zebra", action_flag=CHANGE
    )
    assert "ebra" not in alice_client.get("/admin/").content.decode()


def test_audit_log_hides_from_where_an_operator_came_and_whence_a_user(
    rows: Rows, cast: Cast, alice_client: Client, operator_client: Client
) -> None:
    made = {"company_id": cast.alpha.pk, "action": "change", "object_type": "user", "object_name": "dora"}
    entry = AuditEntry.objects.create(
        actor="operator", actor_id=uuid.uuid4(), address="203.0.113.7",
        before={"company": str(cast.beta.pk), "email": "a"}, after={"company": str(cast.alpha.pk), "email": "b"},
        **made,
    )  # fmt: skip
    own = AuditEntry.objects.create(actor="alice", actor_id=cast.alice.pk, address="198.51.100.1", **made)
    text = alice_client.get(page(AuditEntry, "change", entry.pk)).content.decode()
    assert "203.0.113.7" not in text and str(cast.beta.pk) not in text and "email: a → b" in text
    assert "198.51.100.1" in alice_client.get(page(AuditEntry, "change", own.pk)).content.decode()
    seen = operator_client.get(page(AuditEntry, "change", entry.pk)).content.decode()
    assert "203.0.113.7" in seen and str(cast.beta.pk) in seen


@pytest.mark.parametrize("name", ["tenants_user_export", "tenants_mt5account_export"])
def test_export_holds_only_own_rows(rows: Rows, alice_client: Client, name: str) -> None:
    text = alice_client.get(reverse(f"admin:{name}")).content.decode()
    assert "bob" in text and "charlie" not in text and "ebra" not in text


def test_company_admin_sees_their_company_and_its_use_and_changes_nothing(
    rows: Rows, cast: Cast, alice_client: Client
) -> None:
    answer = alice_client.get(page(Company, "changelist"), follow=True)
    text = answer.content.decode()
    assert "Your company" in text and "2 of 5 users" in text and "2 of 20 MT5 accounts" in text
    before = everything()
    refused = alice_client.post(page(Company, "change", cast.alpha.pk), {"name": "Mine", "slug": "mine"})
    assert refused.status_code == 403
    assert everything() == before


def test_disabled_company_admin_gets_no_page(cast: Cast, alice_client: Client) -> None:
    acts.disable(str(cast.alice.pk))
    assert alice_client.get(page(User, "changelist")).status_code == 302


def test_company_admin_of_beta_sees_beta(rows: Rows, cast: Cast) -> None:
    zoe = User.objects.create_user("zebra.zoe", company=cast.beta, role=User.Role.COMPANY_ADMIN)
    listed = client_of(zoe).get(page(User, "changelist"))
    assert {user.pk for user in listed.context["cl"].result_list} == {cast.charlie.pk, zoe.pk}


def test_every_page_of_the_admin_is_scoped() -> None:
    """A page that is added without the base would show everything."""
    for model, model_admin in admin.site._registry.items():
        assert isinstance(model_admin, ScopedAdmin), model
        assert model_admin.raw_id_fields == (), "the raw id widget names rows that the actor may not see"
        assert model_admin.list_editable == ()
        assert all(issubclass(inline, Scoped) for inline in model_admin.inlines)


def test_disable_of_own_and_foreign_users_together_touches_only_own(
    rows: Rows, cast: Cast, alice_client: Client
) -> None:
    run_action(alice_client, User, "disable", cast.bob, cast.charlie)
    assert set(User.objects.filter(is_active=False)) == {cast.bob}


def test_address_of_a_row_on_the_site_tells_nothing(rows: Rows, cast: Cast, alice_client: Client) -> None:
    kind = ContentType.objects.get_for_model(User).pk
    answers = [told(alice_client.get(f"/admin/r/{kind}/{key}/"), str(key)) for key in (cast.charlie.pk, uuid.uuid4())]
    assert answers[0] == answers[1]


def test_what_keeps_a_row_from_being_deleted_is_named_to_those_who_may_see_it(cast: Cast, operator: User) -> None:
    kept: list[Model] = [cast.beta, cast.alpha]
    assert sorted(forbidding(Actor.of(operator), kept)) == ["Company: Alpha", "Company: Beta"]
    assert forbidding(Actor.of(cast.alice), kept) == ["Company: Alpha"]
    assert forbidding(Actor.of(cast.alice), [cast.beta]) == ["records that have to be kept"]
