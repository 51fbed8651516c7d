"""Which MT5 accounts are online, and telling when that changes. Room: tenants.

Whoever watches the gateways calls ``observe``; a change is made under the rows' locks with its events in the same
transaction, so that several watchers tell of it once.
"""

import datetime
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, TypeVar

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from events import outbox
from proto.gateway.v1 import envelope_pb2, events_pb2, payloads_pb2
from tenants.models import MT5Account
from tenants.terminal import as_uuid

_T = TypeVar("_T")
_BATCH = 300
Seen = Collection[tuple[str, str]]


class _Online(NamedTuple):
    """A row that is online."""

    pk: int
    key: tuple[str, str]
    last_seen_at: datetime.datetime | None


def observe(seen: Seen, *, before: Seen | None, may_end: bool, grace: datetime.timedelta) -> int:
    """Takes in that these (user id, MT5 login) are on live connections now; how many accounts changed their state.

    ``before``: what the caller's last look has seen, None at its first. Only what is different since is written, so
    ``last_seen_at`` of an account that stays online is when it was last seen to come or to be missing. An account goes
    offline when it was not seen for ``grace``, and only with ``may_end``: who could not look for a while knows nothing
    of those not seen.
    """
    now = timezone.now()
    here = {(str(key), login) for user_id, login in seen if (key := as_uuid(user_id)) is not None}
    online = _online()
    not_online = here - {row.key for row in online}
    changed = sum(_turn(keys, now, is_online=True) for keys in _batches(_offline_keys(not_online)))
    # At a first look nobody knows since when those are missing that are not here: since now.
    known = {row.key for row in online} if before is None else set(before)
    moved = here ^ known
    for keys in _batches([row.pk for row in online if row.key in moved]):
        MT5Account.objects.filter(pk__in=keys).update(last_seen_at=now)
    if may_end:
        silent = {
            row.pk: row.last_seen_at
            for row in online
            if row.key not in here | moved and (row.last_seen_at is None or row.last_seen_at < now - grace)
        }
        for keys in _batches(list(silent)):
            changed += _turn(keys, now, is_online=False, last_seen={key: silent[key] for key in keys})
    return changed


def _online() -> list[_Online]:
    rows = MT5Account.objects.filter(is_online=True).values_list("pk", "owner_id", "login", "last_seen_at")
    return [_Online(pk, (str(owner), login), last_seen_at) for pk, owner, login, last_seen_at in rows]


def _offline_keys(wanted: Seen) -> list[int]:
    """Of the registered accounts among these; a login that one user has at two brokers counts for both."""
    keys: list[int] = []
    for owners in _batches(sorted({user_id for user_id, _ in wanted})):
        rows = MT5Account.objects.filter(owner__in=map(uuid.UUID, owners), is_online=False).values_list(
            "pk", "owner_id", "login"
        )
        keys += [pk for pk, owner, login in rows if (str(owner), login) in wanted]
    return keys


def _turn(
    keys: Sequence[int],
    now: datetime.datetime,
    *,
    is_online: bool,
    last_seen: Mapping[int, datetime.datetime | None] | None = None,
) -> int:
    """``last_seen``: as it was when these were judged; who was seen since then, by another watcher, stays as it is."""
    with transaction.atomic():
        # Another watcher may have been first.
        held = MT5Account.objects.select_for_update().filter(pk__in=keys, is_online=not is_online).order_by("pk")
        rows = [row for row in held if last_seen is None or row.last_seen_at == last_seen[row.pk]]
        chosen = MT5Account.objects.filter(pk__in=[row.pk for row in rows])
        if is_online:
            # In one statement: between two, another watcher would take an old moment for a long silence.
            chosen.update(is_online=True, last_seen_at=now)
        else:
            chosen.update(is_online=False)
        moment = int(now.timestamp() * 1000)
        activity = "account_online" if is_online else "account_offline"
        events = [
            events_pb2.UserActivity(
                user_id=str(row.owner_id),
                company_id=str(row.company_id),
                activity=activity,
                account=row.login,
                occurred_at=moment,
                detail={"broker_server": row.broker_server},
            )
            for row in rows
        ]
        told = [(event.user_id, event.SerializeToString()) for event in events]
        outbox.record_all(settings.GATEWAY_ACTIVITY_TOPIC, told)
        if not is_online:
            _notify(rows, moment)
    return len(rows)


def _notify(rows: Sequence[MT5Account], moment: int) -> None:
    """The same news for people, in the topic that alerts are fed from."""
    topic = settings.GATEWAY_ROUTES.get("notification")
    if topic is not None:
        outbox.record_all(topic, [(str(row.owner_id), _note(row, moment).SerializeToString()) for row in rows])


def _note(row: MT5Account, moment: int) -> envelope_pb2.MessageEnvelope:
    seen = row.last_seen_at
    note = payloads_pb2.Notification(
        notification_id=uuid.uuid4().hex,
        severity=payloads_pb2.SEVERITY_WARNING,
        title=f"MT5 account {row.login} is offline",
        body=f"Nothing was heard from {row} since {timezone.localtime(seen):%H:%M:%S %Z}." if seen else "",
        account=row.login,
        time_msc=moment,
    )
    return envelope_pb2.MessageEnvelope(
        message_type="notification",
        user_id=str(row.owner_id),
        company_id=str(row.company_id),
        payload=note.SerializeToString(),
        timestamp=moment,
        received_at=moment * 1000,
    )


def _batches(keys: Sequence[_T]) -> list[Sequence[_T]]:
    return [keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH)]
