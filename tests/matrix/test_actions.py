"""Every action of every list, by everybody, with rows of the own and of another company chosen together."""

from typing import Any

import pytest
from django.db.models import Model
from django.test import RequestFactory
from django.urls import reverse

from tests.matrix.addresses import registered
from tests.matrix.expectations import ACTION_FIELDS, ACTIONS, ADMIN
from tests.matrix.marks import COMPANIES, NOBODY
from tests.matrix.rows import SHARED
from tests.matrix.world import PEOPLE, Answer, Person, World, expect_same, post

pytestmark = pytest.mark.django_db
_HERE = "tests/matrix/expectations.py"


def declared() -> list[tuple[type[Model], str]]:
    """As the pages declare them, whoever finds them in the list."""
    found = []
    for model, page in registered().items():
        names = [one if isinstance(one, str) else one.__name__ for one in page.actions or ()]
        found += [(model, name) for name in [*names, "delete_selected"]]
    return found


def may(role: str, model: type[Model], action: str) -> bool:
    if action == "delete_selected":
        row = ADMIN.get(model)
        return row is not None and "d" in {"operator": row.operator, "company_admin": row.company_admin}.get(role, "")
    return role in ACTIONS.get((model, action), ())


_ACTIONS = declared()


def test_each_action_has_a_row() -> None:
    wanted = {one for one in _ACTIONS if one[1] != "delete_selected"}
    missing, gone = wanted - ACTIONS.keys(), ACTIONS.keys() - wanted
    assert not missing, f"add a row to ACTIONS in {_HERE} for: {missing}"
    assert not gone, f"take out of ACTIONS in {_HERE}: {gone}"


@pytest.mark.parametrize("role", ["operator", "company_admin"])
def test_list_offers_the_actions_of_the_role(world: World, role: str) -> None:
    person = next(person for person in PEOPLE if person.role == role)
    request = RequestFactory().get("/admin/")
    request.user = world.user_of(person)  # type: ignore[assignment]
    for model, page in registered().items():
        if model._meta.model_name is None or not page.has_view_permission(request):
            continue
        offered = set(page.get_actions(request))
        assert offered == {name for one, name in _ACTIONS if one is model and may(role, model, name)}, model


@pytest.mark.parametrize("person", PEOPLE, ids=lambda person: person.name)
@pytest.mark.parametrize(("model", "action"), _ACTIONS, ids=lambda value: getattr(value, "__name__", value))
def test_action_touches_nothing_of_another_company(
    world: World, model: type[Model], action: str, person: Person
) -> None:
    if model in SHARED:
        _try_shared(world, model, action, person)
        return
    own = person.marks or COMPANIES[0]
    allowed = may(person.role, model, action)
    may_change = COMPANIES if person.role == "operator" else (own,) if allowed and person.marks else ()
    chosen, nobodys = world.keys(own, model), world.keys(NOBODY, model)
    if person.role == "operator":
        assert _run(world, model, action, person, chosen, may_change, ACTION_FIELDS).status == 200
        return
    tries = [(chosen[:1], ACTION_FIELDS), (chosen[:1], {}), ([], ACTION_FIELDS)]
    if person.role != "company_admin" or "v" not in ADMIN[model].company_admin:
        # Nobody gets as far as the rows.
        tries = tries[:1]
    for place, (beside, fields) in enumerate(tries):
        twin = _run(world, model, action, person, [*beside, *nobodys], may_change, fields)
        for other in person.targets[: 1 if place else None]:
            theirs = world.keys(other, model)[:1]
            answer = _run(world, model, action, person, [*beside, *theirs], may_change, fields)
            expect_same((answer, twin), tuple(theirs), tuple(nobodys), f"{action} of {model.__name__}")


def _try_shared(world: World, model: type[Model], action: str, person: Person) -> None:
    """Rows that belong to all: an operator's alone."""
    if person.role != "operator":
        _run(world, model, action, person, world.keys(COMPANIES[0], model), (), ACTION_FIELDS)


def _run(
    world: World,
    model: type[Model],
    action: str,
    person: Person,
    keys: list[str],
    may_change: tuple[Any, ...],
    fields: dict[str, str],
) -> Answer:
    path = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    body = {"action": action, "_selected_action": keys, **fields}
    return world.ask(person, post(path, body, follow=True), sent=tuple(keys), may_change=may_change)
