"""What a company admin does with people."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.core import mail
from django.test import Client
from django_otp.plugins.otp_totp.models import TOTPDevice
from pytest_django import DjangoCaptureOnCommitCallbacks

from tenants.models import ActivePair, AuditEntry, MT5Account, SubscriptionTier, User
from tests.tenants.cast import Cast
from tests.tenants.console.conftest import client_of
from tests.tenants.console.forms import errors_of, fill_in, page, run_action
from tests.tenants.rows import Rows

pytestmark = pytest.mark.django_db
PASSWORD = "a long enough password"


@pytest.fixture
def committed(django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks) -> Callable[[], Any]:
    """Around a request whose transaction is to count as committed: invitations go out then."""
    return lambda: django_capture_on_commit_callbacks(execute=True)


def messages_after(client: Client) -> str:
    """What the next page tells."""
    text = client.get("/admin/").content.decode()
    found = re.search(r'<ul class="messagelist">(.*?)</ul>', text, re.DOTALL)
    return found[1] if found else ""


@pytest.mark.parametrize("typed", ["dewi", "alpha.dewi", " dewi "])
def test_company_admin_invites_a_user_whose_name_gets_the_prefix(
    cast: Cast, alice_client: Client, committed: Callable[[], Any], typed: str
) -> None:
    page_text = alice_client.get(page(User, "add")).content.decode()
    assert '<span class="console-prefix">alpha.</span>' in page_text
    with committed():
        answer = fill_in(alice_client, page(User, "add"), username=typed, email="dewi@alpha.example", first_name="Dewi")
    dewi = User.objects.get(email="dewi@alpha.example")
    assert (dewi.username, dewi.company, dewi.role, dewi.is_staff) == ("alpha.dewi", cast.alpha, "trader", False)
    assert answer["Location"] == page(User, "change", dewi.pk)
    assert not dewi.has_usable_password()
    [invitation] = mail.outbox
    assert invitation.to == ["dewi@alpha.example"] and "/invitations/" in invitation.body


def test_user_with_a_password_gets_no_invitation(cast: Cast, alice_client: Client) -> None:
    fill_in(alice_client, page(User, "add"), username="dewi", password1=PASSWORD, password2=PASSWORD)
    assert User.objects.get(username="alpha.dewi").check_password(PASSWORD)
    assert mail.outbox == []


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"username": "dewi"}, "The invitation goes to this address"),
        ({"username": "alpha.", "email": "d@x.example"}, "Enter a name after"),
        ({"username": "dewi", "password1": PASSWORD, "password2": "another"}, "The two passwords differ"),
        ({"username": "dewi", "password1": "short", "password2": "short"}, "too short"),
        ({"username": "DEWI.X y", "email": "d@x.example"}, "valid username"),
        ({"username": "x" * 146, "email": "d@x.example"}, "at most 150 characters"),
        ({"username": "dewi", "email": "d@x.example", "pairs": "A" * 33}, "too long for a symbol"),
        ({"username": "dewi", "email": "d@x.example", "pairs": ",".join(f"P{n}" for n in range(21))}, "21 pairs"),
    ],
)
def test_company_admin_is_told_what_is_wrong_and_nothing_is_saved(
    cast: Cast, alice_client: Client, fields: dict[str, str], complaint: str
) -> None:
    answer = fill_in(alice_client, page(User, "add"), **fields)
    assert complaint in errors_of(answer)
    assert User.objects.count() == 3 and mail.outbox == []


def test_taken_name_is_refused_in_any_spelling(cast: Cast, alice_client: Client) -> None:
    fields = {"password1": PASSWORD, "password2": PASSWORD}
    fill_in(alice_client, page(User, "add"), username="dewi", **fields)
    assert "already exists" in errors_of(fill_in(alice_client, page(User, "add"), username="Dewi", **fields))


def test_company_admin_chooses_pairs_as_a_simple_list(cast: Cast, alice_client: Client) -> None:
    path = page(User, "change", cast.bob.pk)
    fill_in(alice_client, path, pairs="EURUSD, XAUUSD.m\nGBPUSD;EURUSD,, ")
    assert list(cast.bob.active_pairs.values_list("symbol", flat=True)) == ["EURUSD", "XAUUSD.m", "GBPUSD"]
    fill_in(alice_client, path, pairs="XAUUSD.m")
    assert list(cast.bob.active_pairs.values_list("symbol", flat=True)) == ["XAUUSD.m"]
    fill_in(alice_client, path, pairs="")
    assert not cast.bob.active_pairs.exists()


def test_pairs_at_the_limit_are_taken_and_one_above_is_not(cast: Cast, alice_client: Client) -> None:
    path = page(User, "change", cast.bob.pk)
    names = [f"PAIR{number}" for number in range(20)]
    assert fill_in(alice_client, path, pairs=", ".join(names)).status_code == 302
    assert "21 pairs; the plan has 20" in errors_of(fill_in(alice_client, path, pairs=", ".join([*names, "ONE"])))
    assert cast.bob.active_pairs.count() == 20


def test_pairs_over_the_limit_of_a_smaller_plan_do_not_stop_other_changes(cast: Cast, alice_client: Client) -> None:
    ActivePair.objects.bulk_create(ActivePair(user=cast.bob, symbol=f"P{number}") for number in range(4))
    SubscriptionTier.objects.update(pair_limit=2)
    path = page(User, "change", cast.bob.pk)
    assert fill_in(alice_client, path, first_name="Bobby").status_code == 302
    assert fill_in(alice_client, path, pairs="P0,P1,P3").status_code == 302
    assert "the plan has 2" in errors_of(fill_in(alice_client, path, pairs="P0,P1,NEW"))


def test_company_admin_registers_accounts_on_the_page_of_their_owner(cast: Cast, alice_client: Client) -> None:
    path = page(User, "change", cast.bob.pk)
    new = {
        "accounts-TOTAL_FORMS": "1", "accounts-0-login": "500100", "accounts-0-broker_server": "B",
        "accounts-0-is_active": "on", "accounts-0-id": "",
    }  # fmt: skip
    assert fill_in(alice_client, path, **new).status_code == 302
    account = MT5Account.objects.get()
    assert (account.login, account.owner, account.company) == ("500100", cast.bob, cast.alpha)
    assert fill_in(alice_client, path, **{"accounts-0-login": "500101"}).status_code == 302
    assert MT5Account.objects.get().login == "500101"
    assert fill_in(alice_client, path, **{"accounts-0-DELETE": "on"}).status_code == 302
    assert not MT5Account.objects.exists()
    assert set(AuditEntry.objects.filter(object_type="mt5account").values_list("action", flat=True)) == {
        "add", "change", "delete",
    }  # fmt: skip


def test_disabling_and_enabling_says_how_many(rows: Rows, cast: Cast, alice_client: Client) -> None:
    run_action(alice_client, User, "disable", cast.bob)
    assert "1 user is disabled" in messages_after(alice_client)
    assert not User.objects.get(pk=cast.bob.pk).is_active
    run_action(alice_client, User, "enable", cast.bob)
    assert User.objects.get(pk=cast.bob.pk).is_active
    actions = AuditEntry.objects.filter(object_type="user").values_list("action", "actor")
    assert {("disable", "alice"), ("enable", "alice")} <= set(actions)


def test_invitation_goes_out_again_only_where_it_can(
    cast: Cast, alice_client: Client, committed: Callable[[], Any]
) -> None:
    User.objects.filter(pk=cast.bob.pk).update(email="bob@alpha.example")
    with committed():
        run_action(alice_client, User, "invite_again", cast.bob, cast.alice)
    assert [sent.to for sent in mail.outbox] == [["bob@alpha.example"]]
    told = messages_after(alice_client)
    assert "The invitation of bob goes to bob@alpha.example" in told and "e-mail address for alice first" in told


def test_company_admin_removes_the_lost_device_of_a_colleague_and_not_their_own(
    cast: Cast, alice_client: Client
) -> None:
    TOTPDevice.objects.create(user=cast.bob, name="app", confirmed=True)
    asked = alice_client.post(page(User, "changelist"), {"action": "remove_device", "_selected_action": cast.bob.pk})
    assert asked.status_code == 200 and TOTPDevice.objects.exists()
    run_action(alice_client, User, "remove_device", cast.bob)
    assert not TOTPDevice.objects.exists()
    entry = AuditEntry.objects.get(action="remove_two_factor")
    assert (entry.actor, entry.object_name, entry.company_id) == ("alice", "bob", cast.alpha.pk)


def test_nobody_removes_their_own_device_without_the_password(operator: User, cast: Cast) -> None:
    client = Client()
    client.force_login(operator)
    device = TOTPDevice.objects.create(user=operator, name="app", confirmed=True)
    session = client.session
    session["otp_device_id"] = device.persistent_id
    session.save()
    run_action(client, User, "remove_device", operator)
    assert TOTPDevice.objects.filter(user=operator).exists()


def test_company_admin_sets_a_password_which_ends_the_sessions(cast: Cast, alice_client: Client) -> None:
    zoe = User.objects.create_user("alpha.zoe", password=PASSWORD, company=cast.alpha, role="company_admin")
    zoes_client = client_of(zoe)
    path = page(User, "password", zoe.pk)
    assert "too short" in alice_client.post(path, {"password1": "short", "password2": "short"}).content.decode()
    new = "another long password"
    assert alice_client.post(path, {"password1": new, "password2": new}).status_code == 302
    assert User.objects.get(pk=zoe.pk).check_password(new)
    assert zoes_client.get(page(User, "changelist")).status_code == 302
    entry = AuditEntry.objects.get(action="set_password")
    assert new not in str(entry.before) + str(entry.after) and "md5" not in str(entry.after)


def test_own_password_is_changed_with_the_old_one_only(cast: Cast, alice_client: Client) -> None:
    path = page(User, "password", cast.alice.pk)
    answer = alice_client.post(path, {"password1": "another long password", "password2": "another long password"})
    assert answer["Location"] == "/admin/password_change/"
    assert not User.objects.get(pk=cast.alice.pk).check_password("another long password")


def test_limits_of_a_user_are_saved(cast: Cast, alice_client: Client) -> None:
    path = page(User, "change", cast.bob.pk)
    text = alice_client.get(path).content.decode()
    assert "as many as the plan allows (50)" in text
    fill_in(alice_client, path, message_rate_limit="5", connection_limit="1", may_send_signals=None)
    bob = User.objects.get(pk=cast.bob.pk)
    assert (bob.message_rate_limit, bob.connection_limit, bob.may_send_signals) == (5.0, 1, False)


def test_deleting_a_user_takes_accounts_and_keys_along(rows: Rows, cast: Cast, alice_client: Client) -> None:
    alice_client.post(page(User, "delete", cast.bob.pk), {"post": "yes"})
    assert not User.objects.filter(pk=cast.bob.pk).exists()
    assert not MT5Account.objects.filter(login="101").exists()
