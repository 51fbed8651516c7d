"""The monthly volume of companies: reported every few seconds, refused when it is used up. Room: streaming.

The database holds the sum of all processes. What is accepted between two reports is the error: at most
``interval`` seconds of a company's traffic for each process.
"""

import asyncio
import threading
import time
from collections.abc import Mapping

import structlog

from streaming.access import AccessDirectory, AccessUnavailable
from streaming.core.codes import NoticeCode
from streaming.registry import CompanyEntry, Connection, Registry
from usage import recording
from usage.recording import NOTICE_PERCENT, Amount

log = structlog.get_logger(__name__)
# Seconds for which a report that nobody waited for is waited for before the next one.
_SETTLE_TIMEOUT = 5.0


class _Report:
    """What is on its way to the database. The thread that writes it goes on when nobody waits any longer: only it knows
    whether the amounts are there, and what is not known must not be sent again."""

    def __init__(self, amounts: Mapping[str, Amount], counted: Mapping[str, tuple[int, int]]) -> None:
        """``counted``: the counters of the companies as they are once this has been written."""
        self.counted = counted
        # Bytes of the month by company id; None: not written.
        self.totals: dict[str, int] | None = None
        self._amounts = amounts
        self._lock = threading.Lock()
        self._is_begun = False
        self._is_void = False
        self._is_over = False

    def write(self) -> None:
        """In a thread."""
        with self._lock:
            if self._is_void:
                return
            self._is_begun = True
        try:
            self.totals = recording.add(self._amounts)
        finally:
            self._is_over = True

    def is_over(self) -> bool:
        """Whether ``totals`` is final; one that has not begun never will after this."""
        with self._lock:
            self._is_void = not self._is_begun
            return self._is_void or self._is_over


class Quotas:
    """Reports what the registry's companies have used."""

    def __init__(self, registry: Registry, directory: AccessDirectory, *, interval: float) -> None:
        """``interval``: seconds between two reports."""
        self._registry = registry
        self._directory = directory
        self.interval = interval
        # Company id -> messages and bytes that are in the database.
        self._reported: dict[str, tuple[int, int]] = {}
        # Company id -> percent that the database knows the company to be told of.
        self._noted: dict[str, int] = {}
        self._report: _Report | None = None
        self._is_down = False

    async def flush(self) -> None:
        deadline = time.monotonic() + _SETTLE_TIMEOUT
        while self._report is not None and not self._report.is_over():
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.02)
        await self._settle()
        amounts: dict[str, Amount] = {}
        counted: dict[str, tuple[int, int]] = {}
        for company_id, entry in list(self._registry.companies.items()):
            now = (entry.volume.messages, entry.volume.size)
            before = self._reported.get(company_id)
            counted[company_id] = now
            # Who is told or refused is asked for without use of its own: the month may have turned, or the plan.
            if before is None or before != now or entry.noticed:
                messages, size = before or (0, 0)
                amounts[company_id] = Amount(now[0] - messages, now[1] - size)
        for company_id in [c for c, e in self._registry.companies.items() if not e.held and not e.users]:
            if company_id not in amounts:
                del self._registry.companies[company_id]
                self._reported.pop(company_id, None)
                self._noted.pop(company_id, None)
        if not amounts:
            return
        report = self._report = _Report(amounts, counted)
        try:
            await self._directory.ask(report.write)
        except AccessUnavailable as error:
            if not self._is_down:
                self._is_down = True
                log.warning("usage_not_recorded", reason=str(error))
            return
        self._is_down = False
        await self._settle()

    async def _settle(self) -> None:
        """Takes over what the last report has brought."""
        report, self._report = self._report, None
        if report is None or report.totals is None:
            return
        # All of them first: whatever happens to one company's notice, nothing is counted twice.
        self._reported.update({company_id: report.counted[company_id] for company_id in report.totals})
        for company_id, used in report.totals.items():
            entry = self._registry.companies.get(company_id)
            if entry is not None:
                await self._judge(entry, used)

    async def _judge(self, entry: CompanyEntry, used: int) -> None:
        limit = entry.monthly_data_limit
        percent = 100 if used >= limit else NOTICE_PERCENT if used * 100 >= limit * NOTICE_PERCENT else 0
        entry.volume.is_exhausted = percent == 100 and entry.refuses_over_quota
        is_news = percent > entry.noticed
        entry.noticed = percent
        if is_news:
            for connection in list(self._registry.connections.values()):
                if connection.entry.company is entry:
                    tell(connection)
        noted = self._noted[entry.company_id] = min(percent, self._noted.get(entry.company_id, 0))
        if percent > noted:
            try:
                is_first = await self._directory.ask(lambda: recording.notice(entry.company_id, percent, used, limit))
            except AccessUnavailable:
                # Written with the next report; the connections have been told.
                return
            self._noted[entry.company_id] = percent
            if is_first:
                log.info("quota_notice", company_id=entry.company_id, percent=percent, used=used, limit=limit)


def tell(connection: Connection) -> None:
    """Says how much of the month's volume the company has used, where that is worth saying."""
    company = connection.entry.company
    if company.noticed:
        code = NoticeCode.QUOTA_REACHED if company.noticed == 100 else NoticeCode.QUOTA_80_PERCENT
        refused = "messages are refused until the next one" if company.volume.is_exhausted else "messages go on"
        reason = (
            f"{company.noticed} % of the company's data volume of this month is used; it begins anew with the month"
        )
        if company.noticed == 100:
            reason = f"the company's data volume of this month is used up: {refused}"
        detail = {"percent": str(company.noticed), "limit_bytes": str(company.monthly_data_limit)}
        connection.session.notice(code, reason, detail)
