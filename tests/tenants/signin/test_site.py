"""Who is let into the admin: by role and second factor, never by flags."""

import pytest
from django.contrib import admin
from django.test import Client
from pytest_django import Settings

from tenants.console.site import ConsoleSite
from tenants.models import User
from tests.tenants.cast import Cast
from tests.tenants.signin.people import PASSWORD, give_password, is_inside, with_app, with_password

pytestmark = pytest.mark.django_db


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_the_default_admin_is_ours_and_shows_no_package_s_own_pages() -> None:
    assert isinstance(admin.site, ConsoleSite)
    labels = {model._meta.app_label for model in admin.site._registry}
    assert "tenants" in labels
    assert not labels & {"auth", "otp_totp", "otp_static", "axes"}


def test_operator_and_company_admin_are_let_in(cast: Cast, operator: User) -> None:
    assert client_of(operator).get("/admin/").context["title"] == "Operator: all companies"
    assert client_of(cast.alice).get("/admin/").context["title"] == "Company Alpha"


@pytest.mark.parametrize("flags", [{}, {"is_staff": True}, {"is_staff": True, "is_superuser": True}])
def test_trader_is_not_let_in_whatever_the_flags(cast: Cast, flags: dict[str, bool]) -> None:
    User.objects.filter(pk=cast.bob.pk).update(**flags)
    assert not is_inside(client_of(cast.bob))


def test_operator_without_the_flag_of_the_role_is_not_let_in(operator: User) -> None:
    User.objects.filter(pk=operator.pk).update(is_superuser=False)
    assert not is_inside(client_of(operator))


def test_disabled_company_admin_is_not_let_in(cast: Cast) -> None:
    client = client_of(cast.alice)
    assert is_inside(client)
    User.objects.filter(pk=cast.alice.pk).update(is_active=False)
    assert not is_inside(client)


def test_nobody_is_sent_to_the_sign_in_and_back(cast: Cast) -> None:
    client = Client()
    answer = client.get("/admin/tenants/user/")
    assert answer["Location"] == "/admin/login/?next=/admin/tenants/user/"
    with_password(cast.alice)
    sent = {"username": "alice", "password": PASSWORD}
    assert client.post(answer["Location"], sent)["Location"] == "/admin/tenants/user/"


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"])
def test_sign_in_leads_to_no_other_site(cast: Cast, target: str) -> None:
    with_password(cast.alice)
    sent = {"username": "alice", "password": PASSWORD, "next": target}
    assert Client().post("/admin/login/", sent)["Location"] == "/admin/"


def test_trader_with_the_right_password_is_told_where_to_go(cast: Cast) -> None:
    with_password(cast.bob)
    client = Client()
    answer = give_password(client, "bob")
    assert answer.status_code == 200
    assert "API key" in answer.content.decode()
    assert "_auth_user_id" not in client.session


def test_trader_who_is_signed_in_is_told_where_to_go_and_may_sign_out(cast: Cast) -> None:
    client = client_of(cast.bob)
    answer = client.get("/admin/", follow=True)
    assert "You are signed in as bob" in answer.content.decode()
    assert client.post("/admin/logout/")["Location"] == "/admin/login/"
    assert "_auth_user_id" not in client.session


def test_whoever_does_not_exist_and_whoever_has_another_password_get_the_same_answer(cast: Cast) -> None:
    with_password(cast.alice)
    texts = []
    for name in ("alice", "nobody"):
        answer = give_password(Client(), name, "wrong")
        texts.append(str(answer.context["form"].errors))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("mode", ["required", "optional"])
def test_signed_in_without_the_second_step_is_not_enough_for_whoever_has_an_app(
    cast: Cast, settings: Settings, mode: str
) -> None:
    settings.GATEWAY_TWO_FACTOR = mode
    client = client_of(cast.alice)
    assert is_inside(client) is (mode == "optional")
    with_app(cast.alice)
    assert not is_inside(client)
    assert client.get("/admin/tenants/user/").status_code == 302
    assert client.get("/admin/security/").status_code == 302
