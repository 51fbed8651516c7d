"""Which MT5 accounts are online, and telling when that changes. Room: tenants.

Whoever watches the gateways calls ``observe``; a change is one conditional UPDATE with its events in the same
transaction, so that several watchers tell of it once.
"""

import datetime
import uuid
from collections.abc import Collection

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from events import outbox
from proto.gateway.v1 import envelope_pb2, events_pb2, payloads_pb2
from tenants.models import MT5Account
from tenants.terminal import as_uuid

_BATCH = 300


def observe(seen: Collection[tuple[str, str]], *, may_end: bool, grace: datetime.timedelta) -> int:
    """Takes in that these (user id, MT5 login) are on live connections now; how many accounts changed their state.

    An account goes offline when it was not seen for ``grace``, and only with ``may_end``: who could not look for a
    while knows nothing of those not seen.
    """
    now = timezone.now()
    rows = _rows(seen)
    changed = sum(_turn(row, now, is_online=True) for row in rows if not row.is_online)
    for start in range(0, len(rows), _BATCH):
        keys = [row.pk for row in rows[start : start + _BATCH]]
        MT5Account.objects.filter(pk__in=keys).update(last_seen_at=now)
    if may_end:
        gone = MT5Account.objects.filter(is_online=True).filter(
            Q(last_seen_at__lt=now - grace) | Q(last_seen_at__isnull=True)
        )
        changed += sum(_turn(row, now, is_online=False) for row in gone.select_related("owner"))
    return changed


def _rows(seen: Collection[tuple[str, str]]) -> list[MT5Account]:
    """The registered accounts among those seen; a login that one user has at two brokers counts for both."""
    wanted: dict[uuid.UUID, set[str]] = {}
    for user_id, login in seen:
        key = as_uuid(user_id)
        if key is not None:
            wanted.setdefault(key, set()).add(login)
    owners = list(wanted)
    rows: list[MT5Account] = []
    for start in range(0, len(owners), _BATCH):
        batch = MT5Account.objects.filter(owner__in=owners[start : start + _BATCH]).select_related("owner")
        rows += [row for row in batch if row.login in wanted[row.owner_id]]
    return rows


def _turn(row: MT5Account, now: datetime.datetime, *, is_online: bool) -> int:
    with transaction.atomic():
        # Another watcher may have been first.
        rows = MT5Account.objects.filter(pk=row.pk, is_online=not is_online)
        if is_online:
            # In one statement: between two, another watcher would take an old moment for a long silence.
            is_turned = rows.update(is_online=True, last_seen_at=now)
        else:
            is_turned = rows.filter(last_seen_at=row.last_seen_at).update(is_online=False)
        if not is_turned:
            return 0
        moment = int(now.timestamp() * 1000)
        event = events_pb2.UserActivity(
            user_id=str(row.owner_id),
            company_id=str(row.company_id),
            activity="account_online" if is_online else "account_offline",
            account=row.login,
            occurred_at=moment,
            detail={"broker_server": row.broker_server},
        )
        outbox.record(settings.GATEWAY_ACTIVITY_TOPIC, event.user_id, event.SerializeToString())
        if not is_online:
            _notify(row, moment)
    return 1


def _notify(row: MT5Account, moment: int) -> None:
    """The same news for people, in the topic that alerts are fed from."""
    topic = settings.GATEWAY_ROUTES.get("notification")
    if topic is None:
        return
    seen = row.last_seen_at
    note = payloads_pb2.Notification(
        notification_id=uuid.uuid4().hex,
        severity=payloads_pb2.SEVERITY_WARNING,
        title=f"MT5 account {row.login} is offline",
        body=f"Nothing was heard from {row} since {timezone.localtime(seen):%H:%M:%S %Z}." if seen else "",
        account=row.login,
        time_msc=moment,
    )
    envelope = envelope_pb2.MessageEnvelope(
        message_type="notification",
        user_id=str(row.owner_id),
        company_id=str(row.company_id),
        payload=note.SerializeToString(),
        timestamp=moment,
        received_at=moment * 1000,
    )
    outbox.record(topic, envelope.user_id, envelope.SerializeToString())
