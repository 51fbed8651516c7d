"""What other rooms ask about people: by id, by name, and by the session that a long answer began with."""

import uuid

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client

from tenants import access
from tenants.access import Actor, NotVisible
from tenants.models import User
from tests.tenants.cast import Cast
from tests.tenants.signin.people import (
    OTHER_PASSWORD,
    code_of,
    give_code,
    give_password,
    is_inside,
    with_app,
    with_password,
)

pytestmark = pytest.mark.django_db


def signed_in(user: User) -> tuple[Client, str]:
    client = Client()
    client.force_login(user)
    return client, str(client.session.session_key)


def test_person_and_companies_are_those_that_the_actor_sees(cast: Cast, operator: User) -> None:
    alice, everyone = Actor.of(cast.alice), Actor.of(operator)
    assert access.person(alice, str(cast.bob.pk)) == access.person_named(alice, "bob") == cast.bob
    for unseen in (str(cast.charlie.pk), str(operator.pk), str(uuid.uuid4()), "nonsense", "\0", ""):
        with pytest.raises(NotVisible):
            access.person(alice, unseen)
    with pytest.raises(NotVisible):
        access.person_named(alice, "charlie")
    assert [one.slug for one in access.companies(alice)] == ["alpha"]
    assert [(one.slug, one.name) for one in access.companies(everyone)] == [("alpha", "Alpha"), ("beta", "Beta")]
    assert access.companies(Actor.of(cast.bob))[0].company_id == str(cast.alpha.pk)
    assert access.companies(Actor("", "")) == []


@pytest.mark.parametrize(
    ("fields", "password", "is_one"),
    [
        ({}, "a password nobody guesses", True),
        ({"is_active": False}, "a password nobody guesses", False),
        ({"is_superuser": False}, "a password nobody guesses", False),
        # Whoever was made without a password cannot sign in before setting one.
        ({}, None, False),
    ],
)
def test_operator_is_one_who_can_sign_in(
    cast: Cast, fields: dict[str, bool], password: str | None, is_one: bool
) -> None:
    assert not access.has_operator()
    row = User(username="first", role=User.Role.OPERATOR, **{"is_superuser": True, "is_staff": True, **fields})
    row.set_password(password)
    row.save()
    assert access.has_operator() is is_one


def test_session_says_who_is_signed_in_now(cast: Cast) -> None:
    client, key = signed_in(cast.alice)
    assert access.person_of_session(key) == cast.alice
    client.post("/admin/logout/")
    assert access.person_of_session(key) is None


@pytest.mark.parametrize("key", ["", "x" * 32, "nonsense"])
def test_unknown_session_is_nobodys(cast: Cast, key: str) -> None:
    assert access.person_of_session(key) is None


def test_trader_and_disabled_person_may_not_enter_by_a_session(cast: Cast) -> None:
    _, traders = signed_in(cast.bob)
    _, key = signed_in(cast.alice)
    assert access.person_of_session(traders) is None
    User.objects.filter(pk=cast.alice.pk).update(is_active=False)
    assert access.person_of_session(key) is None


def test_session_ends_with_the_password_that_it_was_opened_with(cast: Cast) -> None:
    alice = with_password(cast.alice)
    _, key = signed_in(alice)
    assert access.person_of_session(key) == alice
    with_password(alice, OTHER_PASSWORD)
    assert access.person_of_session(key) is None


def test_session_without_the_second_step_is_not_enough_for_who_has_an_app(cast: Cast) -> None:
    alice = with_password(cast.alice)
    _, half = signed_in(alice)
    device, _codes = with_app(alice)
    assert access.person_of_session(half) is None
    client = Client()
    give_password(client, "alice")
    give_code(client, code_of(device.key))
    assert is_inside(client)
    whole = str(client.session.session_key)
    assert access.person_of_session(whole) == alice
    # Whoever loses the app has to set up another one first.
    device.delete()
    with_app(alice)
    assert access.person_of_session(whole) is None
    assert SessionStore(whole).exists(whole)
