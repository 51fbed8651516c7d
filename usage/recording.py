"""The door by which use comes in. Room: usage.

Plain functions on the ORM; call them from a thread where an event loop runs.
"""

import datetime
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from events import outbox
from proto.gateway.v1 import events_pb2
from usage.models import CompanyMonth

NOTICE_PERCENT = 80


@dataclass(frozen=True, slots=True)
class Amount:
    """Accepted messages and their bytes."""

    messages: int = 0
    size: int = 0


def month_of(moment: datetime.datetime) -> datetime.date:
    """The first day of the calendar month that it is in the companies' time zone."""
    return timezone.localtime(moment, timezone.get_default_timezone()).date().replace(day=1)


def add(amounts: Mapping[str, Amount]) -> dict[str, int]:
    """Adds what the companies (by id) have used since the last call; their bytes of this month, with what all others
    have added. An amount of nothing only asks."""
    month = month_of(timezone.now())
    totals: dict[str, int] = {}
    with transaction.atomic():
        # In one order everywhere, so that two processes never wait for each other crosswise.
        for company_id in sorted(amounts):
            amount = amounts[company_id]
            row, _ = CompanyMonth.objects.get_or_create(company_id=uuid.UUID(company_id), month=month)
            if amount.messages or amount.size:
                CompanyMonth.objects.filter(pk=row.pk).update(
                    messages=F("messages") + amount.messages, size=F("size") + amount.size
                )
                row.refresh_from_db()
            totals[company_id] = row.size
    return totals


def notice(company_id: str, percent: int, used: int, limit: int) -> bool:
    """Writes down that a company has been told of 80 or 100 percent; False when it was before, by whichever process."""
    with transaction.atomic():
        rows = CompanyMonth.objects.filter(company_id=company_id, month=month_of(timezone.now()))
        if not rows.filter(noticed_percent__lt=percent).update(noticed_percent=percent):
            return False
        event = events_pb2.UserActivity(
            company_id=company_id,
            activity="quota_notice" if percent < 100 else "quota_reached",
            occurred_at=int(timezone.now().timestamp() * 1000),
            detail={"percent": str(percent), "used_bytes": str(used), "limit_bytes": str(limit)},
        )
        outbox.record(settings.GATEWAY_ACTIVITY_TOPIC, company_id, event.SerializeToString())
    return True


def volume_of(company_id: str) -> int:
    """Bytes of this month."""
    row = CompanyMonth.objects.filter(company_id=company_id, month=month_of(timezone.now())).first()
    return 0 if row is None else row.size
