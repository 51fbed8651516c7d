"""What a list can be asked: filters, lookups, searches, orders, pop-ups, autocompletion. Nothing tells of others."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin import ModelAdmin
from django.db import models
from django.db.models import Model
from django.urls import reverse

from tenants.models import Company, MT5Account, User
from tests.matrix.addresses import registered
from tests.matrix.expectations import ADMIN
from tests.matrix.marks import COMPANIES, NOBODY, Marks
from tests.matrix.world import COMPANY_ADMINS, PEOPLE, Answer, Person, World, expect_same, get

pytestmark = pytest.mark.django_db
_MODELS = list(registered())
_LISTED = [model for model in _MODELS if "v" in ADMIN[model].company_admin] if ADMIN.keys() >= set(_MODELS) else _MODELS
_DEPTH = 3
# What the admin itself reads from the address of a list.
_SWITCHES = ("_popup=1", "_popup=1&_to_field=id", "_facets=True", "all=", "p=2", "p=999", "o=1.-2.3", "o=-9", "e=1")


def other_of(person: Person) -> Marks:
    return person.others[0]


def paths(model: type[Model], depth: int = _DEPTH, start: str = "") -> Iterator[tuple[str, Any]]:
    """The fields that a lookup could reach from here, and through the keys of others; with what they are."""
    # Through the keys of others only on to what they have themselves, not back to all that points at them.
    for field in model._meta.get_fields() if depth == _DEPTH else model._meta.fields:
        name = start + field.name
        target = field.related_model
        if field.is_relation and isinstance(target, type) and issubclass(target, Model):
            yield name, field
            if depth > 1 and (depth == _DEPTH or target in (User, Company)):
                yield from paths(target, depth - 1, f"{name}__")
        elif isinstance(field, models.CharField | models.TextField | models.UUIDField | models.JSONField):
            yield name, field


def questions(model: type[Model], marks: Marks, world: World) -> Iterator[tuple[str, str]]:
    """Lookups whose rows would tell something of this company."""
    users, companies = world.keys(marks, User), world.keys(marks, Company)
    for name, field in paths(model):
        if field.is_relation:
            key = (companies if field.related_model is Company else users)[0]
            yield name, key
            yield f"{name}__id__exact", key
            yield f"{name}__in", key
        else:
            yield f"{name}__startswith", marks.word
            yield name, marks.word
    yield "pk__in", ",".join(world.keys(marks, model))
    yield "pk", world.keys(marks, model)[0]


def words(marks: Marks, world: World) -> list[str]:
    """What somebody may have heard of another company."""
    if marks is NOBODY:
        return [marks.word, f"trader@{marks.word}.example", str(marks.number())]
    accounts = world.made[marks.word][MT5Account]
    return [marks.word, f"trader@{marks.word}.example", str(getattr(accounts[0], "login", ""))]


def list_of(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def ask(world: World, person: Person, path: str, query: dict[str, str]) -> Answer:
    sent = tuple(piece for value in query.values() for piece in value.split(",") if piece)
    return world.ask(person, get(path, query), sent=sent)


@pytest.mark.parametrize("person", COMPANY_ADMINS[:1], ids=lambda person: person.name)
@pytest.mark.parametrize("model", _LISTED, ids=lambda model: model.__name__)
def test_lookup_tells_nothing_of_another_company(world: World, model: type[Model], person: Person) -> None:
    path, other = list_of(model), other_of(person)
    twins = list(questions(model, NOBODY, world))
    for (name, value), (_, nobodys) in zip(questions(model, other, world), twins, strict=True):
        answer = ask(world, person, path, {name: value})
        if answer.status != 400:
            twin = ask(world, person, path, {name: nobodys})
            expect_same((answer, twin), tuple(value.split(",")), tuple(nobodys.split(",")), f"{path}?{name}={value}")


@pytest.mark.parametrize("person", COMPANY_ADMINS, ids=lambda person: person.name)
@pytest.mark.parametrize("model", _LISTED, ids=lambda model: model.__name__)
def test_search_and_switches_of_a_list_tell_nothing_of_another_company(
    world: World, model: type[Model], person: Person
) -> None:
    path = list_of(model)
    for word, nobodys in zip(words(other_of(person), world), words(NOBODY, world), strict=True):
        answers = [ask(world, person, path, {"q": one}) for one in (word, nobodys)]
        expect_same(answers, (word,), (nobodys,), f"{path}?q={word}")
    for switch in _SWITCHES:
        world.ask(person, get(f"{path}?{switch}", follow=True))
    for field in model._meta.concrete_fields:
        answer = world.ask(person, get(f"{path}?_to_field={field.name}&_popup=1"))
        assert answer.status in (200, 302, 400), field.name
        assert answer.status != 200 or field.primary_key, f"_to_field={field.name} is taken"


@pytest.mark.parametrize("model", _LISTED, ids=lambda model: model.__name__)
def test_operator_finds_each_company_by_the_same_questions(world: World, model: type[Model]) -> None:
    """The questions are such that they find something where it may be found."""
    if registered()[model].search_fields:
        for marks in COMPANIES:
            answer = world.ask(PEOPLE[0], get(list_of(model), {"q": marks.word}))
            assert marks.pattern.search(answer.body.replace(f'value="{marks.word}"', "")), marks.word


@pytest.mark.parametrize("person", PEOPLE, ids=lambda person: person.name)
@pytest.mark.parametrize("model", _MODELS, ids=lambda model: model.__name__)
def test_autocompletion_offers_nothing_of_another_company(world: World, model: type[Model], person: Person) -> None:
    for page in (registered()[model], *_inlines(registered()[model])):
        for field in page.model._meta.fields:
            if field.is_relation:
                where = {"app_label": page.model._meta.app_label, "model_name": str(page.model._meta.model_name)}
                _complete(world, person, {**where, "field_name": field.name})


def _complete(world: World, person: Person, query: dict[str, str]) -> None:
    ask(world, person, "/admin/autocomplete/", {**query, "term": ""})
    for other in person.targets if person.role == "company_admin" else ():
        terms = (other.word, NOBODY.word)
        answers = [ask(world, person, "/admin/autocomplete/", {**query, "term": term}) for term in terms]
        expect_same(answers, terms[:1], terms[1:], f"autocomplete {query} {other.word}")


def _inlines(page: ModelAdmin[Any]) -> list[Any]:
    return list(page.inlines)
