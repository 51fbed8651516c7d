"""Paid periods, retries of failed charges, reminders: what falls on which day. Room: billing.

Pure. Moments are aware datetimes and come back in Asia/Jakarta, which has no daylight saving time; "days" are calendar
days there.
"""

import calendar
from collections.abc import Collection
from datetime import date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

JAKARTA = ZoneInfo("Asia/Jakarta")
# Days after the first failure on which a soft decline is tried again.
RETRY_DAYS = (1, 3, 5, 7, 10)
# Days before the end of the period on which somebody is reminded.
REMINDER_DAYS = (7, 3, 1)
# The last retry lies at least this long before access ends: an answer can take a day.
_RETRY_MARGIN = timedelta(days=1)


class Interval(StrEnum):
    MONTHLY = "monthly"
    YEARLY = "yearly"


def local_day(moment: datetime) -> date:
    """The calendar day in Asia/Jakarta. Raises ValueError for a moment without a zone."""
    return _local(moment).date()


def next_period_end(start: datetime, interval: Interval, *, anchor_day: int) -> datetime:
    """The end of the period that begins at ``start``, at the same time of day.

    ``anchor_day`` (1 to 31) is the day of the month on which the first period began: the 31st becomes the last day of
    a short month and is the 31st again after it. The 29th of February is anchored on 29.
    """
    if not 1 <= anchor_day <= 31:
        raise ValueError("the anchor is a day of the month, 1 to 31")
    local = _local(start)
    months = local.year * 12 + local.month - 1 + (12 if interval is Interval.YEARLY else 1)
    year, month = divmod(months, 12)
    day = min(anchor_day, calendar.monthrange(year, month + 1)[1])
    return local.replace(year=year, month=month + 1, day=day)


def next_retry(first_failure: datetime, *, now: datetime, access_ends: datetime) -> datetime | None:
    """When a soft decline is tried again: the first day of the calendar that is not over yet; None: no more tries.

    Every try lies a day or more before ``access_ends``, so that nobody is cut off by a retry that was still to come.
    """
    first, last = _local(first_failure), _local(access_ends) - _RETRY_MARGIN
    for days in RETRY_DAYS:
        moment = first + timedelta(days=days)
        if moment > _local(now):
            return moment if moment <= last else None
    return None


def due_reminder(period_end: datetime, *, now: datetime, sent: Collection[int] = ()) -> int | None:
    """Which of REMINDER_DAYS is to be sent now, by the days left; None when there is nothing to say.

    Only the latest one that is due: after a pause nobody gets two at once. None once the period is over.
    """
    end, moment = _local(period_end), _local(now)
    left = (end.date() - moment.date()).days
    if moment >= end:
        return None
    due = [days for days in REMINDER_DAYS if left <= days]
    if not due or min(due) in sent:
        return None
    return min(due)


def _local(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment needs its time zone")
    return moment.astimezone(JAKARTA)
