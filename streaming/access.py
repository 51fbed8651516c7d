"""What the tenants room says of a user, cached in the process and kept true. Room: streaming.

A look-up costs one visit to the database per user and change: every write there raises the company's access version,
and a poll of the versions each few seconds drops what has changed. The poll also brings revoked tokens.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import structlog
from django.db import DatabaseError, InterfaceError, close_old_connections

from streaming.core.policy import UserPolicy
from tenants import access as tenants_access
from tenants.access import TerminalAccess

log = structlog.get_logger(__name__)
# Seconds that an answer of the database is waited for: a terminal's handshake, and the poll, hang on it.
_ASK_TIMEOUT = 5.0
_T = TypeVar("_T")


class AccessUnavailable(Exception):
    """The database cannot be asked and nothing is remembered; trying again helps."""

    retryable = True


class AccessListener(Protocol):
    """Hears of changes that concern live connections."""

    def live_versions(self) -> dict[str, dict[str, int]]:
        """Company id -> user id -> the access version that the user's sessions here live by."""

    def access_changed(self, user_id: str, access: TerminalAccess | None) -> None: ...

    def tokens_revoked(self, jtis: Collection[str]) -> None: ...


def policy_of(access: TerminalAccess) -> UserPolicy:
    return UserPolicy(
        user_id=access.user_id,
        company_id=access.company_id,
        tier=access.tier,
        version=access.access_version,
        message_rate_limit=access.message_rate_limit,
        connection_limit=access.connection_limit,
        pair_limit=access.pair_limit,
        account_limit=access.account_limit,
        active_pairs=access.active_pairs,
        accounts=access.accounts,
        features=access.features,
    )


class AccessDirectory:
    """Cache first; the database in threads of its own, so that a slow one never holds the event loop."""

    def __init__(self, *, ttl: float, poll_interval: float) -> None:
        """Seconds both; ``ttl`` also bounds how long the cache alone lets a user in while the database is away."""
        self._ttl = ttl
        self.poll_interval = poll_interval
        self._cache: dict[str, tuple[TerminalAccess, float]] = {}
        self._pending: dict[str, asyncio.Task[TerminalAccess | None]] = {}
        self._revoked: dict[str, float] = {}
        self._revoked_row = 0
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="access")
        self._is_down = False
        self.is_loaded = False

    def is_revoked(self, jti: str) -> bool:
        return jti in self._revoked

    async def find(self, user_id: str) -> TerminalAccess | None:
        """None for an unknown user; raises AccessUnavailable."""
        cached = self._cache.get(user_id)
        if cached is not None and time.monotonic() - cached[1] < self._ttl:
            return cached[0]
        task = self._pending.get(user_id)
        if task is None:
            # Many connections of one user at once, as after a restart, make one visit.
            task = self._pending[user_id] = asyncio.get_running_loop().create_task(self._load(user_id))
            task.add_done_callback(lambda _: self._pending.pop(user_id, None))
        return await asyncio.shield(task)

    async def _load(self, user_id: str) -> TerminalAccess | None:
        access = await self._ask(lambda: tenants_access.terminal_access(user_id))
        if access is None:
            self._cache.pop(user_id, None)
        else:
            self._cache[user_id] = (access, time.monotonic())
        return access

    async def _ask(self, question: Callable[[], _T]) -> _T:
        def visit() -> _T:
            close_old_connections()
            try:
                return question()
            finally:
                close_old_connections()

        try:
            async with asyncio.timeout(_ASK_TIMEOUT):
                return await asyncio.get_running_loop().run_in_executor(self._threads, visit)
        except (DatabaseError, InterfaceError, TimeoutError) as error:
            raise AccessUnavailable(type(error).__name__) from error

    async def poll(self, listener: AccessListener) -> None:
        """One round: revoked tokens, then companies whose version has moved."""
        try:
            await self._poll_revoked(listener)
            await self._poll_versions(listener)
        except AccessUnavailable as error:
            if not self._is_down:
                self._is_down = True
                log.warning("access_database_down", reason=str(error))
            return
        self.is_loaded = True
        if self._is_down:
            self._is_down = False
            log.info("access_database_back")

    async def _poll_revoked(self, listener: AccessListener) -> None:
        rows = await self._ask(lambda: tenants_access.revoked_tokens(self._revoked_row))
        # The last rows come again each time: transactions do not commit in the order of their ids.
        fresh = {jti: expires_at for _, jti, expires_at in rows if jti not in self._revoked}
        if fresh:
            self._revoked_row = max(self._revoked_row, rows[-1][0])
            self._revoked.update(fresh)
            listener.tokens_revoked(fresh.keys())
        now = time.time()
        self._revoked = {jti: expires_at for jti, expires_at in self._revoked.items() if expires_at + 60 > now}

    async def _poll_versions(self, listener: AccessListener) -> None:
        live = listener.live_versions()
        companies = set(live) | {access.company_id for access, _ in self._cache.values()}
        if not companies:
            return
        versions = await self._ask(lambda: tenants_access.access_versions(companies))
        for user_id, (access, _) in list(self._cache.items()):
            if versions.get(access.company_id) != access.access_version:
                del self._cache[user_id]
        for company_id, users in live.items():
            for user_id, version in users.items():
                if versions.get(company_id) != version:
                    listener.access_changed(user_id, await self.find(user_id))
        stale = time.monotonic() - self._ttl
        for user_id in [u for u, (_, since) in self._cache.items() if since < stale]:
            del self._cache[user_id]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
