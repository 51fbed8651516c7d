"""What companies use is added up over processes and months, and told of once (usage.recording)."""

import datetime
import threading
import uuid

import pytest
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from events import outbox
from events.models import OutboxEvent
from proto.gateway.v1 import events_pb2
from usage.models import CompanyMonth
from usage.recording import Amount, add, month_of, notice, volume_of

pytestmark = pytest.mark.django_db
LAST_SECOND = datetime.datetime(2026, 1, 31, 16, 59, 59, tzinfo=datetime.UTC)
FIRST_SECOND = datetime.datetime(2026, 1, 31, 17, 0, 0, tzinfo=datetime.UTC)


@pytest.fixture
def alpha() -> str:
    return str(uuid.uuid4())


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[datetime.datetime]:
    """What the time is, in the hands of the test: no month ends in the middle of one."""
    moments = [LAST_SECOND]
    monkeypatch.setattr(timezone, "now", lambda: moments[-1])
    return moments


def activities() -> list[events_pb2.UserActivity]:
    rows = OutboxEvent.objects.filter(topic="user-activity").order_by("id")
    return [events_pb2.UserActivity.FromString(bytes(row.value)) for row in rows]


@pytest.mark.parametrize(
    ("moment", "month"),
    [
        (LAST_SECOND, datetime.date(2026, 1, 1)),
        # Midnight in Jakarta.
        (FIRST_SECOND, datetime.date(2026, 2, 1)),
        (datetime.datetime(2025, 12, 31, 17, 0, 0, tzinfo=datetime.UTC), datetime.date(2026, 1, 1)),
        (datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.UTC), datetime.date(2024, 2, 1)),
    ],
)
def test_month_is_the_one_of_the_companies_calendar(moment: datetime.datetime, month: datetime.date) -> None:
    assert month_of(moment) == month
    with timezone.override("America/Los_Angeles"):
        assert month_of(moment) == month


def test_amounts_are_added_up(alpha: str) -> None:
    assert add({alpha: Amount(2, 100)}) == {alpha: 100}
    assert add({alpha: Amount(1, 50)}) == {alpha: 150}
    row = CompanyMonth.objects.get(company_id=alpha)
    assert (row.messages, row.size, row.month) == (3, 150, month_of(timezone.now()))
    assert volume_of(alpha) == 150


def test_amount_of_nothing_only_asks(alpha: str) -> None:
    assert add({alpha: Amount()}) == {alpha: 0}
    add({alpha: Amount(1, 50)})
    assert add({alpha: Amount()}) == {alpha: 50}
    assert add({}) == {}


def test_companies_are_counted_each_for_itself(alpha: str) -> None:
    beta = str(uuid.uuid4())
    assert add({beta: Amount(1, 7), alpha: Amount(1, 5)}) == {alpha: 5, beta: 7}
    assert add({alpha: Amount(1, 5)}) == {alpha: 10}
    assert (volume_of(alpha), volume_of(beta), volume_of(str(uuid.uuid4()))) == (10, 7, 0)


def test_amounts_of_a_whole_tier_do_not_overflow(alpha: str) -> None:
    limit = 500_000_000_000
    add({alpha: Amount(1, limit)})
    assert add({alpha: Amount(1, limit)}) == {alpha: 2 * limit}


def test_report_that_fails_halfway_adds_nothing(alpha: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        add({alpha: Amount(1, 5), "no id": Amount(1, 5)})
    assert volume_of(alpha) == 0


@pytest.mark.parametrize("count", [1, 20, 150, 151, 1_200])
def test_report_of_many_companies_takes_as_many_visits_as_of_one(count: int) -> None:
    amounts = {str(uuid.uuid4()): Amount(1, n) for n in range(1, count + 1)}
    assert add(amounts) == {company_id: amount.size for company_id, amount in amounts.items()}
    batches = -(-count // 150)
    with CaptureQueriesContext(connection) as visits:
        assert add(amounts) == {company_id: 2 * amount.size for company_id, amount in amounts.items()}
    # Each batch is looked up, held and written; the rest are savepoints.
    assert sum(query["sql"].startswith("INSERT") for query in visits) == batches
    assert len(visits) <= 2 + 5 * batches
    assert CompanyMonth.objects.filter(messages=2).count() == count
    with CaptureQueriesContext(connection) as questions:
        add(dict.fromkeys(amounts, Amount()))
    assert {query["sql"].split()[0] for query in questions} <= {"SELECT", "SAVEPOINT", "RELEASE"}


def test_only_companies_that_have_used_something_are_written(alpha: str) -> None:
    others = [str(uuid.uuid4()) for _ in range(3)]
    add(dict.fromkeys([alpha, *others], Amount(1, 10)))
    with CaptureQueriesContext(connection) as visits:
        assert add({**dict.fromkeys(others, Amount()), alpha: Amount(1, 5)}) == {**dict.fromkeys(others, 10), alpha: 15}
    [written] = [query["sql"] for query in visits if query["sql"].startswith("INSERT")]
    assert uuid.UUID(alpha).hex in written.replace("-", "")
    assert not any(uuid.UUID(one).hex in written.replace("-", "") for one in others)


# --- Months -----------------------------------------------------------------------------------------------------------


def test_new_month_begins_at_nothing_and_keeps_the_old_one(alpha: str, now: list[datetime.datetime]) -> None:
    assert add({alpha: Amount(1, 100)}) == {alpha: 100}
    now.append(FIRST_SECOND)
    assert (add({alpha: Amount()}), volume_of(alpha)) == ({alpha: 0}, 0)
    assert add({alpha: Amount(1, 30)}) == {alpha: 30}
    assert list(CompanyMonth.objects.filter(company_id=alpha).order_by("month").values_list("size", flat=True)) == [
        100,
        30,
    ]


def test_company_is_told_anew_in_a_new_month(alpha: str, now: list[datetime.datetime]) -> None:
    add({alpha: Amount(1, 85)})
    assert notice(alpha, 80, 85, 100)
    now.append(FIRST_SECOND)
    add({alpha: Amount(1, 85)})
    assert notice(alpha, 80, 85, 100)
    assert len(activities()) == 2


# --- Notices ----------------------------------------------------------------------------------------------------------


def test_each_notice_is_written_once_with_its_figures(alpha: str) -> None:
    add({alpha: Amount(1, 85)})
    assert [notice(alpha, 80, used, 100) for used in (85, 86, 87)] == [True, False, False]
    assert [notice(alpha, 100, used, 100) for used in (100, 101)] == [True, False]
    first, second = activities()
    assert (first.activity, second.activity) == ("quota_notice", "quota_reached")
    assert (first.company_id, dict(first.detail)) == (
        alpha,
        {"percent": "80", "used_bytes": "85", "limit_bytes": "100"},
    )
    assert abs(first.occurred_at / 1000 - timezone.now().timestamp()) < 60


def test_company_that_jumps_to_all_of_it_is_told_of_that_alone(alpha: str) -> None:
    add({alpha: Amount(1, 100)})
    assert notice(alpha, 100, 100, 100)
    assert not notice(alpha, 80, 100, 100)
    assert [one.activity for one in activities()] == ["quota_reached"]


def test_notice_of_a_company_that_has_used_nothing_is_none(alpha: str) -> None:
    assert not notice(alpha, 80, 85, 100)
    assert activities() == []


def test_notice_and_its_event_are_written_together_or_not_at_all(alpha: str, monkeypatch: pytest.MonkeyPatch) -> None:
    add({alpha: Amount(1, 85)})

    def fails(*_arguments: object) -> None:
        raise DatabaseError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(DatabaseError):
        patch.setattr(outbox, "record", fails)
        notice(alpha, 80, 85, 100)
    assert notice(alpha, 80, 85, 100)


# --- Two processes at once --------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_reports_of_many_processes_at_once_lose_nothing_and_tell_once(alpha: str) -> None:
    companies, told = [alpha, str(uuid.uuid4())], []
    add({one: Amount() for one in companies})
    # SQLite's database in memory locks whole tables instead of waiting: there the threads take turns.
    turn = threading.Lock()

    def process(order: list[str]) -> None:
        try:
            for _ in range(10):
                if connection.vendor == "sqlite":
                    with turn:
                        add({one: Amount(1, 10) for one in order})
                        told.append(notice(alpha, 80, 85, 100))
                else:
                    add({one: Amount(1, 10) for one in order})
                    told.append(notice(alpha, 80, 85, 100))
        finally:
            connection.close()

    # In the opposite order, which must not hold both up.
    threads = [threading.Thread(target=process, args=(companies[:: 1 if n % 2 else -1],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert [volume_of(one) for one in companies] == [400, 400]
    assert (told.count(True), len(told), len(activities())) == (1, 40, 1)
