"""Invitations: a link by mail, used once, within its time, by the person it was sent to."""

import logging
import re
import time
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from django.core import mail, signing
from django.core.mail.backends.base import BaseEmailBackend
from django.test import Client, RequestFactory
from django.utils import translation
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings
from structlog.testing import capture_logs

from tenants.models import AuditEntry, User
from tenants.signin.invitations import NotInvitable, invitation_tokens, send_invitation
from tenants.signin.passwords import InvitationView
from tests.tenants.cast import Cast
from tests.tenants.signin.people import OTHER_PASSWORD, PASSWORD, is_inside, with_password

pytestmark = pytest.mark.django_db
BASE = "https://gateway.example"
WEEK = 7 * 24 * 3_600


class BrokenBackend(BaseEmailBackend):
    def send_messages(self, email_messages: Any) -> int:
        raise ConnectionRefusedError("mail.example:587 refuses")


@pytest.fixture
def bob(cast: Cast) -> User:
    return invitable(cast.bob)


def invitable(user: User) -> User:
    user.set_unusable_password()
    user.email = f"{user.username}@alpha.example"
    user.save()
    return user


@pytest.fixture
def invite(django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks) -> Any:
    """Sends an invitation and gives the path of its link."""

    def send(user: User, **options: Any) -> str:
        with django_capture_on_commit_callbacks(execute=True):
            send_invitation(user, **({"inviter_name": "Alice", "base_url": BASE} | options))
        link = re.search(r"https?://[^/\s]+(/invitations/\S+)", str(mail.outbox[-1].body))
        assert link is not None
        return link[1]

    return send


def open_link(client: Client, path: str) -> Any:
    """The page behind the link, with the redirect that takes the token out of the address."""
    return client.get(path, follow=True)


def choose(client: Client, path: str, password: str = PASSWORD) -> Any:
    """Opens the link and sends the form."""
    opened = client.get(path)
    target = opened["Location"] if opened.status_code == 302 else path
    return client.post(target, {"new_password1": password, "new_password2": password})


def assert_dead(client: Client, path: str) -> None:
    answer = open_link(client, path)
    assert answer.status_code == 410
    assert "This link does not work" in answer.content.decode()
    assert "new_password1" not in answer.content.decode()


def test_trader_chooses_a_password_and_is_told_what_is_next(bob: User, invite: Any) -> None:
    client = Client()
    path = invite(bob)
    assert "bob" in open_link(client, path).content.decode()
    answer = client.get(choose(client, path)["Location"])
    text = answer.content.decode()
    assert "<strong>bob</strong>" in text and "API key" in text and "ws://testserver/ws/mt5" in text
    bob.refresh_from_db()
    assert bob.check_password(PASSWORD)
    assert "_auth_user_id" not in client.session
    assert AuditEntry.objects.get(action="invitation_accepted").object_id == str(bob.pk)


def test_trader_is_told_the_public_address(bob: User, invite: Any, settings: Settings) -> None:
    settings.GATEWAY_PUBLIC_URL = "https://stream.example"
    client = Client()
    path = invite(bob)
    assert "https://stream.example/invitations/" in str(mail.outbox[0].body)
    assert "wss://stream.example/ws/mt5" in client.get(choose(client, path)["Location"]).content.decode()


def test_company_admin_lands_in_the_admin(cast: Cast, invite: Any) -> None:
    client = Client()
    assert choose(client, invite(invitable(cast.alice)))["Location"] == "/admin/"
    assert is_inside(client)


def test_company_admin_sets_up_an_app_first_where_it_is_required(cast: Cast, invite: Any, settings: Settings) -> None:
    settings.GATEWAY_TWO_FACTOR = "required"
    client = Client()
    assert choose(client, invite(invitable(cast.alice)))["Location"] == "/admin/login/set-up/"
    assert not is_inside(client)


def test_whoever_was_signed_in_at_this_browser_is_so_no_longer(bob: User, operator: User, invite: Any) -> None:
    client = Client()
    client.force_login(operator)
    choose(client, invite(bob))
    assert not is_inside(client)


def test_token_does_not_stay_in_the_address(bob: User, invite: Any) -> None:
    path = invite(bob)
    token = path.split("/")[3]
    answer = Client().get(path)
    assert token not in answer["Location"]
    assert answer["Cache-Control"] and "no-store" in answer["Cache-Control"]
    assert answer["Referrer-Policy"] == "same-origin"


def test_link_works_once(bob: User, invite: Any) -> None:
    path = invite(bob)
    slow = Client()
    form = open_link(slow, path).request["PATH_INFO"]
    assert choose(Client(), path).status_code == 302
    assert_dead(Client(), path)
    # The form was open already when somebody else sent theirs.
    late = slow.post(form, {"new_password1": OTHER_PASSWORD, "new_password2": OTHER_PASSWORD})
    assert late.status_code == 410
    bob.refresh_from_db()
    assert bob.check_password(PASSWORD)


def test_second_of_two_answers_at_once_is_refused(bob: User, invite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save = InvitationView.form_valid

    def overtaken(view: InvitationView, form: Any) -> Any:
        """The link was good when the form came, and was used before it is saved."""
        with_password(User.objects.get(pk=bob.pk), OTHER_PASSWORD)
        return save(view, form)

    monkeypatch.setattr(InvitationView, "form_valid", overtaken)
    assert choose(Client(), invite(bob)).status_code == 410
    bob.refresh_from_db()
    assert bob.check_password(OTHER_PASSWORD)


def test_nobody_with_a_password_is_invited_by_any_token(bob: User) -> None:
    with_password(bob)
    assert not invitation_tokens.check_token(bob, invitation_tokens.make_token(bob))


def test_refused_password_leaves_the_link_alive(bob: User, invite: Any) -> None:
    path = invite(bob)
    assert choose(Client(), path, "short").status_code == 200
    assert choose(Client(), path).status_code == 302


@pytest.mark.parametrize(("age", "works"), [(WEEK, True), (WEEK + 1, False)])
def test_link_works_for_seven_days(bob: User, invite: Any, monkeypatch: Any, age: int, works: bool) -> None:
    start = int(time.time())
    monkeypatch.setattr(signing, "time", SimpleNamespace(time=lambda: start))
    path = invite(bob)
    monkeypatch.setattr(signing, "time", SimpleNamespace(time=lambda: start + age))
    assert (open_link(Client(), path).status_code == 200) is works


def test_new_invitation_makes_the_older_one_void(bob: User, invite: Any) -> None:
    old = invite(bob)
    new = invite(bob)
    assert_dead(Client(), old)
    assert choose(Client(), new).status_code == 302


def disable(user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def move_mailbox(user: User) -> None:
    User.objects.filter(pk=user.pk).update(email="other@alpha.example")


@pytest.mark.parametrize("change", [disable, move_mailbox, with_password, lambda user: user.delete()])
def test_link_is_dead_after_a_change_of_the_person(bob: User, invite: Any, change: Any) -> None:
    path = invite(bob)
    change(bob)
    assert_dead(Client(), path)


def test_wrong_links_are_dead_alike(cast: Cast, bob: User, invite: Any) -> None:
    path = invite(bob)
    other = invite(invitable(cast.charlie))
    mixed = "/".join([*path.split("/")[:3], *other.split("/")[3:]])
    cut = path[:-2] + "/"
    for dead in (mixed, cut, "/invitations/x/y/", "/invitations/x/set-password/", "/invitations/é/ü/"):
        assert_dead(Client(), dead)
    assert not invitation_tokens.check_token(bob, None)
    assert not invitation_tokens.check_token(bob, "")


def test_link_of_a_password_reset_is_no_invitation(bob: User, invite: Any) -> None:
    path = invite(bob)
    assert Client().get(path.replace("/invitations/", "/password-reset/")).status_code == 410


@pytest.mark.parametrize("field", [{"email": ""}, {"is_active": False}, {"password": "md5$a$b"}])
def test_inviter_is_told_who_cannot_be_invited(bob: User, field: dict[str, Any]) -> None:
    User.objects.filter(pk=bob.pk).update(**field)
    with pytest.raises(NotInvitable, match="bob"):
        send_invitation(User.objects.get(pk=bob.pk), inviter_name="Alice", base_url=BASE)
    assert mail.outbox == []


def test_mail_goes_out_on_commit_only(bob: User) -> None:
    # The test's own transaction is never committed.
    send_invitation(bob, inviter_name="Alice", base_url=BASE)
    assert mail.outbox == []


@pytest.mark.parametrize(
    ("language", "subject", "words"),
    [
        ("en", "Your account for Alpha at Trading gateway", "Alice <b> & Co has made an account"),
        ("id", "Akun Anda untuk Alpha di Trading gateway", "Alice <b> & Co telah membuat akun"),
    ],
)
def test_mail_is_in_the_language_of_the_inviter(
    bob: User, invite: Any, language: str, subject: str, words: str
) -> None:
    with translation.override(language):
        invite(bob, inviter_name="Alice <b> & Co")
    sent = mail.outbox[0]
    assert isinstance(sent, mail.EmailMultiAlternatives)
    assert (sent.subject, sent.to) == (subject, ["bob@alpha.example"])
    assert words in str(sent.body) and "7 " in str(sent.body)
    html = str(sent.alternatives[0][0])
    assert "Alice &lt;b&gt; &amp; Co" in html and f'lang="{language}"' in html


def test_inviter_is_told_when_the_mail_server_refuses(
    bob: User,
    settings: Settings,
    rf: RequestFactory,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.BrokenBackend"
    said: list[str] = []
    monkeypatch.setattr("django.contrib.messages.error", lambda _request, text: said.append(text))
    with capture_logs() as logs, django_capture_on_commit_callbacks(execute=True):
        send_invitation(bob, inviter_name="Alice", request=rf.get("/"))
    assert said == ["The invitation of bob could not be sent: check the address, then invite again."]
    failed = [entry for entry in logs if entry["event"] == "mail_failed"]
    assert failed[0]["user_id"] == str(bob.pk)
    assert "bob@" not in str(logs) and "mail.example" not in str(logs)


def test_log_does_not_hold_the_token(bob: User, invite: Any) -> None:
    lines: list[str] = []
    formatter = next(
        handler.formatter
        for handler in logging.getLogger().handlers
        if isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter)
    )

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(formatter.format(record))

    handler = Lines()
    path = invite(bob)
    choose(Client(), path)
    logging.getLogger("django.request").addHandler(handler)
    try:
        assert_dead(Client(), path)
    finally:
        logging.getLogger("django.request").removeHandler(handler)
    assert "/invitations/" in lines[0]
    assert path.split("/")[3] not in "".join(lines)


def test_mailbox_gets_five_invitations_at_once_and_another_mailbox_its_own(cast: Cast, bob: User, invite: Any) -> None:
    for _ in range(5):
        living = invite(bob)
    bob.email = bob.email.upper()
    with pytest.raises(NotInvitable, match="wait 2 min, then invite bob again"):
        invite(bob)
    assert len(mail.outbox) == 5
    # Nor is the link void that has been sent.
    assert open_link(Client(), living).status_code == 200
    invite(invitable(cast.charlie))
    assert len(mail.outbox) == 6


def test_company_sends_fifty_invitations_at_once_and_another_company_its_own(
    cast: Cast, bob: User, invite: Any
) -> None:
    for number in range(50):
        bob.email = f"n{number}@elsewhere.example"
        bob.save()
        invite(bob)
    bob.email = "n50@elsewhere.example"
    bob.save()
    with pytest.raises(NotInvitable, match="wait 1 min"):
        invite(bob)
    invite(invitable(cast.charlie))
    assert len(mail.outbox) == 51
