"""The second step: set up, passed, not replayed, taken away."""

from typing import Any

import pytest
from django.test import Client
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice
from pytest_django import Settings

from tenants.models import AuditEntry, User
from tenants.signin import devices, steps
from tests.tenants.cast import Cast
from tests.tenants.signin.conftest import StillClock
from tests.tenants.signin.people import (
    OTHER_PASSWORD,
    PASSWORD,
    code_of,
    give_code,
    give_password,
    is_inside,
    shown_key,
    shown_recovery_codes,
    with_app,
    with_password,
    wrong_code,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice(cast: Cast) -> User:
    return with_password(cast.alice)


@pytest.fixture
def required(settings: Settings) -> None:
    settings.GATEWAY_TWO_FACTOR = "required"


@pytest.fixture
def unthrottled(settings: Settings) -> None:
    settings.OTP_TOTP_THROTTLE_FACTOR = settings.OTP_STATIC_THROTTLE_FACTOR = 0


def test_admin_without_an_app_signs_in_where_it_is_optional(alice: User) -> None:
    client = Client()
    assert give_password(client, "alice")["Location"] == "/admin/"
    assert is_inside(client)


def test_admin_without_an_app_reaches_only_the_set_up_where_it_is_required(alice: User, required: None) -> None:
    client = Client()
    assert give_password(client, "alice")["Location"] == "/admin/login/set-up/"
    assert "_auth_user_id" not in client.session
    for path in ("/admin/", "/admin/tenants/user/", "/admin/security/", "/admin/password_change/"):
        assert client.get(path)["Location"].startswith("/admin/login/")
    assert client.get("/admin/login/code/")["Location"] == "/admin/login/set-up/"


@pytest.mark.parametrize("role", ["alice", "operator"])
def test_admin_sets_up_an_app_at_the_first_sign_in(alice: User, operator: User, required: None, role: str) -> None:
    client = Client()
    give_password(client, role)
    page = client.get("/admin/login/set-up/")
    assert "<svg" in page.content.decode()
    key = shown_key(page)
    assert shown_key(client.get("/admin/login/set-up/")) == key
    answer = client.post("/admin/login/set-up/", {"code": code_of(key)})
    codes = shown_recovery_codes(answer)
    assert len(set(codes)) == devices.RECOVERY_CODE_COUNT
    assert "no-store" in answer["Cache-Control"]
    assert is_inside(client)
    # Once: neither the page of security nor the set-up shows them again.
    assert not shown_recovery_codes(client.get("/admin/security/"))
    assert client.post("/admin/login/set-up/", {"code": code_of(key)}).status_code == 302
    assert AuditEntry.objects.get(action="two_factor_on").actor == role


def test_wrong_code_sets_up_nothing(alice: User, required: None) -> None:
    client = Client()
    give_password(client, "alice")
    key = shown_key(client.get("/admin/login/set-up/"))
    for code in (wrong_code(key), "12345", "abcdef", code_of(key, steps=-3)):
        assert client.post("/admin/login/set-up/", {"code": code}).status_code == 200
    assert not TOTPDevice.objects.exists()
    assert not is_inside(client)


def test_code_of_the_set_up_is_not_a_second_step_too(alice: User, required: None) -> None:
    client = Client()
    give_password(client, "alice")
    key = shown_key(client.get("/admin/login/set-up/"))
    code = code_of(key)
    client.post("/admin/login/set-up/", {"code": code})
    thief = Client()
    assert give_password(thief, "alice")["Location"] == "/admin/login/code/"
    assert give_code(thief, code).status_code == 200
    assert not is_inside(thief)


def test_second_of_two_set_ups_is_refused(alice: User) -> None:
    key = devices.new_key()
    assert devices.set_up(alice, key, code_of(key)) is not None
    other = devices.new_key()
    with pytest.raises(devices.AlreadySetUp):
        devices.set_up(alice, other, code_of(other))
    assert TOTPDevice.objects.get().key == key


def test_admin_with_an_app_signs_in_with_password_and_code(alice: User) -> None:
    device, _ = with_app(alice)
    client = Client()
    assert give_password(client, "alice")["Location"] == "/admin/login/code/"
    assert "_auth_user_id" not in client.session
    assert not is_inside(client)
    assert give_code(client, code_of(device.key))["Location"] == "/admin/"
    assert is_inside(client)


def test_code_may_be_typed_with_spaces(alice: User) -> None:
    device, _ = with_app(alice)
    client = Client()
    give_password(client, "alice")
    code = code_of(device.key)
    assert give_code(client, f" {code[:3]} {code[3:]} ").status_code == 302


@pytest.mark.parametrize(("shift", "is_accepted"), [(-2, False), (-1, True), (1, True), (2, False)])
def test_clock_of_the_phone_may_be_one_step_off(alice: User, shift: int, is_accepted: bool) -> None:
    device, _ = with_app(alice)
    assert (devices.check_code(alice, code_of(device.key, steps=shift)) is not None) is is_accepted


def test_code_is_not_replayed(alice: User, unthrottled: None) -> None:
    device, _ = with_app(alice)
    code = code_of(device.key)
    first, second = Client(), Client()
    give_password(first, "alice")
    give_password(second, "alice")
    assert give_code(first, code).status_code == 302
    assert give_code(second, code).status_code == 200
    assert not is_inside(second)
    assert give_code(second, code_of(device.key, steps=1)).status_code == 302


def test_recovery_code_works_once_and_is_kept_as_a_digest(alice: User, unthrottled: None) -> None:
    _, codes = with_app(alice)
    stored = set(StaticToken.objects.values_list("token", flat=True))
    assert not stored & {code.replace("-", "") for code in codes}
    client, again = Client(), Client()
    give_password(client, "alice")
    assert give_code(client, codes[0].upper()).status_code == 302
    assert is_inside(client)
    assert devices.recovery_codes_left(alice) == devices.RECOVERY_CODE_COUNT - 1
    give_password(again, "alice")
    assert give_code(again, codes[0]).status_code == 200
    assert not is_inside(again)


def test_codes_work_for_their_owner_only(cast: Cast, alice: User) -> None:
    device, _ = with_app(alice)
    other, codes = with_app(cast.charlie)
    assert devices.check_code(alice, codes[0]) is None
    assert devices.check_code(alice, code_of(device.key)) == device
    assert devices.check_code(cast.charlie, code_of(other.key)) == other


def test_wrong_codes_are_throttled(alice: User, otp_clock: StillClock) -> None:
    device, _ = with_app(alice)
    client = Client()
    give_password(client, "alice")
    give_code(client, wrong_code(device.key))
    assert "Wait 1 second" in give_code(client, code_of(device.key)).content.decode()
    otp_clock.elapsed = 1.1
    assert give_code(client, code_of(device.key)).status_code == 302


def pending_since(client: Client, seconds: float) -> None:
    session = client.session
    session["signin_pending"] = {**session["signin_pending"], "at": session["signin_pending"]["at"] - seconds}
    session.save()


def test_second_step_must_follow_the_password_in_ten_minutes(alice: User) -> None:
    device, _ = with_app(alice)
    client = Client()
    give_password(client, "alice")
    pending_since(client, steps.PENDING_TTL - 5)
    assert client.get("/admin/login/code/").status_code == 200
    pending_since(client, 6)
    assert give_code(client, code_of(device.key))["Location"].startswith("/admin/login/?")
    assert not is_inside(client)


def change_password(user: User) -> None:
    with_password(user, OTHER_PASSWORD)


def disable(user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def make_trader(user: User) -> None:
    User.objects.filter(pk=user.pk).update(role=User.Role.TRADER)


@pytest.mark.parametrize("change", [change_password, disable, make_trader])
def test_second_step_is_void_after_a_change_of_the_person(alice: User, change: Any) -> None:
    device, _ = with_app(alice)
    client = Client()
    give_password(client, "alice")
    change(alice)
    give_code(client, code_of(device.key))
    assert "_auth_user_id" not in client.session


def test_session_key_changes_at_each_step(alice: User) -> None:
    device, _ = with_app(alice)
    client = Client()
    # A session that somebody else has planted.
    session = client.session
    session["planted"] = True
    session.save()
    keys = [session.session_key]
    give_password(client, "alice")
    keys.append(client.session.session_key)
    assert "planted" not in client.session
    give_code(client, code_of(device.key))
    keys.append(client.session.session_key)
    assert len(set(keys)) == 3


def test_change_of_the_password_ends_other_sessions_and_not_this_one(alice: User) -> None:
    device, codes = with_app(alice)
    here, there = Client(), Client()
    for client, code in ((here, code_of(device.key)), (there, codes[0])):
        give_password(client, "alice")
        assert give_code(client, code).status_code == 302
    fields = {"old_password": PASSWORD, "new_password1": OTHER_PASSWORD, "new_password2": OTHER_PASSWORD}
    wrong = {**fields, "old_password": OTHER_PASSWORD}
    assert here.post("/admin/password_change/", wrong).status_code == 200
    assert not AuditEntry.objects.filter(action="password_changed").exists()
    assert here.post("/admin/password_change/", fields).status_code == 302
    entry = AuditEntry.objects.get(action="password_changed")
    assert (entry.actor, entry.address, entry.object_id) == ("alice", "127.0.0.1", str(alice.pk))
    assert (entry.company_id, entry.before, entry.after) == (alice.company_id, {}, {})
    assert is_inside(here)
    assert not is_inside(there)


def signed_in(user: User, device: TOTPDevice) -> Client:
    client = Client()
    give_password(client, user.username)
    assert give_code(client, code_of(device.key, steps=-1)).status_code == 302
    return client


def test_admin_turns_it_off_with_password_and_code_only(alice: User, unthrottled: None) -> None:
    device, _ = with_app(alice)
    client = signed_in(alice, device)
    path = "/admin/security/turn-off/"
    for password, code in ((OTHER_PASSWORD, code_of(device.key)), (PASSWORD, wrong_code(device.key)), (PASSWORD, "")):
        assert client.post(path, {"password": password, "code": code}).status_code == 200
        assert devices.has_device(alice)
    assert client.post(path, {"password": PASSWORD, "code": code_of(device.key)})["Location"] == "/admin/security/"
    assert not devices.has_device(alice)
    assert devices.recovery_codes_left(alice) == 0
    assert is_inside(client)
    assert AuditEntry.objects.get(action="two_factor_off").object_id == str(alice.pk)


def test_admin_who_turns_it_off_where_it_is_required_sets_up_another(alice: User, required: None) -> None:
    device, _ = with_app(alice)
    client = signed_in(alice, device)
    client.post("/admin/security/turn-off/", {"password": PASSWORD, "code": code_of(device.key)})
    assert not is_inside(client)
    assert give_password(client, "alice")["Location"] == "/admin/login/set-up/"


def test_new_recovery_codes_make_the_old_ones_void(alice: User, unthrottled: None) -> None:
    device, old = with_app(alice)
    client = signed_in(alice, device)
    path = "/admin/security/recovery-codes/"
    assert client.post(path, {"password": OTHER_PASSWORD, "code": old[1]}).status_code == 200
    answer = client.post(path, {"password": PASSWORD, "code": code_of(device.key)})
    new = shown_recovery_codes(answer)
    assert len(new) == devices.RECOVERY_CODE_COUNT and not set(new) & set(old)
    assert devices.check_code(alice, old[0]) is None
    assert devices.check_code(alice, new[0]) is not None


def test_admin_sets_up_an_app_later_with_the_password(alice: User) -> None:
    client = Client()
    give_password(client, "alice")
    path = "/admin/security/set-up/"
    key = shown_key(client.get(path))
    assert client.post(path, {"password": OTHER_PASSWORD, "code": code_of(key)}).status_code == 200
    assert not devices.has_device(alice)
    assert shown_recovery_codes(client.post(path, {"password": PASSWORD, "code": code_of(key)}))
    assert is_inside(client)


def test_removed_device_ends_what_was_verified_with_it(alice: User, required: None) -> None:
    device, _ = with_app(alice)
    client = signed_in(alice, device)
    assert devices.remove_devices(alice) == 2
    assert not is_inside(client)
    assert devices.remove_devices(alice) == 0


def test_removing_devices_leaves_those_of_others(cast: Cast, alice: User) -> None:
    with_app(alice)
    with_app(cast.charlie)
    devices.remove_devices(alice)
    assert devices.has_device(cast.charlie)
    assert devices.recovery_codes_left(cast.charlie) == devices.RECOVERY_CODE_COUNT
