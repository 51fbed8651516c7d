"""Who may open a connection: token, then user, then limits, cache first. Room: streaming.

Every refusal happens before accept and is an HTTP answer; unknown and forbidden look alike.
"""

import asyncio
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from streaming.access import AccessDirectory, AccessUnavailable, policy_of
from streaming.bans import BanNote
from streaming.core.policy import UserPolicy
from streaming.core.replies import FORMS, PROTOBUF
from streaming.core.stream import SEQUENCE_LIMIT, WRITER_LIMIT, is_stream_id, is_writer
from streaming.core.throttle import TokenBucket
from streaming.refusals import NO_SUCH_ACCOUNT, REFUSALS
from streaming.registry import Registry, UserEntry
from tenants.access import TerminalAccess, ban_source
from tenants.tokens import Keyring, TokenClaims, TokenError

if TYPE_CHECKING:
    from streaming.fleet import Fleet

# A browser cannot set a header: it offers the token as one more subprotocol, which is never answered or logged.
_TOKEN_SUBPROTOCOL = "gateway.token."  # noqa: S105 (a prefix, not a token)
_BEARER = re.compile(r"[Bb]earer +(\S+)")
_ADDRESS_LIMIT = 20_000
# Seconds for which a user or a key that the database does not know is not asked for again: neither comes back, and
# whoever holds such a token must not keep the database from the others.
_UNKNOWN_MEMORY = 1.0
_UNKNOWN_LIMIT = 10_000
_QUERY_FIELD_LIMIT = 20
QUERY_NAMES = ("stream", "heard", "writer", "account")


class AdmissionRefused(Exception):
    """A handshake that is answered with ``status`` instead of being accepted."""

    def __init__(self, status: int, code: str, detail: str, *, retry_after: float = 0.0) -> None:
        super().__init__(status, code, detail)
        self.status = status
        self.code = code
        self.detail = detail
        # Seconds; 0 when waiting does not help.
        self.retry_after = retry_after

    def headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store")]
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b"Bearer"))
        if self.retry_after:
            headers.append((b"retry-after", str(math.ceil(self.retry_after)).encode()))
        return headers

    def body(self) -> bytes:
        """RFC 9457."""
        title = HTTPStatus(self.status).phrase
        return msgspec.json.encode(
            {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail, "code": self.code}
        )


@dataclass(frozen=True, slots=True)
class Handshake:
    """The parts of an upgrade request that decide, read once."""

    address: str
    origin: str | None
    token: str
    # "" when the query names none.
    stream_id: str
    # The chosen one of those offered; None when none was offered; "" when none of them is ours.
    subprotocol: str | None
    # The MT5 login that the terminal says it runs, "" when it says none.
    account: str = ""
    # Up to where the client has heard every answer of its stream; None when it does not say.
    heard: int | None = None
    # Which incarnation of the stream it writes, "" when it does not say.
    writer: str = ""
    # Whether the query holds a name that is none of QUERY_NAMES: one that is misspelt must not pass for one left out.
    has_unknown_names: bool = False

    @classmethod
    def from_scope(cls, scope: Mapping[str, Any]) -> "Handshake":
        """Raises AdmissionRefused (400, 401) for a request that contradicts itself."""
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value.decode("latin-1"))
        offered: list[str] = list(scope.get("subprotocols") or [])
        tokens = [name.removeprefix(_TOKEN_SUBPROTOCOL) for name in offered if name.startswith(_TOKEN_SUBPROTOCOL)]
        offered = [name for name in offered if not name.startswith(_TOKEN_SUBPROTOCOL)]
        for authorization in headers.get(b"authorization", []):
            match = _BEARER.fullmatch(authorization.strip())
            if match is None:
                raise AdmissionRefused(401, "token_invalid", "Authorization takes the form: Bearer <token>")
            tokens.append(match[1])
        if len(tokens) > 1:
            raise AdmissionRefused(401, "token_invalid", "send one token")
        text = scope.get("query_string", b"").decode("latin-1")
        try:
            query = parse_qs(text, keep_blank_values=True, max_num_fields=_QUERY_FIELD_LIMIT)
        except ValueError:
            detail = f"the query takes at most {_QUERY_FIELD_LIMIT} fields"
            raise AdmissionRefused(400, "query_invalid", detail) from None
        stream_id = query.get("stream", [""])[-1]
        if stream_id and not is_stream_id(stream_id):
            raise AdmissionRefused(400, "stream_invalid", "stream takes 1 to 64 of A-Z a-z 0-9 . _ : -")
        writer = query.get("writer", [""])[-1]
        if "writer" in query and not is_writer(writer):
            detail = f"writer takes 1 to {WRITER_LIMIT} of A-Z a-z 0-9 . _ : -"
            raise AdmissionRefused(400, "writer_invalid", detail)
        if writer and not stream_id:
            raise AdmissionRefused(400, "writer_invalid", "writer goes with stream: name the stream too")
        client = scope.get("client") or ("", 0)
        return cls(
            address=client[0],
            origin=headers[b"origin"][-1] if b"origin" in headers else None,
            token=tokens[0] if tokens else "",
            stream_id=stream_id,
            subprotocol=next((name for name in offered if name in FORMS), "") if offered else None,
            account=query.get("account", [""])[-1],
            heard=_heard(query["heard"][-1]) if "heard" in query else None,
            writer=writer,
            has_unknown_names=not query.keys() <= set(QUERY_NAMES),
        )

    @property
    def form_name(self) -> str:
        """The form of answers; "" when none of those offered is ours."""
        return PROTOBUF if self.subprotocol is None else self.subprotocol


@dataclass(frozen=True, slots=True)
class Admission:
    """Everything a new session needs; ``entry`` holds a reserved place that the caller must give back."""

    claims: TokenClaims
    access: TerminalAccess
    policy: UserPolicy
    entry: UserEntry
    stream_id: str
    form_name: str
    address: str
    # The MT5 login that the connection is for, "" when none was named and the user has not exactly one.
    account: str = ""
    heard: int | None = None
    writer: str = ""
    has_unknown_names: bool = False
    # Whether the account was named, by the key or at connect, rather than found to be the only one.
    is_named: bool = False
    is_bound: bool = False
    # Who is held to account for what it sends.
    source: str = ""


class AdmissionDesk:
    """Decides for one process."""

    def __init__(
        self,
        *,
        keyring: Keyring,
        directory: AccessDirectory,
        registry: Registry,
        fleet: "Fleet",
        allowed_origins: frozenset[str],
        address_rate_limit: float,
        connection_limit: int,
    ) -> None:
        """``address_rate_limit``: handshakes a second of one client address; ``connection_limit``: of the process."""
        self._keyring = keyring
        self._directory = directory
        self._registry = registry
        self._fleet = fleet
        self._allowed_origins = allowed_origins
        self._address_rate_limit = address_rate_limit
        self._connection_limit = connection_limit
        # Whether Kafka takes messages of a user now; the sink says so as soon as it is there.
        self.takes_user: Callable[[str], bool] = lambda _user_id: True
        self._addresses: dict[str, TokenBucket] = {}
        # Ids of users and of keys -> seconds of the monotonic clock up to which they are unknown.
        self._unknown: dict[str, float] = {}

    async def admit(self, handshake: Handshake) -> Admission:
        """Raises AdmissionRefused."""
        now = time.monotonic()
        if len(self._registry.connections) >= self._connection_limit:
            raise AdmissionRefused(503, "overload", "this process is full: try again", retry_after=5)
        self._check_address(handshake.address, now)
        if handshake.origin is not None and handshake.origin not in self._allowed_origins:
            raise AdmissionRefused(403, "origin_not_allowed", "this page may not open connections here")
        claims = self.verify(handshake.token)
        named = _named_account(claims, handshake)
        access = await self._access(claims)
        if not self.takes_user(claims.user_id):
            detail = "Kafka does not take messages of this user now"
            raise AdmissionRefused(503, "backend_unavailable", detail, retry_after=2)
        account = named or policy_of(access).only_account
        source = ban_source(account, claims.api_key)
        entry, user_limit = self._take_place(handshake, access, source, now)
        try:
            if named and named not in access.accounts:
                access = await self._with_account(claims, named)
            await self._share_place(access, source, user_limit)
        except BaseException:
            entry.release()
            self._fleet.released(claims.user_id, claims.company_id)
            raise
        return Admission(
            claims,
            access,
            policy_of(access, claims.account),
            entry,
            handshake.stream_id,
            handshake.form_name,
            handshake.address,
            account,
            heard=handshake.heard,
            writer=handshake.writer,
            has_unknown_names=handshake.has_unknown_names,
            is_named=bool(named),
            is_bound=bool(claims.account),
            source=source,
        )

    def verify(self, token: str) -> TokenClaims:
        """The claims of a token that is genuine, unexpired and not revoked."""
        if not token:
            raise AdmissionRefused(401, "token_missing", "send the token in the header Authorization: Bearer <token>")
        try:
            claims = self._keyring.verify(token, now=time.time())
        except TokenError as error:
            raise AdmissionRefused(401, error.code, str(error)) from None
        if self._directory.is_revoked(claims.jti):
            raise AdmissionRefused(401, "token_revoked", "this token was revoked: get a new one")
        return claims

    def _check_address(self, address: str, now: float) -> None:
        bucket = self._addresses.pop(address, None)
        if bucket is None:
            if len(self._addresses) >= _ADDRESS_LIMIT:
                # The half that was not seen for longest: its buckets have most likely filled up again.
                for old in list(self._addresses)[: _ADDRESS_LIMIT // 2]:
                    del self._addresses[old]
            rate = self._address_rate_limit
            bucket = TokenBucket(rate, 5 * rate, now)
        # Put back as the last one: the order is by the last use.
        self._addresses[address] = bucket
        if not bucket.take(now):
            retry = bucket.retry_after_ms() / 1000
            raise AdmissionRefused(429, "connect_rate", "too many connects from this address", retry_after=retry)

    async def _access(self, claims: TokenClaims) -> TerminalAccess:
        user_id, key = claims.user_id, claims.api_key
        try:
            access = None if self._is_unknown(user_id) else await self._directory.find(user_id)
            if access is not None and key and key not in access.api_keys and not self._is_unknown(key):
                # The key may be newer than what is remembered here.
                access = await self._directory.find(user_id, fresh=True)
                if access is not None and key not in access.api_keys:
                    self._note_unknown(key)
        except AccessUnavailable:
            raise AdmissionRefused(503, "identity_unavailable", "try again", retry_after=5) from None
        if access is None and not self._is_unknown(user_id):
            self._note_unknown(user_id)
        return self._check_access(claims, access)

    def _is_unknown(self, name: str) -> bool:
        return self._unknown.get(name, 0.0) > time.monotonic()

    def _note_unknown(self, name: str) -> None:
        if len(self._unknown) >= _UNKNOWN_LIMIT:
            self._unknown.clear()
        self._unknown[name] = time.monotonic() + _UNKNOWN_MEMORY

    async def _with_account(self, claims: TokenClaims, account: str) -> TerminalAccess:
        """What the database says of the user now: the account may be newer than what is remembered here."""
        try:
            access = self._check_access(claims, await self._directory.find(claims.user_id, fresh=True))
        except AccessUnavailable:
            raise AdmissionRefused(503, "identity_unavailable", "try again", retry_after=5) from None
        if account not in access.accounts:
            raise AdmissionRefused(403, "account_not_allowed", NO_SUCH_ACCOUNT)
        return access

    def _check_access(self, claims: TokenClaims, access: TerminalAccess | None) -> TerminalAccess:
        """``access`` itself, of a user who is welcome with this token."""
        if access is None or access.company_id != claims.company_id:
            raise AdmissionRefused(401, "token_invalid", "this token is not valid: get a new one")
        if claims.api_key and access.api_keys.get(claims.api_key, 0.0) <= time.time():
            raise AdmissionRefused(401, "token_revoked", "the API key of this terminal was revoked: ask for a new one")
        refusal = access.refusal
        if not refusal and access.access_until <= time.time():
            refusal = "payment_required"
        if refusal:
            status, _, detail = REFUSALS[refusal]
            raise AdmissionRefused(status, refusal, detail)
        return access

    def _take_place(
        self, handshake: Handshake, access: TerminalAccess, source: str, now: float
    ) -> tuple[UserEntry, int]:
        """A place among the connections of this process, and how many there may be over all processes."""
        _check_ban(self._fleet.bans.standing(access, source))
        policy = policy_of(access)
        entry = self._registry.user(policy, now)
        if not entry.connects.take(now):
            retry = entry.connects.retry_after_ms() / 1000
            raise AdmissionRefused(429, "connect_rate", "too many connects of this user", retry_after=retry)
        # The one that is replaced ends as soon as this one is accepted.
        replaces = int((policy.user_id, handshake.stream_id) in self._registry.carriers)
        if entry.held - replaces >= policy.connection_limit:
            raise _full(policy.connection_limit, "user_limit")
        if entry.company.held - replaces >= policy.company_connection_limit:
            raise _full(policy.company_connection_limit, "company_limit")
        entry.reserve()
        return entry, policy.connection_limit + replaces

    async def _share_place(self, access: TerminalAccess, source: str, user_limit: int) -> None:
        """The same among those of all processes, where the shared store answers."""
        fleet = self._fleet
        company_limit = access.company_connection_limit + user_limit - access.connection_limit
        reservation, ban = await asyncio.gather(
            fleet.places.reserve(access.user_id, access.company_id, user_limit, company_limit),
            fleet.bans.shared_standing(access, source),
        )
        _check_ban(ban)
        if reservation.refusal:
            is_user = reservation.refusal == "user_limit"
            limit = access.connection_limit if is_user else access.company_connection_limit
            raise _full(limit, reservation.refusal)
        await fleet.found_others(access.user_id, reservation.others)


def _named_account(claims: TokenClaims, handshake: Handshake) -> str:
    """The MT5 login that the key is bound to or the query names; raises AdmissionRefused where they differ."""
    if claims.account and handshake.account not in ("", claims.account):
        detail = f"the API key is bound to MT5 account {claims.account}: leave ?account= out, or use another key"
        raise AdmissionRefused(403, "account_not_allowed", detail)
    return claims.account or handshake.account


def _check_ban(ban: BanNote | None) -> None:
    if ban is not None:
        retry = max(1.0, ban.until - time.time())
        raise AdmissionRefused(429, "banned", f"{ban.text}: see Retry-After", retry_after=retry)


def _heard(text: str) -> int:
    """Raises AdmissionRefused (400)."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(SEQUENCE_LIMIT)) else -1
    if not 0 <= number <= SEQUENCE_LIMIT:
        raise AdmissionRefused(400, "heard_invalid", f"heard is a sequence: a whole number from 0 to {SEQUENCE_LIMIT}")
    return number


def _full(limit: int, whose: str) -> AdmissionRefused:
    if whose == "user_limit":
        detail = f"the plan allows {limit} connections a user: close another one first"
        return AdmissionRefused(429, "connection_limit", detail, retry_after=10)
    detail = f"the plan allows the company {limit} connections: close another one first"
    return AdmissionRefused(429, "company_connection_limit", detail, retry_after=10)
