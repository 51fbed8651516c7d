"""The door by which use comes in. Room: usage.

Plain functions on the ORM; call them from a thread where an event loop runs.
"""

import datetime
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from events import outbox
from proto.gateway.v1 import events_pb2
from usage.models import CompanyMonth

NOTICE_PERCENT = 80
# Companies whose rows are written together; SQLite takes 999 values in a statement.
_BATCH = 150


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
    have added. An amount of nothing only asks. All are added or none; visits are of many companies at once."""
    month = month_of(timezone.now())
    wanted = {uuid.UUID(company_id): amount for company_id, amount in amounts.items()}
    sizes: dict[uuid.UUID, int] = {}
    for batch in _batches(wanted):
        sizes.update(CompanyMonth.objects.filter(company_id__in=batch, month=month).values_list("company_id", "size"))
    used = {company_id: amount for company_id, amount in wanted.items() if amount.messages or amount.size}
    # A row of nothing for who has none yet. Outside of the transaction, which then only takes locks.
    for batch in _batches(company_id for company_id in used if company_id not in sizes):
        CompanyMonth.objects.bulk_create(
            (CompanyMonth(company_id=company_id, month=month) for company_id in batch), ignore_conflicts=True
        )
    with transaction.atomic():
        # In one order everywhere, so that two processes never wait for each other crosswise.
        for batch in _batches(used):
            rows = CompanyMonth.objects.filter(company_id__in=batch, month=month).order_by("company_id")
            sums = [
                CompanyMonth(
                    company_id=row.company_id,
                    month=month,
                    messages=row.messages + used[row.company_id].messages,
                    size=row.size + used[row.company_id].size,
                )
                for row in rows.select_for_update()
            ]
            # All of them are there and held: it writes their sums, in one statement.
            CompanyMonth.objects.bulk_create(
                sums, update_conflicts=True, unique_fields=["company_id", "month"], update_fields=["messages", "size"]
            )
            sizes.update((row.company_id, row.size) for row in sums)
    return {company_id: sizes.get(uuid.UUID(company_id), 0) for company_id in amounts}


def _batches(company_ids: Iterable[uuid.UUID]) -> list[list[uuid.UUID]]:
    ordered = sorted(company_ids)
    return [ordered[start : start + _BATCH] for start in range(0, len(ordered), _BATCH)]


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
