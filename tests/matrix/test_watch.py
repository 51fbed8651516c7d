"""The watch itself: what it must not miss, shown by leaks made on purpose."""

import logging
from typing import Any

import pytest
from django.contrib import messages
from django.http import HttpResponse
from django.test import Client

from tenants.console.base import ScopedAdmin
from tenants.models import ActivePair, MT5Account, User
from tests.matrix import addresses as addresses_of
from tests.matrix import expectations, test_actions, test_pages
from tests.matrix.addresses import addresses
from tests.matrix.marks import COMPANIES
from tests.matrix.rows import marked_models
from tests.matrix.world import PEOPLE, World, expect_same, get

pytestmark = pytest.mark.django_db
_ADMIN = next(person for person in PEOPLE if person.name == "aquila-company_admin")
_OTHER = COMPANIES[1]


def _answers(**headers: str) -> Any:
    return lambda client: HttpResponse("nothing here", headers=headers)


def _logs(client: Client) -> Any:
    logging.getLogger("tests").info("user %s has signed in", f"{_OTHER.word}.trader")
    return HttpResponse()


def _tells(client: Client) -> Any:
    response: Any = client.get("/admin/")
    messages.info(response.wsgi_request, f"look at {_OTHER.word}001-name")
    return response


def _renames(client: Client) -> Any:
    User.objects.filter(username=f"{_OTHER.word}.trader").update(first_name="x")
    return HttpResponse()


def _points(client: Client) -> Any:
    ActivePair.objects.create(user=User.objects.get(username=f"{_OTHER.word}.trader"), symbol="EURUSD")
    return HttpResponse()


def _removes(client: Client) -> Any:
    MT5Account.objects.filter(company__slug=_OTHER.word)[0].delete()
    return HttpResponse()


@pytest.mark.parametrize(
    "send",
    [
        _answers(location=f"/x/{_OTHER.hex}-0000-4000-8000-000000000001/"),
        _answers(**{"x-total": f"{_OTHER.digits}00001"}),
        _logs, _tells, _renames, _points, _removes,
    ],
    ids=["address", "header", "log", "message", "changed row", "new row", "deleted row"],
)  # fmt: skip
def test_watch_sees_what_comes_of_a_request(world: World, send: Any) -> None:
    with pytest.raises(AssertionError):
        world.ask(_ADMIN, send)


def test_watch_takes_nothing_for_a_leak_that_is_none(world: World) -> None:
    assert world.ask(_ADMIN, _answers(location=f"/{COMPANIES[0].word}/")).status == 200


@pytest.mark.parametrize("name", ["admin:tenants_user_changelist", "admin:tenants_user_change"])
def test_page_without_its_scope_fails(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(ScopedAdmin, "get_queryset", lambda self, request: self.model._default_manager.all())
    address = next(one for one in addresses() if one.name == name)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test_pages.test_page_answers_each_person_with_what_is_theirs(world, address, _ADMIN)


def test_action_without_its_scope_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScopedAdmin, "get_queryset", lambda self, request: self.model._default_manager.all())
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test_actions.test_action_touches_nothing_of_another_company(world, MT5Account, "disable", _ADMIN)


def test_answer_that_differs_in_one_word_fails(world: World) -> None:
    answers = [world.ask(_ADMIN, get(path)) for path in ("/version", "/livez")]
    with pytest.raises(pytest.fail.Exception):
        expect_same(answers, ("a",), ("b",), "two pages")


def test_address_and_action_without_a_row_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    pages: dict[str, object] = {**expectations.PAGES}
    del pages["live:list"]
    monkeypatch.setattr(addresses_of, "PAGES", pages)
    with pytest.raises(AssertionError, match=r"PAGES .*live:list"):
        test_pages.test_each_address_has_a_row()
    actions = {key: roles for key, roles in expectations.ACTIONS.items() if key != (User, "ban")}
    monkeypatch.setattr(test_actions, "ACTIONS", actions)
    with pytest.raises(AssertionError, match="ACTIONS"):
        test_actions.test_each_action_has_a_row()


def test_each_table_has_rows_of_each_company(world: World) -> None:
    for marks in COMPANIES:
        for model in marked_models():
            rows = world.made[marks.word][model]
            stored = model._default_manager.filter(pk__in=[row.pk for row in rows]).values()
            assert stored and marks.pattern.search(repr(list(stored))), f"{model._meta.label} has no {marks.word}"
