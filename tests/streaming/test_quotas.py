"""The monthly volume of a company over processes: told of at 80 and 100 percent, refused by the plan's rule."""

import asyncio
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from events.models import OutboxEvent
from streaming import access as access_module
from streaming import quotas as quotas_module
from streaming.access import policy_of
from tenants.models import ActivePair, CompanyOverride, MT5Account
from tests.streaming.core.cast import ticks
from tests.streaming.shell_cast import ALICE, BOB, LIMITS, Live, Process, Tenants, token_of, turns
from tests.tenants.cast import make_cast
from usage import recording
from usage.recording import Amount

LIMIT = 10_000
MakeProcess = Callable[[], Process]


@pytest.fixture
async def make_process(tenants: Tenants) -> AsyncIterator[MakeProcess]:
    for access in (BOB, ALICE):
        tenants.users[access.user_id] = dataclasses.replace(access, connection_limit=10, monthly_data_limit=LIMIT)
    made: list[Process] = []

    def make() -> Process:
        made.append(Process(tenants, limits=dataclasses.replace(LIMITS, ack_interval=600.0)))
        return made[-1]

    yield make
    for process in made:
        await process.runtime.stop()


@pytest.fixture
def process(make_process: MakeProcess) -> Process:
    return make_process()


def volume_of(live: Live) -> tuple[int, int]:
    volume = live.connection.entry.company.volume
    return volume.messages, volume.size


def notices(live: Live) -> list[str]:
    return [notice.code for notice in live.heard("Notice")]


def nacks(live: Live) -> list[str]:
    return [nack.code for nack in live.heard("Nack")]


def record(live: Live, **message: Any) -> None:
    """Sends one message, which Kafka confirms."""
    live.send(**message)
    live.process.sink.deliver()


async def use_up(process: Process, tenants: Tenants, used: int) -> None:
    """All processes together have used so much when this one makes its report."""
    volume = process.runtime.registry.companies["alpha"].volume
    _, reported = process.fleet.quotas._reported.get("alpha", (0, 0))
    tenants.used["alpha"] = used - (volume.size - reported)
    tenants.noticed.setdefault("alpha", 0)
    # A company that has done nothing is not asked for.
    volume.messages += 1
    await process.fleet.quotas.flush()


# --- What is reported -------------------------------------------------------------------------------------------------


async def test_accepted_messages_are_reported_once_with_their_bytes(process: Process, tenants: Tenants) -> None:
    bob, alice = await process.connect(), await process.connect(token_of("alice"))
    for one in (bob, alice, bob):
        record(one)
    messages, size = volume_of(bob)
    assert messages == 3 and size > 100
    for _ in range(3):
        await process.fleet.quotas.flush()
    assert tenants.used == {"alpha": size}
    record(bob)
    await process.fleet.quotas.flush()
    assert tenants.used == {"alpha": volume_of(bob)[1]}


async def test_refused_messages_use_nothing(process: Process) -> None:
    bob = await process.connect()
    bob.send("nonsense")
    bob.connection.session.receive(b"\xff", time.monotonic(), 0)
    bob.connection.entry.set_rate(1.0)
    for _ in range(3):
        record(bob)
    assert volume_of(bob)[0] == 1


async def test_companies_are_reported_each_for_itself(process: Process, tenants: Tenants) -> None:
    tenants.users["charlie"] = dataclasses.replace(BOB, user_id="charlie", company_id="beta")
    bob, charlie = await process.connect(), await process.connect(token_of("charlie", "beta"))
    record(bob)
    for _ in range(3):
        record(charlie)
    await process.fleet.quotas.flush()
    assert tenants.used == {"alpha": volume_of(bob)[1], "beta": volume_of(charlie)[1]}


async def test_company_that_does_nothing_makes_no_visit(process: Process, tenants: Tenants) -> None:
    bob = await process.connect()
    record(bob)
    await process.fleet.quotas.flush()
    before = tenants.questions
    for _ in range(3):
        await process.fleet.quotas.flush()
    assert tenants.questions == before


async def test_end_of_a_process_brings_what_is_left(make_process: MakeProcess, tenants: Tenants) -> None:
    process = make_process()
    bob = await process.connect()
    record(bob)
    size = volume_of(bob)[1]
    bob.leave()
    await process.fleet.stop()
    assert tenants.used == {"alpha": size}


async def test_company_without_connections_is_forgotten_after_its_report(process: Process, tenants: Tenants) -> None:
    bob = await process.connect()
    record(bob)
    size = volume_of(bob)[1]
    bob.leave()
    process.runtime.registry.forget_idle(time.monotonic() + 1_000)
    await process.fleet.quotas.flush()
    assert "alpha" in process.runtime.registry.companies
    await process.fleet.quotas.flush()
    assert "alpha" not in process.runtime.registry.companies
    assert tenants.used == {"alpha": size}


@pytest.mark.parametrize("away", [0.0, 1_000.0])
async def test_user_who_comes_back_later_is_counted_on(process: Process, tenants: Tenants, away: float) -> None:
    bob = await process.connect()
    record(bob)
    size = volume_of(bob)[1]
    bob.leave()
    for _ in range(3):
        process.runtime.registry.forget_idle(time.monotonic() + away)
        await process.fleet.quotas.flush()
    assert ("bob" in process.runtime.registry.users) == (not away)
    again = await process.connect(query="stream=s2")
    record(again)
    assert process.runtime.registry.held_by_company("alpha") == 1
    await process.fleet.quotas.flush()
    assert tenants.used == {"alpha": 2 * size}


# --- Notices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "codes"),
    [
        (7_900, []),
        (7_999, []),
        (8_000, ["quota_80_percent"]),
        (9_900, ["quota_80_percent"]),
        (9_999, ["quota_80_percent"]),
        (10_000, ["quota_reached"]),
        (25_000, ["quota_reached"]),
    ],
)
async def test_connections_are_told_at_eighty_and_at_a_hundred_percent_once_each(
    process: Process, tenants: Tenants, used: int, codes: list[str]
) -> None:
    bob, alice = await process.connect(), await process.connect(token_of("alice"))
    for _ in range(3):
        await use_up(process, tenants, used)
    assert (notices(bob), notices(alice)) == (codes, codes)
    assert tenants.noticed["alpha"] == (0 if not codes else 100 if "reached" in codes[0] else 80)
    for notice in bob.heard("Notice"):
        assert notice.detail["limit_bytes"] == str(LIMIT)
        assert notice.detail["percent"] in ("80", "100")


async def test_both_notices_come_one_after_the_other(process: Process, tenants: Tenants) -> None:
    bob = await process.connect()
    for used in (7_000, 8_500, 9_000, 10_500, 11_000):
        bob.send()
        await use_up(process, tenants, used)
    assert notices(bob) == ["quota_80_percent", "quota_reached"]


async def test_company_is_noted_once_over_two_processes_and_each_tells_its_own_connections(
    make_process: MakeProcess, tenants: Tenants
) -> None:
    first, second = make_process(), make_process()
    bob, alice = await first.connect(), await second.connect(token_of("alice"))
    with capture_logs() as logs:
        for process in (first, second, first, second):
            await use_up(process, tenants, 8_500)
    assert (notices(bob), notices(alice)) == (["quota_80_percent"], ["quota_80_percent"])
    assert len([entry for entry in logs if entry["event"] == "quota_notice"]) == 1


async def test_volume_of_two_processes_together_counts(make_process: MakeProcess, tenants: Tenants) -> None:
    first, second = make_process(), make_process()
    bob, alice = await first.connect(), await second.connect(token_of("alice"))
    record(bob)
    size = volume_of(bob)[1]
    for name in ("bob", "alice"):
        tenants.change(name, monthly_data_limit=2 * size)
    for process in (first, second):
        await process.poll()
    await first.fleet.quotas.flush()
    assert notices(bob) == []
    record(alice)
    await second.fleet.quotas.flush()
    assert notices(alice) == ["quota_reached"]
    record(bob)
    await first.fleet.quotas.flush()
    assert notices(bob) == ["quota_reached"]


async def test_connection_that_opens_later_is_told_at_its_beginning(process: Process, tenants: Tenants) -> None:
    await process.connect()
    await use_up(process, tenants, 8_500)
    later = await process.connect(query="stream=s2")
    assert notices(later) == ["quota_80_percent"]
    await use_up(process, tenants, 8_600)
    assert notices(later) == ["quota_80_percent"]


# --- Refusals ---------------------------------------------------------------------------------------------------------


async def test_messages_above_the_volume_are_refused_by_a_plan_that_says_so(process: Process, tenants: Tenants) -> None:
    bob, alice = await process.connect(), await process.connect(token_of("alice"))
    await use_up(process, tenants, LIMIT - 1)
    bob.send(sequence=1)
    assert nacks(bob) == []
    await use_up(process, tenants, LIMIT)
    bob.send(sequence=2)
    alice.send(sequence=1)
    assert (nacks(bob), nacks(alice)) == (["quota_exceeded"], ["quota_exceeded"])
    [refused] = bob.heard("Nack")
    assert (refused.sequence, refused.retryable) == (2, False)
    assert "refused" in bob.heard("Notice")[-1].reason
    # It is the company's plan, not the user's conduct.
    for _ in range(40):
        bob.send()
    assert (bob.close_code, bob.connection.session.conduct.errors) == (0, 0)
    assert bob.connection.session.messages == 1


async def test_messages_above_the_volume_go_on_by_a_plan_that_lets_them(process: Process, tenants: Tenants) -> None:
    for name in ("bob", "alice"):
        tenants.change(name, refuses_over_quota=False)
    bob = await process.connect()
    await use_up(process, tenants, 2 * LIMIT)
    bob.send(sequence=1)
    assert (nacks(bob), notices(bob)) == ([], ["quota_reached"])
    assert "go on" in bob.heard("Notice")[0].reason


async def test_plan_that_no_longer_refuses_lets_messages_through_at_once(process: Process, tenants: Tenants) -> None:
    bob = await process.connect()
    await use_up(process, tenants, LIMIT)
    for name in ("bob", "alice"):
        tenants.change(name, refuses_over_quota=False)
    await process.poll()
    bob.send(sequence=1)
    assert nacks(bob) == []
    await process.fleet.quotas.flush()
    bob.send(sequence=2)
    assert nacks(bob) == []


async def test_limit_that_is_raised_lets_messages_through_at_the_next_report(
    process: Process, tenants: Tenants
) -> None:
    bob = await process.connect()
    await use_up(process, tenants, LIMIT)
    bob.send(sequence=1)
    for name in ("bob", "alice"):
        tenants.change(name, monthly_data_limit=10 * LIMIT)
    await process.poll()
    await process.fleet.quotas.flush()
    bob.send(sequence=2)
    assert nacks(bob) == ["quota_exceeded"]
    # The next one is told anew.
    await use_up(process, tenants, 9 * LIMIT)
    assert notices(bob) == ["quota_reached", "quota_80_percent"]


async def test_new_month_lets_messages_through_without_any_new_use(process: Process, tenants: Tenants) -> None:
    bob = await process.connect()
    await use_up(process, tenants, LIMIT)
    bob.send(sequence=1)
    # As the row of the new month says.
    await use_up(process, tenants, 0)
    bob.send(sequence=2)
    assert nacks(bob) == ["quota_exceeded"]
    tenants.noticed["alpha"] = 0
    await use_up(process, tenants, 8_000)
    assert notices(bob) == ["quota_reached", "quota_80_percent"]


# --- A database that is away ------------------------------------------------------------------------------------------


async def test_what_is_sent_while_the_database_is_away_is_counted_once_after_its_return(
    process: Process, tenants: Tenants
) -> None:
    bob = await process.connect()
    record(bob)
    await process.fleet.quotas.flush()
    tenants.is_down = True
    with capture_logs() as logs:
        for _ in range(3):
            record(bob)
            await process.fleet.quotas.flush()
        tenants.is_down = False
        for _ in range(3):
            await process.fleet.quotas.flush()
    assert tenants.used == {"alpha": volume_of(bob)[1]}
    assert volume_of(bob)[0] == 4
    assert [entry["event"] for entry in logs] == ["usage_not_recorded"]


class SlowLedger:
    """The database takes longer than anybody waits, and then it has it."""

    def __init__(self, tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_end = threading.Event()
        self.has_begun = threading.Event()
        self._add = tenants.add
        monkeypatch.setattr(recording, "add", self.add)

    def add(self, amounts: Mapping[str, Amount]) -> dict[str, int]:
        self.has_begun.set()
        assert self.may_end.wait(10.0)
        return self._add(amounts)


async def test_report_that_nobody_waited_for_any_longer_is_not_sent_again(
    process: Process, tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "_ASK_TIMEOUT", 0.1)
    monkeypatch.setattr(quotas_module, "_SETTLE_TIMEOUT", 0.1)
    ledger, bob = SlowLedger(tenants, monkeypatch), await process.connect()
    record(bob)
    await process.fleet.quotas.flush()
    record(bob)
    # Still on its way: nothing else is sent.
    await process.fleet.quotas.flush()
    assert tenants.used == {}
    monkeypatch.setattr(access_module, "_ASK_TIMEOUT", 10.0)
    monkeypatch.setattr(quotas_module, "_SETTLE_TIMEOUT", 10.0)
    ledger.may_end.set()
    await process.fleet.quotas.flush()
    assert tenants.used == {"alpha": volume_of(bob)[1]}
    await process.fleet.quotas.flush()
    assert tenants.used == {"alpha": volume_of(bob)[1]}


async def test_report_that_the_end_of_the_process_cuts_off_is_not_counted_twice(
    make_process: MakeProcess, tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = make_process()
    ledger, bob = SlowLedger(tenants, monkeypatch), await process.connect()
    record(bob)
    report = asyncio.create_task(process.fleet.quotas.flush())
    await asyncio.to_thread(ledger.has_begun.wait, 10.0)
    record(bob)
    report.cancel()
    await asyncio.gather(report, return_exceptions=True)
    asyncio.get_running_loop().call_later(0.1, ledger.may_end.set)
    await process.fleet.quotas.flush()
    assert tenants.used == {"alpha": volume_of(bob)[1]}


async def test_report_that_never_began_is_sent_with_the_next(
    process: Process, tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await process.connect()
    record(bob)
    hold = threading.Event()
    holding = [asyncio.create_task(ask(process, hold)) for _ in range(4)]
    # All threads are given work; what comes next waits for one.
    await turns()
    report = asyncio.create_task(process.fleet.quotas.flush())
    await turns()
    report.cancel()
    await asyncio.gather(report, return_exceptions=True)
    hold.set()
    await asyncio.gather(*holding)
    assert tenants.used == {}
    await process.fleet.quotas.flush()
    assert tenants.used == {"alpha": volume_of(bob)[1]}


async def ask(process: Process, hold: threading.Event) -> Any:
    """Keeps one of the threads busy that ask the database."""
    return await process.fleet.directory.ask(lambda: hold.wait(10.0))


async def test_notice_that_the_database_did_not_take_is_written_with_the_next_report(
    process: Process, tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await process.connect()
    written = tenants.notice

    def fails(*arguments: Any) -> bool:
        tenants.is_down = True
        try:
            return written(*arguments)
        finally:
            tenants.is_down = False

    monkeypatch.setattr(recording, "notice", fails)
    await use_up(process, tenants, 8_500)
    assert (tenants.noticed["alpha"], notices(bob)) == (0, ["quota_80_percent"])
    monkeypatch.setattr(recording, "notice", written)
    bob.send()
    await process.fleet.quotas.flush()
    assert tenants.noticed["alpha"] == 80
    await process.fleet.quotas.flush()
    assert notices(bob) == ["quota_80_percent"]


async def test_notice_of_one_company_that_fails_makes_nothing_of_another_count_twice(
    process: Process, tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants.users["charlie"] = dataclasses.replace(BOB, user_id="charlie", company_id="beta")
    bob, charlie = await process.connect(), await process.connect(token_of("charlie", "beta"))
    record(bob)
    record(charlie)
    tenants.used["alpha"] = LIMIT

    def fails(*_arguments: Any) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(recording, "notice", fails)
    with pytest.raises(ZeroDivisionError):
        await process.fleet.quotas.flush()
    monkeypatch.setattr(recording, "notice", tenants.notice)
    await process.fleet.quotas.flush()
    assert tenants.used == {"alpha": LIMIT + volume_of(bob)[1], "beta": volume_of(charlie)[1]}


# --- A real database --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("committed_db")
async def test_two_processes_on_a_real_database_add_up_and_tell_once() -> None:
    cast = await asyncio.to_thread(make_cast)
    bob, alpha = str(cast.bob.pk), str(cast.alpha.pk)
    await asyncio.to_thread(CompanyOverride.objects.create, company=cast.alpha, monthly_data_limit=1_000)
    await asyncio.to_thread(ActivePair.objects.create, user=cast.bob, symbol="EURUSD")
    await asyncio.to_thread(
        MT5Account.objects.create, company=cast.alpha, owner=cast.bob, login="1001", broker_server="Broker"
    )
    # Its users are not asked for: the doors of the rooms are the real ones here.
    processes = [Process(Tenants()) for _ in range(2)]
    lives = [
        await process.connect(token_of(bob, alpha), query=f"stream=s{number}")
        for number, process in enumerate(processes)
    ]
    while sum(volume_of(one)[1] for one in lives) < 1_000:
        for process, one in zip(processes, lives, strict=True):
            record(one, payload=ticks(account=""))
            await process.fleet.quotas.flush()
    for process in processes:
        await process.fleet.quotas.flush()
    total = sum(volume_of(one)[1] for one in lives)
    assert await asyncio.to_thread(recording.volume_of, alpha) == total
    for one in lives:
        assert notices(one) == ["quota_80_percent", "quota_reached"]
        one.send(payload=ticks(account=""))
        assert nacks(one) == ["quota_exceeded"]
    told = await asyncio.to_thread(lambda: list(OutboxEvent.objects.filter(topic="user-activity")))
    assert len(told) == 2
    for process in processes:
        await process.runtime.stop()
    assert await asyncio.to_thread(recording.volume_of, alpha) == total


async def test_report_between_admission_and_the_first_connection_finds_nothing_used_up(process: Process) -> None:
    """The plan comes with the first connection: until then no limit is known, and none is reached."""
    entry = process.runtime.registry.user(policy_of(BOB), time.monotonic())
    entry.reserve()
    await process.fleet.quotas.flush()
    assert not entry.company.volume.is_exhausted
    entry.release()
