"""A forgotten password: a link by mail, and no word on who has an account."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.tokens import default_token_generator
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.http import base36_to_int
from pytest_django import Settings

from tenants.models import User
from tenants.signin import passwords
from tests.tenants.cast import Cast
from tests.tenants.signin.people import OTHER_PASSWORD, PASSWORD, give_password, is_inside, with_app, with_password

pytestmark = pytest.mark.django_db
PATH = "/password-reset/"
MAILBOX = "alice@alpha.example"
_gate = threading.Event()


class GatedBackend(EmailBackend):
    """A mail server that takes nothing before the test says so."""

    def send_messages(self, messages: Any) -> int:
        assert _gate.wait(20)
        return super().send_messages(messages)


@pytest.fixture(autouse=True)
def fresh_limits() -> Iterator[None]:
    passwords.reset_limiter.cache_clear()
    yield
    passwords.reset_limiter.cache_clear()


@pytest.fixture
def alice(cast: Cast) -> User:
    cast.alice.email = MAILBOX
    return with_password(cast.alice)


def ask(email: str = MAILBOX, **extra: Any) -> Any:
    return Client().post(PATH, {"email": email}, **extra)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def mailed_path() -> str:
    """The path of the link in the next mail."""
    until(lambda: bool(mail.outbox))
    link = re.search(r"http://testserver(/password-reset/\S+)", str(mail.outbox[-1].body))
    assert link is not None
    return link[1]


def choose(client: Client, path: str) -> Any:
    opened = client.get(path)
    target = opened["Location"] if opened.status_code == 302 else path
    return client.post(target, {"new_password1": OTHER_PASSWORD, "new_password2": OTHER_PASSWORD})


def test_person_chooses_a_new_password_once(alice: User) -> None:
    assert ask()["Location"] == "/password-reset/sent/"
    path = mailed_path()
    client = Client()
    assert choose(client, path)["Location"] == "/password-reset/done/"
    assert not is_inside(client)
    assert give_password(Client(), "alice", PASSWORD).status_code == 200
    assert give_password(Client(), "alice", OTHER_PASSWORD).status_code == 302
    assert choose(Client(), path).status_code == 410


def test_new_password_ends_sessions_and_does_not_pass_the_second_step(alice: User) -> None:
    client = Client()
    client.force_login(alice)
    assert is_inside(client)
    ask()
    choose(Client(), mailed_path())
    assert not is_inside(client)
    with_app(alice)
    assert give_password(client, "alice", OTHER_PASSWORD)["Location"] == "/admin/login/code/"


def test_answer_is_the_same_for_an_unknown_address(alice: User) -> None:
    answers = []
    for email in (MAILBOX, "nobody@alpha.example"):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            answer = ask(email)
        answers.append((answer.status_code, answer["Location"], answer.content, len(queries)))
    assert answers[0] == answers[1]


def test_answer_does_not_wait_for_the_mail_server(alice: User, settings: Settings) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.GatedBackend"
    _gate.clear()
    try:
        # It would hang here, as the gate is shut.
        assert ask().status_code == 302
        assert mail.outbox == []
    finally:
        _gate.set()
    assert mailed_path()


def disabled(user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def invited(user: User) -> None:
    user.set_unusable_password()
    user.save()


@pytest.mark.parametrize("state", [disabled, invited])
def test_no_mail_goes_to_whoever_may_not_reset(cast: Cast, alice: User, state: Any) -> None:
    state(alice)
    cast.charlie.email = "charlie@beta.example"
    with_password(cast.charlie)
    ask()
    # Mails go out in their order: when this one is there, the other is not to come.
    ask("charlie@beta.example")
    until(lambda: bool(mail.outbox))
    assert [sent.to for sent in mail.outbox] == [["charlie@beta.example"]]


def test_link_is_dead_for_whoever_was_disabled_since(alice: User) -> None:
    ask()
    path = mailed_path()
    opened = Client()
    form = opened.get(path)["Location"]
    disabled(alice)
    assert Client().get(path).status_code == 410
    assert opened.get(form).status_code == 410
    assert choose(Client(), path).status_code == 410


@pytest.mark.parametrize(("age", "works"), [(3_600, True), (3_601, False)])
def test_link_works_for_an_hour(alice: User, monkeypatch: pytest.MonkeyPatch, age: int, works: bool) -> None:
    ask()
    path = mailed_path()
    # The token begins with the second in which it was made.
    sent_at = base36_to_int(path.rstrip("/").rpartition("/")[2].partition("-")[0])
    monkeypatch.setattr(default_token_generator, "_num_seconds", lambda _now: sent_at + age)
    assert (Client().get(path).status_code == 302) is works


def test_mailbox_gets_five_mails_at_once_and_no_sixth(alice: User) -> None:
    for number in range(6):
        assert ask(MAILBOX.upper() if number % 2 else MAILBOX, REMOTE_ADDR=f"198.51.100.{number}").status_code == 302
    until(lambda: len(mail.outbox) == 5)
    with_password(User.objects.create_user("dora", email="dora@alpha.example", company=alice.company))
    ask("dora@alpha.example", REMOTE_ADDR="198.51.100.9")
    until(lambda: len(mail.outbox) == 6)
    assert mail.outbox[-1].to == ["dora@alpha.example"]


def test_address_that_asks_too_often_is_told_to_wait(alice: User) -> None:
    assert [ask(f"n{number}@x.example").status_code for number in range(5)] == [302] * 5
    answer = ask("n6@x.example")
    assert answer.status_code == 429
    assert 1 <= int(answer["Retry-After"]) <= 120


def test_people_who_share_a_mailbox_get_a_mail_each(cast: Cast, alice: User) -> None:
    cast.bob.email = MAILBOX
    with_password(cast.bob)
    ask()
    until(lambda: len(mail.outbox) == 2)
    assert {name for name in ("alice", "bob") for sent in mail.outbox if f" {name}." in str(sent.body)} == {
        "alice",
        "bob",
    }


def test_company_that_enters_anothers_mailbox_for_its_people_does_not_keep_the_owner_out(cast: Cast) -> None:
    for number in range(6):
        with_password(User.objects.create_user(f"alpha.n{number}", email=MAILBOX, company=cast.alpha))
    cast.charlie.email = MAILBOX
    with_password(cast.charlie)
    ask()
    until(lambda: len(mail.outbox) == 6)
    assert sum(" charlie." in str(sent.body) for sent in mail.outbox) == 1


def test_mail_is_in_the_language_of_the_page(alice: User) -> None:
    ask(HTTP_ACCEPT_LANGUAGE="id")
    until(lambda: bool(mail.outbox))
    assert mail.outbox[0].subject == "Kata sandi baru untuk Trading gateway"
