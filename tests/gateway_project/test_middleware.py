"""Forms that no browser sends."""

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient, Client
from pytest_django import Settings

pytestmark = pytest.mark.django_db
FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize("path", ["/admin/login/", "/password-reset/", "/i18n/setlang/", "/nothing/there/"])
@pytest.mark.parametrize(("charset", "is_refused"), [("utf-16", True), ("latin-1", True), ("UTF-8", False)])
async def test_form_in_another_encoding_is_refused_and_breaks_nothing(
    path: str, charset: str, is_refused: bool
) -> None:
    content_type = f"{FORM}; charset={charset}"
    plain = await sync_to_async(Client(enforce_csrf_checks=True).post)(path, "a=b", content_type=content_type)
    served = await AsyncClient(enforce_csrf_checks=True).post(path, "a=b", content_type=content_type)
    for answer in (plain, served):
        assert answer.status_code == 400 if is_refused else answer.status_code in (403, 404)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_health_check_is_answered_by_the_address_of_the_process(path: str, settings: Settings) -> None:
    """In plain HTTP, and by no public name: an orchestrator knows only the address."""
    settings.ALLOWED_HOSTS = ["gateway.example"]
    settings.SECURE_SSL_REDIRECT = True
    served = await AsyncClient().get(path, headers={"Host": "10.1.2.3:8000"})
    plain = await sync_to_async(Client().get)(path, headers={"Host": "10.1.2.3:8000"})
    for answer in (served, plain):
        assert answer.status_code in (200, 503)
    assert (await AsyncClient().get("/version", headers={"Host": "10.1.2.3:8000"})).status_code == 400
