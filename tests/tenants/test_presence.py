"""Which MT5 accounts are online, by what watchers of the gateways have seen."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
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


def observe(*seen: tuple[str, str], may_end: bool = True) -> int:
    return access.observe(set(seen), may_end=may_end, grace=GRACE)


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


def test_many_accounts_take_few_questions(cast: Cast, django_assert_max_num_queries: Any) -> None:
    rows = [account(cast.bob, str(5_000 + number)) for number in range(20)]
    seen = {(str(cast.bob.pk), row.login) for row in rows}
    access.observe(seen, may_end=True, grace=GRACE)
    assert all(is_online(row) for row in rows)
    with django_assert_max_num_queries(3, connection=connection):
        access.observe(seen, may_end=True, grace=GRACE)
