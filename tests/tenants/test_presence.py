"""Which MT5 accounts are online, by what watchers of the gateways have seen."""

import datetime
from collections.abc import Callable, Collection
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from events.models import OutboxEvent
from proto.gateway.v1 import envelope_pb2, payloads_pb2
from tenants import access, presence
from tenants.models import MT5Account, User
from tests.tenants.cast import Cast
from tests.tenants.rows import company_of, told

pytestmark = pytest.mark.django_db
GRACE = datetime.timedelta(seconds=30)


def account(owner: User, login: str = "1001", server: str = "B") -> MT5Account:
    return MT5Account.objects.create(login=login, broker_server=server, company=company_of(owner), owner=owner)


def observe(*seen: tuple[str, str], may_end: bool = True, before: Collection[tuple[str, str]] | None = ()) -> int:
    """``before`` empty: of a watcher to which everything is new."""
    return access.observe(set(seen), before=before, may_end=may_end, grace=GRACE)


def seen_ago(row: MT5Account, **ago: float) -> None:
    MT5Account.objects.filter(pk=row.pk).update(last_seen_at=timezone.now() - datetime.timedelta(**ago))


def is_online(row: MT5Account) -> bool:
    return MT5Account.objects.get(pk=row.pk).is_online


def activities() -> list[tuple[str, str, str]]:
    return [(event.user_id, event.account, event.activity) for event in told("user-activity")]


def notes() -> list[payloads_pb2.Notification]:
    rows = OutboxEvent.objects.filter(topic="notifications").order_by("pk")
    envelopes = [envelope_pb2.MessageEnvelope.FromString(bytes(row.value)) for row in rows]
    return [payloads_pb2.Notification.FromString(envelope.payload) for envelope in envelopes]


def test_account_that_is_seen_goes_online_once(cast: Cast) -> None:
    row, bob = account(cast.bob), str(cast.bob.pk)
    assert observe((bob, "1001")) == 1
    assert observe((bob, "1001")) == 0
    stored = MT5Account.objects.get(pk=row.pk)
    assert stored.is_online and stored.last_seen_at is not None
    assert activities() == [(bob, "1001", "account_online")]
    [event] = told("user-activity")
    assert event.company_id == str(cast.alpha.pk) and dict(event.detail) == {"broker_server": "B"}
    assert abs(event.occurred_at / 1000 - timezone.now().timestamp()) < 60
    assert notes() == []


def test_account_goes_offline_after_the_grace_and_people_are_told(cast: Cast) -> None:
    row, bob = account(cast.bob), str(cast.bob.pk)
    observe((bob, "1001"))
    seen_ago(row, seconds=29)
    assert observe() == 0 and is_online(row)
    seen_ago(row, seconds=31)
    assert observe() == 1 and not is_online(row)
    assert observe() == 0
    assert activities() == [(bob, "1001", "account_online"), (bob, "1001", "account_offline")]
    [note] = notes()
    assert note.title == "MT5 account 1001 is offline" and "1001@B" in note.body
    assert (note.account, note.severity) == ("1001", payloads_pb2.SEVERITY_WARNING)
    [record] = OutboxEvent.objects.filter(topic="notifications")
    assert record.key == bob


def test_return_within_the_grace_is_no_event(cast: Cast) -> None:
    row, bob = account(cast.bob), str(cast.bob.pk)
    observe((bob, "1001"))
    seen_ago(row, seconds=29)
    observe()
    observe((bob, "1001"))
    assert observe() == 0
    assert len(activities()) == 1


def test_watcher_that_could_not_look_makes_nobody_offline(cast: Cast) -> None:
    row = account(cast.bob)
    observe((str(cast.bob.pk), "1001"))
    seen_ago(row, days=1)
    assert observe(may_end=False) == 0 and is_online(row)
    # Who is seen goes online all the same.
    other = account(cast.charlie, "2002")
    assert observe((str(cast.charlie.pk), "2002"), may_end=False) == 1 and is_online(other)


def test_only_the_account_of_the_user_who_was_seen_is_online(cast: Cast) -> None:
    own, same_login = account(cast.bob), account(cast.charlie)
    other_broker, other_login = account(cast.bob, server="C"), account(cast.bob, "1002")
    observe((str(cast.bob.pk), "1001"), (str(cast.charlie.pk), "1002"), ("nonsense", "1001"), (str(cast.alpha.pk), "1"))
    # A login says nothing of its broker.
    assert [is_online(row) for row in (own, other_broker, same_login, other_login)] == [True, True, False, False]


def test_second_watcher_between_two_steps_of_the_first_makes_nobody_offline(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has turned the account online after a long absence; the other looks before it writes anything else."""
    row, bob = account(cast.bob), str(cast.bob.pk)
    seen_ago(row, hours=3)
    turn = presence._turn
    monkeypatch.setattr(presence, "_turn", _followed_by(turn, lambda: observe()))
    assert observe((bob, "1001")) == 1
    assert is_online(row)
    assert activities() == [(bob, "1001", "account_online")]


def _followed_by(step: Callable[..., int], act: Callable[[], object]) -> Callable[..., int]:
    waiting = [act]

    def run(*args: Any, **kwargs: Any) -> int:
        changed = step(*args, **kwargs)
        if waiting:
            waiting.pop()()
        return changed

    return run


def test_account_that_another_watcher_has_seen_meanwhile_stays_online(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has found it silent for too long, and before it writes the other sees it."""
    row, bob = account(cast.bob), str(cast.bob.pk)
    observe((bob, "1001"))
    seen_ago(row, seconds=31)
    turn = presence._turn

    def late(*args: Any, **kwargs: Any) -> int:
        monkeypatch.setattr(presence, "_turn", turn)
        observe((bob, "1001"))
        return turn(*args, **kwargs)

    monkeypatch.setattr(presence, "_turn", late)
    assert observe() == 0
    assert is_online(row) and len(activities()) == 1


@pytest.mark.parametrize("count", [5, 700])
def test_accounts_that_stay_as_they_are_cost_one_question_and_no_write(cast: Cast, count: int) -> None:
    bob = str(cast.bob.pk)
    account(cast.bob, "1")
    MT5Account.objects.bulk_create(
        MT5Account(login=str(5_000 + n), broker_server="B", company=cast.alpha, owner=cast.bob) for n in range(count)
    )
    seen = {(bob, str(5_000 + n)) for n in range(count)}
    with CaptureQueriesContext(connection) as first:
        assert access.observe(seen, before=None, may_end=True, grace=GRACE) == count
    # Turned in batches, not one by one.
    assert len(first) <= 4 + 10 * (1 + count // 300)
    for may_end in (False, True):
        with CaptureQueriesContext(connection) as again:
            assert access.observe(seen, before=seen, may_end=may_end, grace=GRACE) == 0
        assert [query["sql"][:6] for query in again] == ["SELECT"]
    # One of them goes: it alone is written, and its end is told of it alone.
    gone = (bob, "5000")
    with CaptureQueriesContext(connection) as one:
        access.observe(seen - {gone}, before=seen, may_end=True, grace=GRACE)
    updates = [query["sql"] for query in one if not query["sql"].startswith("SELECT")]
    assert len(updates) == 1 and "last_seen_at" in updates[0]
    seen_ago(MT5Account.objects.get(login="5000"), seconds=31)
    assert access.observe(seen - {gone}, before=seen - {gone}, may_end=True, grace=GRACE) == 1
    assert MT5Account.objects.filter(is_online=True).count() == count - 1


def test_account_that_was_long_online_has_the_whole_grace_from_its_absence(cast: Cast) -> None:
    row, key = account(cast.bob), (str(cast.bob.pk), "1001")
    observe(key, before=None)
    # Hours of looks that wrote nothing.
    seen_ago(row, hours=8)
    assert observe(key, before={key}) == 0
    assert observe(before={key}) == 0 and is_online(row)
    stored = MT5Account.objects.get(pk=row.pk).last_seen_at
    assert stored is not None and timezone.now() - stored < datetime.timedelta(seconds=20)
    seen_ago(row, seconds=31)
    assert observe(before=set()) == 1 and not is_online(row)


def test_first_look_of_a_new_watcher_begins_the_absence_of_who_is_not_there(cast: Cast) -> None:
    row, there = account(cast.bob), account(cast.charlie, "2002")
    observe((str(cast.bob.pk), "1001"), (str(cast.charlie.pk), "2002"))
    for one in (row, there):
        seen_ago(one, hours=8)
    assert observe((str(cast.charlie.pk), "2002"), before=None, may_end=False) == 0
    stored = MT5Account.objects.get(pk=row.pk).last_seen_at
    assert stored is not None and timezone.now() - stored < datetime.timedelta(seconds=20)
