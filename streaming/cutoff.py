"""Where changes of access arrive at live sessions, and where abuse ends them. Room: streaming."""

import asyncio
import time
from collections.abc import Collection, Coroutine
from typing import Any

import structlog

from streaming.access import AccessDirectory, policy_of
from streaming.bans import BanNote, Bans, Blame
from streaming.cluster.places import Places
from streaming.cluster.shares import Shares
from streaming.core.breaker import Verdict
from streaming.core.codes import CloseCode
from streaming.core.session import Session
from streaming.refusals import NO_SUCH_ACCOUNT, REFUSALS
from streaming.registry import Connection, Registry, UserEntry
from tenants.access import TerminalAccess

log = structlog.get_logger(__name__)

_REVOKED = "this token was revoked: get a new one"
# Seconds for which a user may hold too many connections, over all processes: one that takes another's place is counted
# beside it for a moment.
_SURPLUS_PATIENCE = 3.0


class Cutoff:
    """One a process; an AccessListener."""

    def __init__(
        self, registry: Registry, directory: AccessDirectory, bans: Bans, shares: Shares, places: Places
    ) -> None:
        self._registry = registry
        self._directory = directory
        self._bans = bans
        self._shares = shares
        self._places = places
        # User id -> since when there are too many connections.
        self._surplus: dict[str, float] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def live_versions(self, companies: Collection[str] | None = None) -> dict[str, dict[str, int]]:
        known = self._registry.companies
        versions: dict[str, dict[str, int]] = {}
        for company_id in known if companies is None else companies:
            company = known.get(company_id)
            for user_id, entry in company.users.items() if company is not None else ():
                live = [connection.session.policy.version for connection in entry.connections]
                if live:
                    versions.setdefault(company_id, {})[user_id] = min(live)
        return versions

    # --- Changes in the database -------------------------------------------------------------------------------------

    def access_changed(self, user_id: str, access: TerminalAccess | None) -> None:
        entry = self._registry.users.get(user_id)
        if entry is None or (access is not None and _is_older(access, entry)):
            return
        for connection in entry.all_connections():
            self._apply(connection, access)
        if access is not None:
            self.adopt(entry, access)
            self._places.mark(user_id, access.company_id)

    def adopt(self, entry: UserEntry, access: TerminalAccess) -> None:
        """What the entries of a user and a company know of the plan."""
        if _is_older(access, entry):
            return
        entry.version = access.access_version
        entry.bans = access.bans
        entry.api_keys = access.api_keys
        entry.company.monthly_data_limit = access.monthly_data_limit
        entry.company.refuses_over_quota = access.refuses_over_quota
        if entry.company.volume.is_exhausted and not access.refuses_over_quota:
            entry.company.volume.is_exhausted = False
        entry.set_rate(access.message_rate_limit)

    def _apply(self, connection: Connection, access: TerminalAccess | None) -> None:
        session = connection.session
        refusal = "user_disabled" if access is None else access.refusal
        if access is None or refusal:
            _, code, detail = REFUSALS[refusal]
            session.end(code, detail)
        elif access.company_id != session.policy.company_id:
            session.end(CloseCode.TOKEN_REVOKED, "the user has moved to another company: get a new token")
        elif connection.api_key and access.api_keys.get(connection.api_key, 0.0) <= time.time():
            session.end(CloseCode.TOKEN_REVOKED, "the API key of this terminal was revoked: ask for a new one")
        elif ban := self._bans.standing(access, connection.source):
            _end_banned(session, ban)
        elif connection.account and connection.account not in access.accounts:
            session.end(CloseCode.ACCOUNT_NOT_ALLOWED, NO_SUCH_ACCOUNT)
        else:
            session.apply_policy(policy_of(access, connection.account if session.is_bound else ""))
            connection.access_deadline = time.monotonic() + (access.access_until - time.time())

    def tokens_revoked(self, jtis: Collection[str]) -> None:
        for jti in jtis:
            for connection in list(self._registry.tokens.get(jti, ())):
                connection.session.end(CloseCode.TOKEN_REVOKED, _REVOKED)

    def kicked(self, user_id: str, session_id: str, at: float) -> None:
        entry = self._registry.users.get(user_id)
        for connection in entry.all_connections() if entry is not None else ():
            if connection.session.session_id == session_id or (not session_id and connection.opened_at < at):
                reason = "the connection was ended by an administrator"
                connection.session.end(CloseCode.SESSION_REPLACED, reason, retry_after_ms=5_000, jitter_ms=5_000)

    def check_new(self, connection: Connection, access: TerminalAccess) -> None:
        """What may have happened between the look at the token and the place in the registry."""
        if self._directory.is_revoked(connection.jti):
            connection.session.end(CloseCode.TOKEN_REVOKED, _REVOKED)
        elif ban := self._bans.standing(access, connection.source):
            _end_banned(connection.session, ban)
        self._directory.look_again(access)

    # --- Abuse -------------------------------------------------------------------------------------------------------

    def judge(self, now: float) -> None:
        """Once a second: moves every user's window on."""
        for user_id, entry in list(self._registry.users.items()):
            conduct = entry.conduct
            if not conduct.is_quiet:
                # A process sees only what comes to it: a flood that is spread over several is found by each of them
                # in its part. The part follows the demand, down to nothing where there is none, and comes after it:
                # whoever comes back must not be measured by nothing.
                part = max(entry.mirror.part, 1.0 / self._places.process_count)
                for verdict, source in conduct.look(now, entry.rate_limit * part):
                    self._ban(user_id, entry, verdict, source)

    def on_abuse(self, session: Session) -> None:
        """The session's messages are mostly invalid for certain."""
        entry = self._registry.users.get(session.policy.user_id)
        connection = self._registry.connections.get(session.session_id)
        if entry is not None and connection is not None and not session.closed:
            self._ban(session.policy.user_id, entry, Verdict.ERRORS, connection.source, connection)

    def _ban(
        self,
        user_id: str,
        entry: UserEntry,
        verdict: Verdict,
        source: str | None,
        connection: Connection | None = None,
    ) -> None:
        """``source``: None where no single one stands out; ``connection``: the one that was found out, if one was."""
        messages, errors, over_rate = entry.conduct.window(source)
        entry.conduct.forgive(time.monotonic(), source)
        blame = None if source is None else _blame(entry, source, connection)
        note = self._bans.set(user_id, verdict, entry.bans, blame)
        log.warning(
            "user_banned", user_id=user_id, company_id=entry.company.company_id, reason=note.reason,
            seconds=round(note.until - note.starts_at), repeat=note.repeat, source=note.source,
            account=note.account, api_key=note.api_key, session_id=note.session_id,
            messages=messages, errors=errors, over_rate=over_rate,
        )  # fmt: skip
        self._end_all(entry, note)
        self._spawn(self._bans.publish(user_id, note))
        self._spawn(self._bans.write_down())

    def heard_ban(self, user_id: str, note: BanNote) -> None:
        """Another process has found somebody out."""
        self._bans.heard(user_id, note)
        entry = self._registry.users.get(user_id)
        if entry is not None:
            self._end_all(entry, note)

    def heard_unban(self, user_id: str, at: float) -> None:
        self._bans.lift(user_id, at)
        self._spawn(self._bans.lift_shared(user_id, at))

    def _end_all(self, entry: UserEntry, note: BanNote) -> None:
        for connection in entry.all_connections():
            if note.source is None or note.source == connection.source:
                _end_banned(connection.session, note)

    # --- Other processes ---------------------------------------------------------------------------------------------

    def others(self, user_id: str, others: dict[str, int], process_id: str) -> None:
        """How many connections of the user the other processes hold: too many for too long are ended, the newest of
        the processes that come last by name first, so that all processes choose the same ones."""
        self._shares.note_others(user_id, frozenset(others))
        entry = self._registry.users.get(user_id)
        if entry is None or not entry.connections:
            self._surplus.pop(user_id, None)
            return
        limit = max(connection.session.policy.connection_limit for connection in entry.connections)
        before_us = sum(number for name, number in others.items() if name < process_id)
        surplus = len(entry.connections) - max(0, limit - before_us)
        if surplus <= 0 or len(entry.connections) + sum(others.values()) <= limit:
            self._surplus.pop(user_id, None)
            return
        now = time.monotonic()
        since = self._surplus.setdefault(user_id, now)
        self._places.mark(user_id, entry.company.company_id)
        if now - since >= _SURPLUS_PATIENCE:
            del self._surplus[user_id]
            newest = sorted(entry.connections, key=lambda connection: connection.opened_at)[-surplus:]
            for connection in newest:
                detail = f"the plan allows {limit} connections a user"
                connection.session.end(CloseCode.CONNECTION_LIMIT, detail)

    # --- Background --------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("cutoff_work_failed", error=repr(task.exception()))


def _blame(entry: UserEntry, source: str, found_out: Connection | None) -> Blame:
    """What is known of the source; of its connections the one that was found out, or the only one."""
    connections = [connection for connection in entry.all_connections() if connection.source == source]
    if found_out is None and len(connections) == 1:
        [found_out] = connections
    account = source.removeprefix("account ") if source.startswith("account ") else ""
    keys = {connection.api_key for connection in ([found_out] if found_out is not None else connections)}
    return Blame(
        account=account,
        api_key=keys.pop() if len(keys) == 1 else "",
        session_id=found_out.session.session_id if found_out is not None else "",
    )


def _end_banned(session: Session, note: BanNote) -> None:
    retry_after_ms = max(1, int((note.until - time.time()) * 1000))
    session.end(note.code, note.text, retry_after_ms=retry_after_ms, jitter_ms=min(retry_after_ms // 5, 10_000))


def _is_older(access: TerminalAccess, entry: UserEntry) -> bool:
    """Whether the entry knows of a later change already."""
    return access.company_id == entry.company.company_id and access.access_version < entry.version
