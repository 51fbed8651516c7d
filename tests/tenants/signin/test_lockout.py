"""Who guesses is held back: this name, from this address, for a quarter of an hour."""

import datetime
import json
from types import SimpleNamespace

import pytest
from asgiref.sync import sync_to_async
from axes.models import AccessAttempt
from django.contrib.auth import hashers
from django.contrib.auth.hashers import MD5PasswordHasher
from django.db import connections
from django.db.models import F
from django.test import AsyncClient, Client, RequestFactory
from pytest_django import Settings
from structlog.testing import capture_logs

from tenants import attempts
from tenants.models import User
from tenants.signin.lockout import client_network
from tests.tenants.cast import Cast
from tests.tenants.signin.people import (
    OTHER_PASSWORD,
    PASSWORD,
    code_of,
    give_code,
    give_password,
    is_inside,
    with_app,
    with_password,
    wrong_code,
)

pytestmark = pytest.mark.django_db
LIMIT = 5
COOL_OFF = 15 * 60


@pytest.fixture
def alice(cast: Cast) -> User:
    return with_password(cast.alice)


def guess(times: int, username: str = "alice", **extra: str) -> list[int]:
    return [give_password(Client(), username, f"guess {n}", **extra).status_code for n in range(times)]


def rewind(seconds: float) -> None:
    AccessAttempt.objects.update(attempt_time=F("attempt_time") - datetime.timedelta(seconds=seconds))


def test_four_wrong_passwords_lock_nobody_out(alice: User) -> None:
    assert guess(LIMIT - 1) == [200] * 4
    assert give_password(Client(), "alice").status_code == 302


def test_fifth_wrong_password_locks_out_and_says_until_when(alice: User) -> None:
    assert guess(LIMIT) == [200, 200, 200, 200, 429]
    answer = give_password(Client(), "alice")
    assert answer.status_code == 429
    assert COOL_OFF - 30 <= int(answer["Retry-After"]) <= COOL_OFF
    assert "closed for 15 minutes" in answer.content.decode()


def test_right_password_starts_the_count_afresh(alice: User) -> None:
    guess(LIMIT - 1)
    give_password(Client(), "alice")
    assert guess(LIMIT - 1) == [200] * 4


def test_lock_out_ends_after_a_quarter_of_an_hour_and_not_before(alice: User) -> None:
    guess(LIMIT)
    rewind(COOL_OFF - 30)
    answer = give_password(Client(), "alice")
    assert answer.status_code == 429
    assert 1 <= int(answer["Retry-After"]) <= 30
    rewind(31)
    assert give_password(Client(), "alice").status_code == 302


def test_attempts_during_a_lock_out_do_not_put_off_its_end(alice: User) -> None:
    guess(LIMIT)
    rewind(COOL_OFF - 30)
    assert guess(3) == [429] * 3
    rewind(31)
    assert give_password(Client(), "alice").status_code == 302


def test_stranger_locks_the_user_out_from_the_strangers_address_only(alice: User) -> None:
    guess(LIMIT, REMOTE_ADDR="198.51.100.7")
    assert give_password(Client(), "alice", REMOTE_ADDR="198.51.100.7").status_code == 429
    assert give_password(Client(), "alice", REMOTE_ADDR="203.0.113.9").status_code == 302


def test_other_addresses_of_the_same_network_do_not_help_the_guesser(alice: User) -> None:
    attempts = [give_password(Client(), "alice", "wrong", REMOTE_ADDR=f"2001:db8::{n}").status_code for n in range(5)]
    assert attempts[-1] == 429
    assert give_password(Client(), "alice", REMOTE_ADDR="2001:db8::ff").status_code == 429
    assert give_password(Client(), "alice", REMOTE_ADDR="2001:db8:0:1::1").status_code == 302


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("", None),
        ("unix", None),
    ],
)
def test_attempts_are_counted_by_what_one_customer_has(rf: RequestFactory, address: str, network: str | None) -> None:
    assert client_network(rf.get("/", REMOTE_ADDR=address)) == network


def test_colleague_at_the_same_address_is_not_locked_out(alice: User, operator: User) -> None:
    guess(LIMIT)
    assert give_password(Client(), "operator").status_code == 302


def test_header_of_the_client_does_not_change_the_address(alice: User) -> None:
    attempts = [
        give_password(Client(), "alice", "wrong", HTTP_X_FORWARDED_FOR=f"198.51.100.{n}").status_code for n in range(5)
    ]
    assert attempts[-1] == 429


def test_other_browser_names_do_not_help_the_guesser(alice: User) -> None:
    attempts = [give_password(Client(), "alice", "wrong", HTTP_USER_AGENT=f"b{n}").status_code for n in range(5)]
    assert attempts[-1] == 429


def test_unknown_name_is_locked_out_alike(alice: User) -> None:
    assert guess(LIMIT, "nobody") == [200, 200, 200, 200, 429]


def test_wrong_codes_lock_out_too(alice: User, settings: Settings) -> None:
    settings.OTP_TOTP_THROTTLE_FACTOR = 0
    device, _ = with_app(alice)
    client = Client()
    give_password(client, "alice")
    answers = [give_code(client, wrong_code(device.key)).status_code for _ in range(LIMIT)]
    assert answers == [200, 200, 200, 200, 429]
    answer = give_code(client, code_of(device.key))
    assert answer.status_code == 429
    assert int(answer["Retry-After"]) > COOL_OFF - 30
    assert client.get("/admin/login/code/").status_code == 429
    assert not is_inside(client)


def test_right_password_does_not_forgive_wrong_codes(alice: User, settings: Settings) -> None:
    settings.OTP_TOTP_THROTTLE_FACTOR = 0
    device, _ = with_app(alice)
    answers = []
    for _ in range(LIMIT):
        client = Client()
        give_password(client, "alice")
        answers.append(give_code(client, wrong_code(device.key)).status_code)
    assert answers[-1] == 429


@pytest.mark.parametrize(
    ("path", "field"),
    [("/admin/password_change/", "old_password"), ("/admin/security/set-up/", "password")],
)
def test_whoever_has_a_session_cannot_guess_the_password_with_it(alice: User, path: str, field: str) -> None:
    client = Client()
    client.force_login(alice)
    client.get(path)
    fields = {field: "guess", "new_password1": OTHER_PASSWORD, "new_password2": OTHER_PASSWORD, "code": "123456"}
    answers = [client.post(path, fields).status_code for _ in range(LIMIT)]
    assert answers == [200, 200, 200, 200, 429]
    assert client.post(path, {**fields, field: PASSWORD}).status_code == 429
    alice.refresh_from_db()
    assert alice.check_password(PASSWORD)


def test_stranger_who_tries_ever_new_names_has_no_more_passwords_computed(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "time", SimpleNamespace(monotonic=lambda: 1_000.0))
    computed: list[str] = []

    class Hasher(MD5PasswordHasher):
        def encode(self, password: str, salt: str) -> str:
            computed.append(password)
            return super().encode(password, salt)

    # Django computes one for a name that is nobody's too.
    monkeypatch.setattr(hashers, "get_hasher", lambda algorithm="default": Hasher())
    answers = [give_password(Client(), f"nobody{number}", "a guess").status_code for number in range(25)]
    assert answers == [200] * 20 + [429] * 5 and len(computed) == 20
    refused = give_password(Client(), "alice")
    assert (refused.status_code, refused["Retry-After"]) == (429, "2")
    assert give_password(Client(), "alice", REMOTE_ADDR="198.51.100.7").status_code == 302


def test_lock_out_leaves_sessions_and_terminals_alone(alice: User) -> None:
    client = Client()
    client.force_login(alice)
    guess(LIMIT)
    assert is_inside(client)
    body = json.dumps({"api_key": "gwk_abcdefgh_" + "a" * 43})
    answer = Client().post("/api/v1/tokens", body, content_type="application/json")
    assert answer.json()["code"] == "api_key_invalid"


def test_lock_out_is_logged_once_with_ids_only(alice: User) -> None:
    with capture_logs() as logs:
        guess(LIMIT + 2)
    events = [entry for entry in logs if entry["event"] == "sign_in_locked_out"]
    assert len(events) == 1
    assert (events[0]["user_id"], events[0]["address"]) == (str(alice.pk), "127.0.0.1")
    assert "alice" not in str(logs) and "guess" not in str(logs)


def test_what_is_kept_of_a_guess_holds_no_password_and_no_code(alice: User, settings: Settings) -> None:
    settings.OTP_TOTP_THROTTLE_FACTOR = 0
    device, _ = with_app(alice)
    client = Client()
    give_password(client, "alice", "a secret guess")
    give_password(client, "alice")
    code = wrong_code(device.key)
    give_code(client, code)
    kept = "".join(f"{row.get_data}{row.post_data}" for row in AccessAttempt.objects.all())
    assert kept and "secret" not in kept and code not in kept


@pytest.mark.django_db(transaction=True)
async def test_lock_out_works_under_asgi() -> None:
    statuses = []
    for n in range(LIMIT):
        answer = await AsyncClient().post("/admin/login/", {"username": "nobody", "password": f"guess {n}"})
        statuses.append(answer.status_code)
    # The thread of the views has a connection of its own.
    await sync_to_async(connections.close_all)()
    assert statuses == [200, 200, 200, 200, 429]
