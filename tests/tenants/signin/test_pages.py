"""Languages, headers and the look of the pages."""

import logging
import re
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from django.conf import settings as product
from django.test import Client

from gateway_project.logs import _without_link_tokens
from tenants.models import User
from tests.tenants.cast import Cast

FOLDER = Path(product.BASE_DIR) / "locale" / "id" / "LC_MESSAGES"
PUBLIC = ["/admin/login/", "/password-reset/", "/password-reset/sent/", "/password-reset/done/", "/invitations/x/y/"]


def texts_of(string: object) -> list[str]:
    return list(string) if isinstance(string, tuple | list) else [str(string)]


def translations(catalog: Catalog) -> dict[tuple[str, ...], list[str]]:
    """Each text, with its plural where it has one, and what stands for it."""
    return {tuple(texts_of(message.id)): texts_of(message.string) for message in catalog if message.id}


def placeholders(text: str) -> list[str]:
    return sorted(re.findall(r"%\(\w+\)[sd]", text))


def test_every_text_is_translated_and_none_is_a_guess() -> None:
    with (FOLDER / "django.po").open("rb") as file:
        catalog = read_po(file, locale="id")
    assert len(catalog) > 50
    open_texts = [
        message.id for message in catalog if message.id and (message.fuzzy or not all(texts_of(message.string)))
    ]
    assert open_texts == [], 'translate these in locale/id/LC_MESSAGES/django.po, then run "make messages"'


def test_translations_keep_what_is_filled_in() -> None:
    with (FOLDER / "django.po").open("rb") as file:
        catalog = read_po(file, locale="id")
    for message in catalog:
        for text in texts_of(message.string) if message.id else []:
            assert placeholders(text) == placeholders(texts_of(message.id)[-1]), message.id


def test_compiled_texts_are_those_of_the_source() -> None:
    with (FOLDER / "django.po").open("rb") as file:
        source = read_po(file, locale="id")
    compiled = read_mo(BytesIO((FOLDER / "django.mo").read_bytes()))
    assert translations(compiled) == translations(source), 'run "make messages"'


@pytest.mark.django_db
@pytest.mark.parametrize("path", PUBLIC)
def test_visitor_reads_each_page_in_either_language(path: str) -> None:
    pages = {}
    for language in ("en", "id"):
        answer = Client().get(path, HTTP_ACCEPT_LANGUAGE=language)
        pages[language] = answer.content.decode()
        assert f'<html lang="{language}"' in pages[language]
        assert 'action="/i18n/setlang/"' in pages[language]
    heading = re.compile(r"<h1>(.*?)</h1>")
    assert heading.findall(pages["en"])[0] != heading.findall(pages["id"])[0]


@pytest.mark.django_db
def test_visitor_switches_the_language_and_stays_on_the_page() -> None:
    client = Client()
    answer = client.post("/i18n/setlang/", {"language": "id", "next": "/password-reset/"})
    assert answer["Location"] == "/password-reset/"
    assert "Lupa kata sandi" in client.get("/password-reset/").content.decode()


@pytest.mark.django_db
def test_admin_switches_the_language_in_the_header(cast: Cast) -> None:
    client = Client()
    client.force_login(cast.alice)
    assert 'id="languages"' in client.get("/admin/").content.decode()
    client.post("/i18n/setlang/", {"language": "id"})
    assert "Perusahaan Alpha" in client.get("/admin/").content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("path", [*PUBLIC, "/admin/", "/admin/security/", "/admin/security/set-up/"])
def test_pages_allow_no_inline_code_and_have_none(operator: User, path: str) -> None:
    client = Client()
    if path.startswith("/admin/") and path != "/admin/login/":
        client.force_login(operator)
    answer = client.get(path)
    policy = dict(part.strip().split(" ", 1) for part in answer["Content-Security-Policy"].split(";"))
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "same-origin"
    text = answer.content.decode()
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", text)


@pytest.mark.django_db
@pytest.mark.parametrize("path", [path for path in PUBLIC if path != "/invitations/x/y/"])
def test_forms_refuse_a_post_from_elsewhere(path: str) -> None:
    assert Client(enforce_csrf_checks=True).post(path, {}).status_code in (403, 405)


@pytest.mark.django_db
def test_session_cookie_is_hidden_from_scripts_and_other_sites(cast: Cast) -> None:
    cast.alice.set_password("a long enough password")
    cast.alice.save()
    answer = Client().post("/admin/login/", {"username": "alice", "password": "a long enough password"})
    cookie = answer.cookies["sessionid"]
    assert (cookie["httponly"], cookie["samesite"], cookie["max-age"]) == (True, "Lax", 12 * 3_600)


def test_token_of_a_link_is_masked_in_any_event() -> None:
    event = {"event": "GET /invitations/abc/s3cret.x_-y/ and /password-reset/abc/t0ken/?a=b", "port": 1}
    masked = _without_link_tokens(logging.getLogger(), "info", event)
    assert masked == {"event": "GET /invitations/abc/***/ and /password-reset/abc/***/?a=b", "port": 1}
