"""What the tenants room says of a user, cached in the process and kept true. Room: streaming.

A look-up costs one visit to the database per user and change: every write there raises the company's access version.
News of a change comes by Redis and by Kafka, and a poll of the versions each few seconds finds what neither brought; it
brings revoked tokens and kicks as well.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import structlog
from django.db import DatabaseError, InterfaceError, close_old_connections

from streaming.cluster.cache import AccessCache
from streaming.core.policy import UserPolicy
from tenants import access as tenants_access
from tenants.access import TerminalAccess

log = structlog.get_logger(__name__)
# Seconds that an answer of the database is waited for: a terminal's handshake, and the poll, hang on it.
_ASK_TIMEOUT = 5.0
# Users whose change is brought to their connections before others have their turn.
_TURN_LIMIT = 50
# Seconds that kicks and versions are remembered.
_MEMORY = 120.0
_T = TypeVar("_T")


class AccessUnavailable(Exception):
    """The database cannot be asked and nothing is remembered; trying again helps."""

    retryable = True


class AccessListener(Protocol):
    """Hears of changes that concern live connections."""

    def live_versions(self, companies: Collection[str] | None = None) -> dict[str, dict[str, int]]:
        """Company id -> user id -> the access version that the user's sessions here live by; None: all companies."""

    def access_changed(self, user_id: str, access: TerminalAccess | None) -> None: ...

    def tokens_revoked(self, jtis: Collection[str]) -> None: ...

    def kicked(self, user_id: str, session_id: str, at: float) -> None:
        """``session_id``: "" for all that were open at ``at`` (Unix seconds)."""


def policy_of(access: TerminalAccess, bound_to: str = "") -> UserPolicy:
    """``bound_to``: the MT5 login that the connection's API key is bound to, if it is; it has no other then."""
    return UserPolicy(
        user_id=access.user_id,
        company_id=access.company_id,
        tier=access.tier,
        version=access.access_version,
        message_rate_limit=access.message_rate_limit,
        connection_limit=access.connection_limit,
        company_connection_limit=access.company_connection_limit,
        pair_limit=access.pair_limit,
        account_limit=access.account_limit,
        active_pairs=access.active_pairs,
        accounts=access.accounts & {bound_to} if bound_to else access.accounts,
        features=access.features,
        monthly_data_limit=access.monthly_data_limit,
    )


class AccessDirectory:
    """Cache first; the database in threads of its own, so that a slow one never holds the event loop."""

    def __init__(self, *, ttl: float, poll_interval: float, shared: AccessCache | None = None) -> None:
        """Seconds both; ``ttl`` also bounds how long the cache alone lets a user in while the database is away."""
        self._ttl = ttl
        self.poll_interval = poll_interval
        self._shared = shared
        self._cache: dict[str, tuple[TerminalAccess, float]] = {}
        self._pending: dict[str, asyncio.Task[TerminalAccess | None]] = {}
        # Company id -> the newest version that is known, and since when.
        self._versions: dict[str, tuple[int, float]] = {}
        self._news = asyncio.Event()
        self._changed: set[str] = set()
        self._revoked: dict[str, float] = {}
        self._revoked_row = 0
        self._kicked: dict[int, float] = {}
        self._kick_row = 0
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="access")
        self._is_down = False
        self.is_loaded = False

    def is_revoked(self, jti: str) -> bool:
        return jti in self._revoked

    # --- Look-up -----------------------------------------------------------------------------------------------------

    async def find(self, user_id: str, *, fresh: bool = False) -> TerminalAccess | None:
        """None for an unknown user; raises AccessUnavailable. ``fresh``: by the database, whatever is remembered."""
        if fresh:
            return await self._ask_database(user_id)
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
        shared = None if self._shared is None else await self._shared.get(user_id)
        if shared is not None and self._is_current(shared):
            self._cache[user_id] = (shared, time.monotonic())
            return shared
        try:
            return await self._ask_database(user_id)
        except AccessUnavailable:
            if shared is None or shared.access_version < self._versions.get(shared.company_id, (0, 0.0))[0]:
                raise
            # Not older than the cache's time to live, as what this process would remember by itself.
            return shared

    async def _ask_database(self, user_id: str) -> TerminalAccess | None:
        access = await self.ask(lambda: tenants_access.terminal_access(user_id))
        if access is None:
            self._cache.pop(user_id, None)
            return None
        self._remember(access)
        if self._shared is not None:
            await self._shared.put([access])
        return access

    def _is_current(self, access: TerminalAccess) -> bool:
        """Whether this is what the last poll or the last news of the company says; older ones are looked up again."""
        version, since = self._versions.get(access.company_id, (0, 0.0))
        return access.access_version == version and time.monotonic() - since < 2 * self.poll_interval

    def _remember(self, access: TerminalAccess) -> None:
        cached = self._cache.get(access.user_id)
        if cached is None or cached[0].access_version <= access.access_version:
            self._cache[access.user_id] = (access, time.monotonic())

    async def ask(self, question: Callable[[], _T]) -> _T:
        """Runs ``question`` in a thread; raises AccessUnavailable when the database does not answer it in time."""

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

    # --- News --------------------------------------------------------------------------------------------------------

    def company_changed(self, company_id: str, version: int) -> None:
        """Somebody says that a company is at ``version`` now (0: deleted); ``follow`` looks."""
        known = self._versions.get(company_id, (0, 0.0))[0]
        if version == 0 or version > known:
            self._changed.add(company_id)
            self._news.set()

    def look_again(self, access: TerminalAccess) -> None:
        """A connection lives by ``access`` from now on: has the company changed since that was read?"""
        if access.access_version < self._versions.get(access.company_id, (0, 0.0))[0]:
            self._changed.add(access.company_id)
            self._news.set()

    def look_at_everything(self) -> None:
        """News may have been missed: the poll is due now."""
        self._changed.add("")
        self._news.set()

    async def follow(self, listener: AccessListener) -> None:
        """Waits for news and brings what it means to the listener; one turn."""
        await self._news.wait()
        self._news.clear()
        changed, self._changed = self._changed, set()
        if "" in changed:
            await self.poll(listener)
        try:
            await self._look(listener, changed - {""})
        except AccessUnavailable:
            # The poll asks again, and says that the database is down.
            return

    async def poll(self, listener: AccessListener) -> None:
        """One round: revoked tokens, kicks, then companies whose version has moved."""
        try:
            await self._poll_revoked(listener)
            await self._poll_kicks(listener)
            live = listener.live_versions()
            await self._look(listener, set(live) | {access.company_id for access, _ in self._cache.values()})
        except AccessUnavailable as error:
            if not self._is_down:
                self._is_down = True
                log.warning("access_database_down", reason=str(error))
            return
        self.is_loaded = True
        if self._is_down:
            self._is_down = False
            log.info("access_database_back")
        self._forget()

    async def _poll_revoked(self, listener: AccessListener) -> None:
        rows = await self.ask(lambda: tenants_access.revoked_tokens(self._revoked_row))
        # The last rows come again each time: transactions do not commit in the order of their ids.
        fresh = {jti: expires_at for _, jti, expires_at in rows if jti not in self._revoked}
        if fresh:
            self._revoked_row = max(self._revoked_row, rows[-1][0])
            self._revoked.update(fresh)
            listener.tokens_revoked(fresh.keys())
        now = time.time()
        self._revoked = {jti: expires_at for jti, expires_at in self._revoked.items() if expires_at + 60 > now}

    def revoke(self, listener: AccessListener, jti: str, expires_at: float) -> None:
        """News of a revoked token; ``expires_at`` in Unix seconds. The poll brings it as well."""
        if jti not in self._revoked:
            self._revoked[jti] = expires_at
            listener.tokens_revoked([jti])

    async def _poll_kicks(self, listener: AccessListener) -> None:
        for row, session_id, user_id, at in await self.ask(lambda: tenants_access.kicks(self._kick_row)):
            self._kick_row = max(self._kick_row, row)
            self.kick(listener, row, user_id, session_id, at)

    def kick(self, listener: AccessListener, row: int, user_id: str, session_id: str, at: float) -> None:
        """A kick is carried out once, whichever way it came."""
        if row not in self._kicked:
            self._kicked[row] = time.monotonic()
            listener.kicked(user_id, session_id, at)

    async def _look(self, listener: AccessListener, companies: set[str]) -> None:
        """Brings what has changed in these companies to the sessions that live by something older."""
        if not companies:
            return
        versions = await self.ask(lambda: tenants_access.access_versions(companies))
        now = time.monotonic()
        for company_id in companies:
            self._versions[company_id] = (versions.get(company_id, 0), now)
        for user_id, (access, _) in list(self._cache.items()):
            if access.company_id in companies and versions.get(access.company_id) != access.access_version:
                del self._cache[user_id]
        live = listener.live_versions(companies)
        stale = [
            user_id
            for company_id in companies
            for user_id, version in live.get(company_id, {}).items()
            if versions.get(company_id) != version
        ]
        if not stale:
            return
        found = await self.ask(lambda: tenants_access.terminal_accesses(stale))
        for place, user_id in enumerate(stale):
            if place and place % _TURN_LIMIT == 0:
                await asyncio.sleep(0)
            access_now = found.get(user_id)
            if access_now is not None:
                self._remember(access_now)
            listener.access_changed(user_id, access_now)
        if self._shared is not None:
            await self._shared.put(list(found.values()))

    def _forget(self) -> None:
        now = time.monotonic()
        for user_id in [u for u, (_, since) in self._cache.items() if since < now - self._ttl]:
            del self._cache[user_id]
        for company_id in [c for c, (_, since) in self._versions.items() if since < now - _MEMORY]:
            del self._versions[company_id]
        self._kicked = {row: since for row, since in self._kicked.items() if since > now - _MEMORY}

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
