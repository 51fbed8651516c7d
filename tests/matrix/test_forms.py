"""Forms of a company admin that point at rows of another company: refused in the words for rows that never were."""

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import Model
from django.urls import reverse

from tenants.models import Company, MT5Account, User
from tests.matrix.addresses import registered
from tests.matrix.expectations import ADMIN
from tests.matrix.marks import NOBODY, Marks
from tests.matrix.world import COMPANY_ADMINS, Person, Send, World, expect_same, get, post
from tests.tenants.console.forms import fill_in
from tests.tenants.console.test_forged_posts import ADDED

pytestmark = pytest.mark.django_db
_IMPORT = "/admin/tenants/mt5account/import/"
# Those that a company admin may fill in, and whether a new row or the own one.
_FORMS = [
    (model, page)
    for model in registered()
    for page, letter in (("add", "a"), ("change", "c"))
    if model in ADMIN and letter in ADMIN[model].company_admin
]


def references(model: type[Model]) -> list[tuple[str, type[Model]]]:
    """Names under which a form could take another row, whether it has such a field or not."""
    own = [(field.name, field.related_model) for field in model._meta.fields if field.is_relation]
    names: list[tuple[str, type[Model]]] = [(name, kind) for name, kind in own if isinstance(kind, type)]
    known = {name for name, _ in names}
    common: list[tuple[str, type[Model]]] = [
        ("user", User), ("owner", User), ("company", Company), ("company_id", Company)
    ]  # fmt: skip
    return names + [pair for pair in common if pair[0] not in known]


@pytest.mark.parametrize("person", COMPANY_ADMINS, ids=lambda person: person.name)
@pytest.mark.parametrize(("model", "page"), _FORMS, ids=lambda value: getattr(value, "__name__", value))
def test_form_takes_no_row_of_another_company(world: World, model: type[Model], page: str, person: Person) -> None:
    assert person.marks is not None
    keys = [world.keys(person.marks, model)[0]] if page == "change" else []
    path = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=keys)
    valid = {"user": world.keys(person.marks, User)[0], "owner": world.keys(person.marks, User)[0]}
    fields = {**valid, **ADDED.get(model, {})} if page == "add" else {}
    for name, target in references(model):
        nobodys = world.keys(NOBODY, target)[0]
        twin = _fill_in(world, person, path, {**fields, name: nobodys}, nobodys)
        for other in person.others:
            theirs = world.keys(other, target)[0]
            answer = _fill_in(world, person, path, {**fields, name: theirs}, theirs)
            expect_same((answer, twin), (theirs,), (nobodys,), f"{path} with {name} of {other.word}")


@pytest.mark.parametrize("person", COMPANY_ADMINS, ids=lambda person: person.name)
@pytest.mark.parametrize("model", [model for model, page in _FORMS if page == "add"], ids=lambda model: model.__name__)
def test_add_form_shows_nothing_of_a_row_that_its_address_names(
    world: World, model: type[Model], person: Person
) -> None:
    path = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_add")
    for name, target in references(model):
        nobodys = world.keys(NOBODY, target)[0]
        twin = world.ask(person, get(path, {name: nobodys}), sent=(nobodys,))
        for other in person.others:
            theirs = world.keys(other, target)[0]
            answer = world.ask(person, get(path, {name: theirs}), sent=(theirs,))
            expect_same((answer, twin), (theirs,), (nobodys,), f"{path}?{name}={theirs}")


@pytest.mark.parametrize("person", COMPANY_ADMINS, ids=lambda person: person.name)
def test_import_knows_no_owner_and_no_account_of_another_company(world: World, person: Person) -> None:
    own = world.user_of(person)
    assert own is not None
    for other in person.others:
        theirs, nobodys = _csv_cells(world, other), _csv_cells(world, NOBODY)
        for login, owner in ((theirs[0], own.username), ("4711", theirs[1])):
            answers = []
            twin = (nobodys[0], own.username) if owner == own.username else ("4711", nobodys[1])
            for cells in ((login, owner), twin):
                text = "login,broker_server,owner\n" + ",".join((cells[0], "Broker", cells[1]))
                answers.append(world.ask(person, _upload(text), sent=cells))
            expect_same(answers, theirs, nobodys, f"import of {login} for {owner}")


def _csv_cells(world: World, marks: Marks) -> tuple[str, str]:
    """An MT5 login and a username."""
    if marks is NOBODY:
        return str(marks.number()), f"{marks.word}.trader"
    account = world.made[marks.word][MT5Account][0]
    return str(getattr(account, "login", "")), f"{marks.word}.trader"


def _upload(text: str) -> Send:
    return post(_IMPORT, {"file": SimpleUploadedFile("accounts.csv", text.encode())})


def _fill_in(world: World, person: Person, path: str, fields: dict[str, Any], key: str) -> Any:
    return world.ask(person, lambda client: fill_in(client, path, **fields), sent=(key,))
