"""``manage.py company`` and ``manage.py user``: the operator's acts from a shell, by the same door as the admin's."""

import datetime
import json
import os
import pwd
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from tenants import access
from tenants.models import ActivePair, ApiKey, AuditEntry, Ban, Company, CompanyOverride, MT5Account, User
from tests.support.gateway import ROOT, clean_environment, manage
from tests.tenants import acts
from tests.tenants.cast import Cast, version_of
from tests.tenants.rows import everything, make_ban, told

SHELL = f"shell:{pwd.getpwuid(os.getuid()).pw_name}"


def run(*args: str) -> str:
    out, err = StringIO(), StringIO()
    call_command(*args, stdout=out, stderr=err)
    assert err.getvalue() == ""
    return out.getvalue()


def as_json(*args: str) -> dict[str, Any]:
    printed = run(*args, "--json")
    assert printed.count("\n") == 1
    found: dict[str, Any] = json.loads(printed)
    return found


@pytest.mark.django_db
def test_company_is_shown_with_its_limits_and_use(cast: Cast) -> None:
    paid_until = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    Company.objects.filter(pk=cast.alpha.pk).update(paid_until=paid_until)
    CompanyOverride.objects.create(company=cast.alpha, company_account_limit=7, has_replay=True)
    for login in ("1", "2", "3"):
        MT5Account.objects.create(
            login=login, broker_server="B", company=cast.alpha, owner=cast.bob, is_active=login != "3"
        )
    before = everything()
    found = as_json("company", "show", "alpha")
    limits = found.pop("limits")
    assert found == {
        "slug": "alpha",
        "name": "Alpha",
        "tier": "PRO",
        "status": "active",
        "status_reason": "",
        "paid_until": "2030-01-02T03:04:05+00:00",
        "access_version": 1,
        "users": {"used": 2, "limit": 5},
        "accounts": {"used": 3, "limit": 7},
    }
    assert (limits["pair_limit"], limits["has_replay"], limits["message_rate_limit"]) == (20, True, 50.0)
    text = run("company", "show", "alpha")
    for part in ("Alpha (alpha)", "active", "PRO", "2 of 5", "3 of 7", "2030-01-02T03:04:05+00:00"):
        assert part in text
    assert as_json("company", "show", "beta")["paid_until"] is None
    assert "not limited in time" in run("company", "show", "beta")
    assert everything() == before


@pytest.mark.django_db
def test_company_is_suspended_and_resumed_with_a_reason(cast: Cast) -> None:
    found = as_json("company", "suspend", "alpha", "--reason", "chargeback")
    assert (found["status"], found["status_reason"], found["access_version"]) == ("suspended", "chargeback", 2)
    answer = access.terminal_access(str(cast.bob.pk))
    assert answer is not None and answer.refusal == "company_suspended"
    found = as_json("company", "resume", "alpha", "--reason", "settled")
    assert (found["status"], found["status_reason"], found["access_version"]) == ("active", "settled", 3)
    assert [event.status for event in told()] == ["suspended", "active"]
    rows = AuditEntry.objects.order_by("id").values_list("actor", "actor_id", "action", "company_id")
    assert list(rows) == [(SHELL, None, "suspend", cast.alpha.pk), (SHELL, None, "resume", cast.alpha.pk)]
    assert version_of(cast.beta) == 1


@pytest.mark.django_db
def test_people_read_the_new_state_in_plain_text(cast: Cast) -> None:
    assert "suspended (chargeback)" in run("company", "suspend", "alpha", "--reason", "chargeback")
    assert "status          active\n" in run("company", "resume", "alpha")


@pytest.mark.django_db
def test_company_that_is_active_is_not_resumed_again(cast: Cast) -> None:
    before = everything()
    assert as_json("company", "resume", "alpha")["status"] == "active"
    assert everything() == before


@pytest.mark.django_db
def test_unpaid_company_is_not_let_in_by_resuming_it(cast: Cast) -> None:
    Company.objects.filter(pk=cast.alpha.pk).update(status=Company.Status.UNPAID)
    before = everything()
    with pytest.raises(CommandError, match="alpha is unpaid, not suspended: record its payment"):
        run("company", "resume", "alpha")
    assert everything() == before


@pytest.mark.django_db
def test_user_is_shown_with_pairs_accounts_and_keys_and_no_secret(cast: Cast) -> None:
    ActivePair.objects.create(user=cast.bob, symbol="EURUSD")
    ActivePair.objects.create(user=cast.alice, symbol="GBPUSD")
    MT5Account.objects.create(login="1", broker_server="B", company=cast.alpha, owner=cast.bob, is_active=False)
    clear, first = access.create_api_key(acts.SYSTEM, cast.bob, "VPS")
    new, second = access.rotate_api_key(acts.SYSTEM, first)
    revoked = acts.new_key(cast.bob, "old", scope="read")
    access.revoke_api_keys(acts.SYSTEM, ApiKey.objects.filter(prefix=revoked[:12]))
    account = MT5Account.objects.get()
    expired = access.create_api_key(acts.SYSTEM, cast.bob, "short", expires_at=timezone.now(), account=account)[0]
    found = as_json("user", "show", "bob")
    assert found == {
        "username": "bob",
        "company": "alpha",
        "role": "trader",
        "is_active": True,
        "banned_until": None,
        "source_bans": [],
        "pairs": ["EURUSD"],
        "accounts": [{"login": "1", "broker_server": "B", "is_active": False}],
        "keys": [
            {"prefix": clear[:12], "account": None, "scope": "stream", "state": "replaced"},
            {"prefix": new[:12], "account": None, "scope": "stream", "state": "active"},
            {"prefix": revoked[:12], "account": None, "scope": "read", "state": "revoked"},
            {"prefix": expired[:12], "account": "1", "scope": "stream", "state": "expired"},
        ],
    }
    text = run("user", "show", "bob")
    for part in (
        "bob (trader of alpha)",
        "EURUSD",
        "1 at B (disabled)",
        f"{clear[:12]}… stream, replaced",
        f"{expired[:12]}… stream for 1, expired",
        "not banned",
    ):
        assert part in text
    for secret in (second.digest, cast.bob.password, clear[13:]):
        assert secret not in text + json.dumps(found)


@pytest.mark.django_db
def test_ban_of_one_account_is_shown_beside_the_users_own(cast: Cast) -> None:
    row = make_ban(cast.bob, is_for_all=False, account="1001", session_id="c0ffee")
    found = as_json("user", "show", "bob")
    assert found["banned_until"] is None
    shown = {"account": "1001", "api_key": "", "session_id": "c0ffee", "until": row.until.isoformat()}
    assert found["source_bans"] == [shown]
    assert f"1001 until {row.until.isoformat()}, by connection c0ffee" in run("user", "show", "bob")
    assert as_json("user", "unban", "bob")["source_bans"] == []


@pytest.mark.django_db
def test_user_who_has_nothing_is_shown_so(cast: Cast, operator: User) -> None:
    found = as_json("user", "show", "operator")
    assert (found["company"], found["pairs"], found["accounts"], found["keys"]) == (None, [], [], [])
    text = run("user", "show", "operator")
    assert "operator of no company" in text and "account       none" in text


@pytest.mark.django_db
def test_user_is_disabled_and_enabled(cast: Cast) -> None:
    assert as_json("user", "disable", "bob")["is_active"] is False
    answer = access.terminal_access(str(cast.bob.pk))
    assert answer is not None and answer.refusal == "user_disabled"
    assert "state         disabled" in run("user", "show", "bob")
    assert as_json("user", "enable", "bob")["is_active"] is True
    entries = AuditEntry.objects.order_by("id").values_list("actor", "action", "object_name")
    assert list(entries) == [(SHELL, "disable", "bob"), (SHELL, "enable", "bob")]
    assert (version_of(cast.alpha), version_of(cast.beta)) == (3, 1)


@pytest.mark.django_db
def test_user_is_let_in_again_by_lifting_the_bans(cast: Cast) -> None:
    row, other = make_ban(cast.bob), make_ban(cast.charlie)
    assert as_json("user", "show", "bob")["banned_until"] == row.until.isoformat()
    assert row.until.isoformat() in run("user", "show", "bob")
    assert as_json("user", "unban", "bob")["banned_until"] is None
    row.refresh_from_db()
    assert row.lifted_by == SHELL
    assert list(Ban.objects.filter(lifted_at__isnull=True)) == [other]
    assert "not banned" in run("user", "unban", "bob")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("args", "reason"),
    [
        *((("company", act, "gamma"), "no company with the short name gamma") for act in ("show", "suspend", "resume")),
        *((("user", act, "dora"), "no user named dora") for act in ("show", "disable", "enable", "unban")),
    ],
)
def test_unknown_name_is_refused_with_what_to_do(cast: Cast, args: tuple[str, ...], reason: str) -> None:
    before = everything()
    with pytest.raises(CommandError, match=rf"there is {reason}: look it up under .* in /admin/") as caught:
        run(*args)
    assert caught.value.returncode == 1
    assert everything() == before


@pytest.mark.django_db
def test_machine_user_without_a_name_acts_by_number(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 987_654_321)
    run("user", "disable", "bob")
    assert AuditEntry.objects.get().actor == "shell:987654321"


def test_commands_end_with_one_when_a_name_is_unknown(tmp_path: Path) -> None:
    environment = clean_environment(tmp_path)
    manage("migrate", "-v0", environment=environment)
    for args in (("company", "show", "gamma"), ("user", "show", "dora", "--json")):
        done = subprocess.run(
            [sys.executable, "manage.py", *args], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert "look it up" in done.stderr and "Traceback" not in done.stderr
