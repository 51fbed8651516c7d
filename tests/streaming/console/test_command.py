"""``manage.py connections``: the same rows and the same act as in the admin."""

import json
import os
import pwd
import time
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tenants.models import AuditEntry, Kick
from tests.streaming.console.conftest import LiveRows
from tests.tenants.cast import Cast

SHELL = f"shell:{pwd.getpwuid(os.getuid()).pw_name}"


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("connections", *arguments, stdout=out)
    return out.getvalue()


def as_json(*arguments: str) -> dict[str, Any]:
    printed = run(*arguments, "--json")
    assert printed.count("\n") == 1
    found: dict[str, Any] = json.loads(printed)
    return found


def users(*arguments: str) -> list[str]:
    found = as_json("list", *arguments)
    assert found["count"] == len(found["connections"])
    return [row["username"] for row in found["connections"]]


def kicks() -> list[tuple[str, str]]:
    return [(kick.user.username, kick.session_id) for kick in Kick.objects.order_by("pk")]


def test_connections_are_listed_with_all_that_is_known(cast: Cast, live: LiveRows) -> None:
    one = live.add(
        cast.bob, accounts=["1001"], state="streaming", messages=7, opened_at=1_800_000_000.0, seen_at=time.time() - 2
    )
    [row] = as_json("list")["connections"]
    assert 2.0 <= row.pop("age_s") < 20
    assert row == {
        "session_id": one.session_id,
        "process": "p1",
        "user_id": str(cast.bob.pk),
        "username": "bob",
        "company": "alpha",
        "address": "192.0.2.1",
        "state": "streaming",
        "messages": 7,
        "in_flight": 0,
        "stream_id": "s1",
        "accounts": ["1001"],
        "opened_at": "2027-01-15T15:00:00+07:00",
    }
    line = run("list")
    assert one.session_id in line and "alpha/bob" in line and "1001" in line


def test_list_is_filtered(cast: Cast, live: LiveRows) -> None:
    live.add(cast.bob, accounts=["1001"], state="paused")
    live.add(cast.charlie, accounts=["1002"])
    live.add(cast.alice)
    assert users() == ["alice", "charlie", "bob"]
    assert users("--company", "alpha") == ["alice", "bob"]
    assert users("--user", "bob") == ["bob"]
    assert users("--account", "1002") == ["charlie"]
    assert users("--state", "paused") == ["bob"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["list", "--user", "bob"], "no live connection matches"),
        (["list", "--user", "nobody"], "no user named nobody"),
        (["list", "--company", "nobody"], "no company with the short name nobody"),
        (["kick", "--user", "bob"], "no live connection matches"),
        (["kick", "--user", "nobody"], "no user named nobody"),
        (["kick", "--company", "beta"], "no live connection matches"),
        (["kick", "--session", "a" * 16], "no live connection matches"),
        (["kick"], "one of the arguments --session --user --company is required"),
        (["kick", "--user", "bob", "--company", "alpha"], "not allowed with"),
    ],
)
def test_command_that_matches_nothing_fails_and_says_why(
    cast: Cast, live: LiveRows, arguments: list[str], text: str
) -> None:
    live.add(cast.alice)
    with pytest.raises(CommandError, match=text):
        run(*arguments)
    assert kicks() == []


def test_one_connection_is_ended_and_noted(cast: Cast, live: LiveRows) -> None:
    one, _other = live.add(cast.bob), live.add(cast.bob)
    assert as_json("kick", "--session", one.session_id, "--reason", "for a test") == {
        "kicked": 1,
        "sessions": [one.session_id],
    }
    assert kicks() == [("bob", one.session_id)]
    entry = AuditEntry.objects.get(action="kick")
    assert (entry.actor, entry.company_id, entry.after["reason"]) == (SHELL, cast.alpha.pk, "for a test")


def test_all_of_a_user_or_of_a_company_are_ended(cast: Cast, live: LiveRows) -> None:
    for user in (cast.bob, cast.bob, cast.alice, cast.charlie):
        live.add(user)
    assert as_json("kick", "--user", "bob")["kicked"] == 2
    assert kicks() == [("bob", "")]
    assert as_json("kick", "--company", "alpha")["kicked"] == 3
    assert sorted(kicks()) == [("alice", ""), ("bob", ""), ("bob", "")]
    assert "3 connections" in run("kick", "--company", "alpha")


def test_user_is_kicked_also_without_redis_and_nothing_else_is_tried(cast: Cast, live: LiveRows) -> None:
    live.is_away = True
    assert as_json("kick", "--user", "bob") == {"kicked": None, "sessions": None}
    assert kicks() == [("bob", "")]
    for arguments in (["list"], ["kick", "--company", "alpha"], ["kick", "--session", "a" * 16]):
        with pytest.raises(CommandError, match="Redis does not answer"):
            run(*arguments)
    assert len(kicks()) == 1
