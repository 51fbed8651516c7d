"""POST /api/v1/tokens: a token for a good key, problem+json for everything else."""

import datetime
import json
import time
from io import BytesIO
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.db import OperationalError
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from tenants import access, views
from tenants.models import Company
from tenants.tokens import default_keyring
from tests.tenants import acts
from tests.tenants.cast import Cast, make_trader

pytestmark = pytest.mark.django_db
PATH = "/api/v1/tokens"
UNKNOWN_KEY = "gwk_abcdefgh_" + "a" * 43


def post(body: bytes | str | dict[str, Any], **extra: Any) -> Any:
    data = json.dumps(body) if isinstance(body, dict) else body
    return Client().post(PATH, data, content_type="application/json", **extra)


def assert_problem(answer: Any, status: int, code: str, *secrets: str) -> None:
    body = json.loads(answer.content)
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["Cache-Control"] == "no-store"
    assert set(body) == {"type", "title", "status", "detail", "code"}
    for secret in secrets:
        assert secret not in answer.content.decode()


def test_trader_gets_a_token_for_a_key(cast: Cast) -> None:
    answer = post({"api_key": acts.new_key(cast.bob, "VPS")})
    body = answer.json()
    assert answer.status_code == 201
    assert answer["Cache-Control"] == "no-store"
    claims = default_keyring().verify(body["token"], now=time.time())
    assert claims.user_id == body["user_id"] == str(cast.bob.pk)
    assert claims.company_id == str(cast.alpha.pk)
    assert claims.expires_at == body["expires_at"]
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 3600)


def test_revoked_key_gets_no_token(cast: Cast) -> None:
    key = acts.new_key(cast.bob, "VPS")
    access.revoke_api_keys(acts.SYSTEM, cast.bob.api_keys.all())
    assert_problem(post({"api_key": key}), 401, "api_key_invalid", key, key[:12])


def test_disabled_user_gets_no_token(cast: Cast) -> None:
    key = acts.new_key(cast.bob, "VPS")
    acts.disable(str(cast.bob.pk))
    assert_problem(post({"api_key": key}), 401, "api_key_invalid", key, key[:12])
    acts.enable(str(cast.bob.pk))
    assert post({"api_key": key}).status_code == 201


def test_user_of_a_suspended_company_gets_no_token_and_the_other_company_does(cast: Cast) -> None:
    key, other = acts.new_key(cast.bob, "VPS"), acts.new_key(cast.charlie, "VPS")
    acts.suspend(str(cast.alpha.pk))
    assert_problem(post({"api_key": key}), 403, "company_suspended", key, key[:12])
    assert post({"api_key": other}).status_code == 201
    acts.resume(str(cast.alpha.pk))
    assert post({"api_key": key}).status_code == 201


def test_user_of_a_company_whose_grace_is_over_gets_no_token(cast: Cast) -> None:
    key = acts.new_key(cast.bob, "VPS")
    over = timezone.now() - datetime.timedelta(days=3, seconds=1)
    Company.objects.filter(pk=cast.alpha.pk).update(paid_until=over)
    assert_problem(post({"api_key": key}), 402, "payment_required", key)


def test_key_that_may_only_read_gets_no_token_for_the_stream(cast: Cast) -> None:
    key = acts.new_key(cast.bob, "VPS", scope="read")
    assert_problem(post({"api_key": key}), 403, "scope_missing", key, key[:12])
    acts.suspend(str(cast.alpha.pk))
    assert_problem(post({"api_key": key}), 403, "scope_missing", key, key[:12])


def test_unknown_key_and_operators_key_look_alike(cast: Cast, operator: Any) -> None:
    key = acts.new_key(operator, "VPS")
    unknown, operators = post({"api_key": UNKNOWN_KEY}), post({"api_key": key})
    assert_problem(unknown, 401, "api_key_invalid", UNKNOWN_KEY)
    assert unknown.content == operators.content
    assert unknown["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "body",
    [
        b" ",
        b"null",
        b"[]",
        b"{}",
        b'{"api_key": 1}',
        b'{"api_key": null}',
        b'{"api_key": "gwk_secret',
        b'{"api_key": "gwk_secret\xff"}',
        b'{"api_key": "\\ud800"}',
        b"\xff\xfe",
        b"[" * 4_000,
        b'{"a":' + b"[" * 4_000,
        b'{"a":' * 800,
    ],
    ids=lambda body: repr(body[:16]),
)
def test_malformed_body_is_refused(body: bytes) -> None:
    assert_problem(post(body), 400, "malformed", "gwk_secret")


@pytest.mark.parametrize("key", ["", "\u00e9" * 20, "\x00", "gwk_abcdefgh_" + "\u0661" * 43, "\U0001f511"])
def test_key_of_strange_characters_is_unknown(cast: Cast, key: str) -> None:
    assert_problem(post({"api_key": key}), 401, "api_key_invalid")


def test_body_of_the_limit_is_read_and_one_byte_more_is_not(cast: Cast) -> None:
    body = json.dumps({"api_key": acts.new_key(cast.bob, "VPS")})
    assert post(body.ljust(4_096)).status_code == 201
    assert_problem(post(body.ljust(4_097)), 413, "too_large")


@pytest.mark.parametrize("length", ["abc", "-1", "1.5", "+5", "5,5", " ", "٣", "9" * 19, "9" * 5_000])
def test_malformed_length_is_refused(length: str) -> None:
    assert_problem(post({"api_key": UNKNOWN_KEY}, CONTENT_LENGTH=length), 400, "malformed", UNKNOWN_KEY)


def exchange_without_length(body: bytes, *headers: tuple[bytes, bytes]) -> HttpResponse:
    """As the server hands over a chunked body: all of it, and no header that says how much."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "headers": [(b"content-type", b"application/json"), *headers],
        "client": ("127.0.0.1", 1),
    }
    return views.exchange_api_key(ASGIRequest(scope, BytesIO(body)))


def test_body_without_a_length_is_bounded_too(cast: Cast) -> None:
    body = json.dumps({"api_key": acts.new_key(cast.bob, "VPS")}).encode()
    assert exchange_without_length(body).status_code == 201
    assert exchange_without_length(body.ljust(4_096)).status_code == 201
    assert_problem(exchange_without_length(body.ljust(4_097)), 413, "too_large")
    assert_problem(exchange_without_length(body.ljust(4_097), (b"content-length", b"5")), 413, "too_large")


def test_empty_body_is_refused() -> None:
    assert_problem(exchange_without_length(b""), 400, "malformed")


def test_empty_length_counts_as_none(cast: Cast) -> None:
    body = json.dumps({"api_key": acts.new_key(cast.bob, "VPS")}).encode()
    assert exchange_without_length(body, (b"content-length", b"")).status_code == 201


@pytest.mark.parametrize("method", ["get", "put", "delete", "patch", "options"])
def test_another_method_is_refused(method: str) -> None:
    answer = getattr(Client(), method)(PATH)
    assert_problem(answer, 405, "method_not_allowed")
    assert answer["Allow"] == "POST"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"])
def test_another_content_type_is_refused(content_type: str) -> None:
    answer = Client().post(PATH, UNKNOWN_KEY.encode(), content_type=content_type)
    assert_problem(answer, 415, "unsupported_media_type", UNKNOWN_KEY)


def test_content_type_may_name_a_charset(cast: Cast) -> None:
    body = json.dumps({"api_key": acts.new_key(cast.bob, "VPS")})
    assert Client().post(PATH, body, content_type="application/json; charset=utf-8").status_code == 201


def test_page_of_another_site_needs_no_csrf_token_as_no_cookie_counts(cast: Cast) -> None:
    body = json.dumps({"api_key": acts.new_key(cast.bob, "VPS")})
    client = Client(enforce_csrf_checks=True)
    assert client.post(PATH, body, content_type="application/json").status_code == 201


def test_database_that_is_away_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_key: str) -> None:
        raise OperationalError("no route to 10.0.0.7")

    monkeypatch.setattr(views, "usable_api_key", fail)
    answer = post({"api_key": UNKNOWN_KEY})
    assert_problem(answer, 503, "identity_unavailable", "10.0.0.7", UNKNOWN_KEY)
    assert answer["Retry-After"] == "5"


def test_wrong_attempts_from_one_address_are_held_back(cast: Cast, settings: Settings) -> None:
    settings.GATEWAY_TOKEN_EXCHANGE_RATE_LIMIT = 0.4
    keys = [f"gwk_{number:08d}_{'a' * 43}" for number in range(3)]
    assert [post({"api_key": key}).status_code for key in keys] == [401, 401, 429]
    answer = post({"api_key": keys[0]})
    assert_problem(answer, 429, "rate_limited", keys[0])
    assert 1 <= int(answer["Retry-After"]) <= 3
    assert post({"api_key": acts.new_key(cast.bob, "VPS")}, REMOTE_ADDR="10.0.0.2").status_code == 201


def test_first_attempt_passes_at_the_smallest_rate(cast: Cast, settings: Settings) -> None:
    settings.GATEWAY_TOKEN_EXCHANGE_RATE_LIMIT = 0.01
    key = acts.new_key(cast.bob, "VPS")
    assert [post({"api_key": key}).status_code for _ in range(2)] == [201, 429]


def test_wrong_attempts_on_one_key_from_many_addresses_are_held_back(settings: Settings) -> None:
    settings.GATEWAY_TOKEN_EXCHANGE_RATE_LIMIT = 0.4
    attempts = [post({"api_key": UNKNOWN_KEY}, REMOTE_ADDR=f"10.0.0.{n}").status_code for n in range(3)]
    assert attempts == [401, 401, 429]


def test_address_that_is_held_back_does_not_use_up_the_attempts_of_a_key(cast: Cast, settings: Settings) -> None:
    settings.GATEWAY_TOKEN_EXCHANGE_RATE_LIMIT = 0.4
    key = acts.new_key(make_trader("dora", cast.beta), "VPS")
    wrong = key[:13] + "a" * 43
    for _ in range(2):
        post({"api_key": UNKNOWN_KEY})
    assert [post({"api_key": wrong}).status_code for _ in range(5)] == [429] * 5
    assert post({"api_key": key}, REMOTE_ADDR="10.0.0.2").status_code == 201
