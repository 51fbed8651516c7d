"""Bans: who sets and lifts them, how they are counted, and who is told."""

import datetime
import time
import uuid

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from tenants import access
from tenants.access import Actor, NotVisible, TerminalAccess
from tenants.models import AuditEntry, Ban, User
from tests.tenants.acts import SYSTEM
from tests.tenants.cast import Cast, version_of
from tests.tenants.rows import announced, everything, make_ban, told

pytestmark = pytest.mark.django_db
HOUR = datetime.timedelta(hours=1)


def of(user: User) -> TerminalAccess:
    found = access.terminal_access(str(user.pk))
    assert found is not None
    return found


def ban_for(user: User, seconds: float, *, repeat: int = 1, actor: Actor = SYSTEM) -> Ban:
    now = time.time()
    return access.ban(
        actor, str(user.pk), "flooding", starts_at=now, until=now + seconds, repeat=repeat, detail="1,000 frames"
    )


def test_gateway_bans_a_user_and_everybody_hears(cast: Cast) -> None:
    row = ban_for(cast.bob, 60, repeat=3)
    assert (row.user, row.reason, row.repeat, row.detail) == (cast.bob, "flooding", 3, "1,000 frames")
    assert (of(cast.bob).banned_until, of(cast.bob).bans) == (row.until.timestamp(), 1)
    assert (of(cast.alice).banned_until, of(cast.alice).bans) == (0.0, 0)
    assert (version_of(cast.alpha), version_of(cast.beta)) == (2, 1)
    [activity] = told("user-activity")
    assert (activity.user_id, activity.company_id) == (str(cast.bob.pk), str(cast.alpha.pk))
    assert activity.activity == "user_banned"
    assert (activity.detail["reason"], activity.detail["detail"]) == ("flooding", "1,000 frames")
    assert int(activity.detail["until"]) == pytest.approx(row.until.timestamp() * 1000, abs=1)
    assert [event.access_version for event in told()] == [2]
    [entry] = AuditEntry.objects.all()
    assert (entry.action, entry.object_type, entry.company_id, entry.actor) == ("ban", "ban", cast.alpha.pk, "tests")


def test_ban_that_a_gateway_writes_twice_is_one(cast: Cast) -> None:
    now = time.time()
    rows = [access.ban(SYSTEM, str(cast.bob.pk), "errors", starts_at=now, until=now + 60, repeat=1) for _ in range(2)]
    assert rows[0] == rows[1]
    assert (of(cast.bob).bans, of(cast.bob).ban_reason) == (1, "errors")
    assert len(told("user-activity")) == 1
    assert version_of(cast.alpha) == 2


def test_operator_bans_and_lifts(cast: Cast, operator: User) -> None:
    actor = Actor.of(operator, "192.0.2.7")
    ban_for(cast.bob, 60, actor=actor)
    ban_for(cast.bob, 120, actor=actor)
    assert access.lift_bans(actor, str(cast.bob.pk)) == 2
    rows = list(Ban.objects.all())
    assert [row.lifted_by for row in rows] == ["operator", "operator"]
    assert all(row.lifted_at is not None for row in rows)
    assert of(cast.bob).banned_until == 0.0
    # Each ban, and the lifting as one.
    assert version_of(cast.alpha) == 4
    assert [activity.activity for activity in told("user-activity")] == ["user_banned", "user_banned", "ban_lifted"]
    lifted = AuditEntry.objects.filter(action="lift")
    assert {entry.actor for entry in lifted} == {"operator"} and lifted.count() == 2
    assert all(set(entry.after) == {"lifted_at", "lifted_by"} for entry in lifted)


def test_lifted_bans_do_not_make_the_next_one_longer(cast: Cast) -> None:
    for _ in range(2):
        ban_for(cast.bob, 60)
    assert of(cast.bob).bans == 2
    access.lift_bans(SYSTEM, str(cast.bob.pk))
    assert of(cast.bob).bans == 0
    ban_for(cast.bob, 60)
    assert of(cast.bob).bans == 1


def test_bans_of_a_day_are_counted_and_older_ones_are_not(cast: Cast) -> None:
    now = timezone.now()
    for age in (datetime.timedelta(minutes=1), 23 * HOUR, 24 * HOUR + datetime.timedelta(minutes=1)):
        make_ban(cast.bob, starts_at=now - age - HOUR, until=now - age)
    make_ban(cast.charlie)
    # All of them are over: they count, and none stands.
    assert (of(cast.bob).bans, of(cast.bob).banned_until) == (2, 0.0)


def test_longest_standing_ban_holds(cast: Cast) -> None:
    now = timezone.now()
    until = [now + hours * HOUR for hours in (2, 5, 1)]
    rows = [make_ban(cast.bob, until=moment) for moment in until]
    assert of(cast.bob).banned_until == until[1].timestamp()
    Ban.objects.filter(pk=rows[1].pk).update(lifted_at=now)
    assert of(cast.bob).banned_until == until[0].timestamp()


def test_ban_of_one_source_leaves_the_user_and_says_who_earned_it(cast: Cast) -> None:
    key = access.create_api_key(SYSTEM, cast.bob, "VPS")[1]
    now = time.time()
    for place, (account, api_key) in enumerate([("1001", str(key.pk)), ("", str(key.pk)), ("", "")]):
        access.ban(
            SYSTEM, str(cast.bob.pk), "errors", starts_at=now + place, until=now + 60, repeat=1,
            account=account, api_key=api_key, session_id="c0ffee", is_for_all=False,
        )  # fmt: skip
    bob = of(cast.bob)
    assert (bob.banned_until, bob.bans) == (0.0, 3)
    assert {(ban.source, ban.earned_by) for ban in bob.source_bans} == {
        ("account 1001", "MT5 account 1001, connection c0ffee"),
        (f"key {key.pk}", f"API key {key.prefix}…, connection c0ffee"),
        ("", "connection c0ffee"),
    }
    assert {ban.reason for ban in bob.source_bans} == {"errors"}
    told_of = told("user-activity")[-1].detail
    assert (told_of["session_id"], told_of["account"], told_of["is_for_all"]) == ("c0ffee", "", "no")
    # The next one is for all, and says whose it was.
    ban = access.ban(
        SYSTEM, str(cast.bob.pk), "errors", starts_at=now + 9, until=now + 60, repeat=4, account="1001", session_id="9"
    )
    assert (of(cast.bob).banned_until, of(cast.bob).ban_earned_by) == (
        ban.until.timestamp(),
        "MT5 account 1001, connection 9",
    )
    access.lift_bans(SYSTEM, str(cast.bob.pk))
    assert (of(cast.bob).source_bans, of(cast.bob).banned_until) == ((), 0.0)


def test_key_of_somebody_else_is_not_named_in_a_ban(cast: Cast) -> None:
    key = access.create_api_key(SYSTEM, cast.charlie, "VPS")[1]
    now = time.time()
    row = access.ban(SYSTEM, str(cast.bob.pk), "errors", starts_at=now, until=now + 9, repeat=1, api_key=str(key.pk))
    assert row.api_key is None


def test_moment_of_the_last_lifting_is_known(cast: Cast) -> None:
    assert of(cast.bob).lifted_at == 0.0
    ban_for(cast.bob, 60)
    assert of(cast.bob).lifted_at == 0.0
    access.lift_bans(SYSTEM, str(cast.bob.pk))
    moment = Ban.objects.get().lifted_at
    assert moment is not None
    assert (of(cast.bob).lifted_at, of(cast.alice).lifted_at) == (moment.timestamp(), 0.0)


def test_ban_that_is_over_is_not_lifted(cast: Cast) -> None:
    now = timezone.now()
    make_ban(cast.bob, starts_at=now - 2 * HOUR, until=now - HOUR)
    make_ban(cast.charlie)
    assert access.lift_bans(SYSTEM, str(cast.bob.pk)) == 0
    assert not Ban.objects.filter(lifted_at__isnull=False).exists()
    assert told("user-activity") == []


def test_lifting_reaches_gateways_that_hold_a_ban_without_a_row(
    cast: Cast, settings: Settings, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    before = time.time()
    with django_capture_on_commit_callbacks() as callbacks:
        assert access.lift_bans(SYSTEM, str(cast.bob.pk)) == 0
    unban, changed = announced(callbacks)
    assert (unban["kind"], unban["user_id"]) == ("unban", str(cast.bob.pk))
    assert before <= unban["at"] <= time.time()
    assert changed == {"kind": "access", "company_id": str(cast.alpha.pk), "version": 2}


def test_companys_people_neither_ban_nor_lift(cast: Cast) -> None:
    ban_for(cast.bob, 60)
    before = everything()
    for user in (cast.alice, cast.bob, cast.charlie, AnonymousUser()):
        # Known or not, of the own company or not: the same answer.
        for user_id in (str(cast.bob.pk), str(cast.charlie.pk), str(uuid.uuid4())):
            with pytest.raises(PermissionDenied, match="only an operator bans"):
                access.ban(Actor.of(user), user_id, "operator", starts_at=0.0, until=1.0, repeat=1)
            with pytest.raises(PermissionDenied, match="only an operator lifts bans"):
                access.lift_bans(Actor.of(user), user_id)
    assert everything() == before


def test_unknown_user_is_neither_banned_nor_let_in(cast: Cast) -> None:
    before = everything()
    for user_id in (str(uuid.uuid4()), "bob", ""):
        with pytest.raises(NotVisible):
            access.ban(SYSTEM, user_id, "operator", starts_at=0.0, until=1.0, repeat=1)
        with pytest.raises(NotVisible):
            access.lift_bans(SYSTEM, user_id)
    assert everything() == before


def test_ban_ends_after_it_begins(cast: Cast) -> None:
    before = everything()
    with pytest.raises(IntegrityError):
        ban_for(cast.bob, 0)
    assert everything() == before


def test_operator_without_a_company_is_banned_too(cast: Cast, operator: User) -> None:
    ban_for(operator, 60)
    assert access.lift_bans(SYSTEM, str(operator.pk)) == 1
    assert [activity.company_id for activity in told("user-activity")] == ["", ""]
    assert (told(), version_of(cast.alpha)) == ([], 1)
