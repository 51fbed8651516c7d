"""Periods, retries and reminders fall on the day that people in Jakarta expect."""

import calendar
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.periods import (
    JAKARTA,
    REMINDER_DAYS,
    RETRY_DAYS,
    Interval,
    due_reminder,
    local_day,
    next_period_end,
    next_retry,
)

MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2060, 1, 1), timezones=st.just(JAKARTA))  # noqa: DTZ001


def at(year: int, month: int, day: int, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour, tzinfo=JAKARTA)


def ends(start: datetime, interval: Interval, count: int, anchor: int) -> list[str]:
    found = []
    for _ in range(count):
        start = next_period_end(start, interval, anchor_day=anchor)
        found.append(start.date().isoformat())
    return found


def test_the_31st_is_the_last_day_of_short_months_and_the_31st_again_after() -> None:
    months = ends(at(2027, 12, 31, 9), Interval.MONTHLY, 5, 31)
    assert months == ["2028-01-31", "2028-02-29", "2028-03-31", "2028-04-30", "2028-05-31"]


def test_a_year_from_a_leap_day_comes_back_to_it() -> None:
    years = ends(at(2028, 2, 29, 9), Interval.YEARLY, 4, 29)
    assert years == ["2029-02-28", "2030-02-28", "2031-02-28", "2032-02-29"]


def test_december_is_followed_by_january() -> None:
    assert ends(at(2026, 12, 5), Interval.MONTHLY, 1, 5) == ["2027-01-05"]


def test_the_day_is_that_of_jakarta_not_of_utc() -> None:
    start = datetime(2026, 1, 30, 20, tzinfo=UTC)
    assert local_day(start).isoformat() == "2026-01-31"
    end = next_period_end(start, Interval.MONTHLY, anchor_day=31)
    assert end == at(2026, 2, 28, 3)


@given(MOMENTS, st.sampled_from(Interval), st.integers(1, 31))
def test_period_is_about_as_long_as_its_name_and_keeps_the_time_of_day(
    start: datetime, interval: Interval, anchor: int
) -> None:
    # As the product has it: a period begins on its anchor, or on the last day of a shorter month.
    last = calendar.monthrange(start.year, start.month)[1]
    start = start.replace(day=min(anchor, last))
    end = next_period_end(start, interval, anchor_day=anchor)
    days = (end.date() - start.date()).days
    assert days in ({28, 29, 30, 31} if interval is Interval.MONTHLY else {365, 366})
    assert end.timetz() == start.timetz()


@pytest.mark.parametrize("anchor", [0, 32])
def test_anchor_that_is_no_day_is_refused(anchor: int) -> None:
    with pytest.raises(ValueError, match="1 to 31"):
        next_period_end(at(2026, 1, 1), Interval.MONTHLY, anchor_day=anchor)


def test_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        local_day(datetime(2026, 1, 1))  # noqa: DTZ001


def test_soft_decline_is_tried_again_by_the_calendar() -> None:
    failed = at(2026, 11, 1, 10)
    cut = failed + timedelta(days=7)
    moments, now = [], failed
    while (retry := next_retry(failed, now=now, access_ends=cut)) is not None:
        moments.append((retry - failed).days)
        now = retry
    assert moments == [1, 3, 5]


@given(MOMENTS, st.integers(0, 20 * 24), st.integers(0, 20 * 24))
def test_retry_lies_ahead_and_a_day_before_the_cut(failed: datetime, hours_later: int, grace_hours: int) -> None:
    now, cut = failed + timedelta(hours=hours_later), failed + timedelta(hours=grace_hours)
    retry = next_retry(failed, now=now, access_ends=cut)
    if retry is not None:
        assert now < retry <= cut - timedelta(days=1)
        assert (retry - failed).days in RETRY_DAYS


@pytest.mark.parametrize(
    ("days", "sent", "due"),
    [
        (8, (), None),
        (7, (), 7),
        (7, (7,), None),
        (5, (), 7),
        (3, (7,), 3),
        # Nothing was sent for a while: one reminder, not three.
        (1, (), 1),
        (1, (7, 3, 1), None),
    ],
)
def test_reminder_by_days_left(days: int, sent: tuple[int, ...], due: int | None) -> None:
    end = at(2026, 12, 15, 9)
    assert due_reminder(end, now=end - timedelta(days=days), sent=sent) == due


def test_nobody_is_reminded_of_what_is_over() -> None:
    end = at(2026, 12, 15, 9)
    assert due_reminder(end, now=end - timedelta(seconds=1)) == 1
    assert due_reminder(end, now=end) is None


@given(MOMENTS, st.integers(1, 60))
def test_each_reminder_is_sent_once_when_asked_four_times_a_day(end: datetime, start_days: int) -> None:
    sent: list[int] = []
    now = end - timedelta(days=start_days)
    while now < end:
        due = due_reminder(end, now=now, sent=sent)
        if due is not None:
            sent.append(due)
        now += timedelta(hours=6)
    assert sent == sorted(set(sent), reverse=True)
    assert set(sent) <= set(REMINDER_DAYS)
    assert 1 in sent
