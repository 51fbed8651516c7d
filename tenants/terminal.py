"""What the stream needs to know of users, built here and nowhere else. Room: tenants.

Tier, override and the user's own settings become one ``TerminalAccess`` with the company's access version.
"""

import datetime
import math
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from django.conf import settings
from django.db.models import F, Q
from django.utils import timezone

from tenants.conduct import ban_source, earned_by
from tenants.models import (
    MESSAGE_RATE_CEILING,
    ActivePair,
    ApiKey,
    Ban,
    Company,
    Kick,
    Limits,
    MT5Account,
    RevokedToken,
    User,
    limits_of,
)

# More rows than are ever written while one transaction that revokes a token or kicks a session is open.
_OVERLAP = 200
# Bans of this long are counted when the next one is measured out.
BAN_MEMORY = datetime.timedelta(days=1)
# SQLite takes a bounded number of parameters in one query.
_BATCH = 400


@dataclass(frozen=True, slots=True)
class SourceBan:
    """A ban that holds for one source of a user's connections (see ``ban_source``) and leaves the others alone."""

    source: str
    # errors, flooding or operator; Unix seconds; whose messages it is for, in words.
    reason: str
    until: float
    earned_by: str


@dataclass(frozen=True, slots=True)
class TerminalAccess:
    """Everything the stream needs to know about one user."""

    user_id: str
    username: str
    company_id: str
    tier: str
    # The company's; a larger one replaces a smaller one.
    access_version: int
    # "" when welcome, else user_disabled, company_suspended or payment_required.
    refusal: str
    # Unix seconds at which paid time and grace end; infinity when they do not.
    access_until: float
    # Messages a second over all of the user's connections.
    message_rate_limit: float
    connection_limit: int
    company_connection_limit: int
    pair_limit: int
    account_limit: int
    # Bytes a month of the whole company.
    monthly_data_limit: int
    refuses_over_quota: bool
    active_pairs: frozenset[str]
    # MT5 logins.
    accounts: frozenset[str]
    # Any of signals, alerts, replay.
    features: frozenset[str]
    # Keys that tokens may come from: id -> Unix seconds at which it ends, infinity when it does not.
    api_keys: dict[str, float]
    # Unix seconds at which a ban of the whole user ends, 0.0 when there is none.
    banned_until: float = 0.0
    # errors, flooding or operator; "" without a ban. Whose messages it is for, in words.
    ban_reason: str = ""
    ban_earned_by: str = ""
    source_bans: tuple[SourceBan, ...] = ()
    # How many bans there were within a day, of the whole user and of sources.
    bans: int = 0
    # Unix seconds at which an operator last lifted a ban within a day: none that began before that stands.
    lifted_at: float = 0.0


def terminal_access(user_id: str) -> TerminalAccess | None:
    """None for a user that does not exist, has no company, or an id that is none."""
    return terminal_accesses([user_id]).get(user_id)


def terminal_accesses(user_ids: Collection[str]) -> dict[str, TerminalAccess]:
    """By id as it was given; who does not exist or has no company is missing. A few queries for any number."""
    keys = {text: key for text in user_ids if (key := as_uuid(text)) is not None}
    found: dict[uuid.UUID, TerminalAccess] = {}
    wanted = list(set(keys.values()))
    for start in range(0, len(wanted), _BATCH):
        found.update(_accesses(wanted[start : start + _BATCH]))
    return {text: found[key] for text, key in keys.items() if key in found}


def _accesses(keys: list[uuid.UUID]) -> dict[uuid.UUID, TerminalAccess]:
    people = User.objects.filter(pk__in=keys, company__isnull=False)
    users = list(people.select_related("company__tier", "company__override"))
    companies = {user.company.pk: user.company for user in users if user.company is not None}
    limits = {pk: limits_of(company) for pk, company in companies.items()}
    pairs: dict[uuid.UUID, list[str]] = defaultdict(list)
    for user_id, symbol in ActivePair.objects.filter(user__in=keys).order_by("pk").values_list("user_id", "symbol"):
        pairs[user_id].append(symbol)
    logins = _logins(limits)
    api_keys = _api_keys(keys)
    bans = _bans(keys)
    return {
        user.pk: _access(user, user.company, limits[user.company.pk], pairs, logins, api_keys, bans.get(user.pk, []))
        for user in users
        if user.company is not None
    }


def _access(
    user: User,
    company: Company,
    limits: Limits,
    pairs: dict[uuid.UUID, list[str]],
    logins: dict[uuid.UUID, list[str]],
    api_keys: dict[uuid.UUID, dict[str, float]],
    bans: list[Ban],
) -> TerminalAccess:
    rate = limits.message_rate_limit
    if user.message_rate_limit is not None:
        rate = min(rate, user.message_rate_limit)
    connections = limits.connection_limit
    if user.connection_limit is not None:
        connections = min(connections, user.connection_limit)
    features = limits.features if user.may_send_signals else limits.features - {"signals"}
    lifted_at = max((ban.lifted_at.timestamp() for ban in bans if ban.lifted_at is not None), default=0.0)
    # A lifted one was a mistake and does not make the next one longer.
    counted = [ban for ban in bans if ban.lifted_at is None]
    standing = [ban for ban in counted if ban.until > timezone.now()]
    longest = max((ban for ban in standing if ban.is_for_all), key=lambda ban: ban.until, default=None)
    return TerminalAccess(
        user_id=str(user.pk),
        username=user.username,
        company_id=str(company.pk),
        tier=company.tier.code,
        access_version=company.access_version,
        refusal=_refusal(user, company),
        access_until=access_until(company),
        message_rate_limit=rate if settings.GATEWAY_BENCHMARK else min(rate, MESSAGE_RATE_CEILING),
        connection_limit=connections,
        company_connection_limit=limits.company_connection_limit,
        pair_limit=limits.pair_limit,
        account_limit=limits.user_account_limit,
        monthly_data_limit=limits.monthly_data_limit,
        refuses_over_quota=limits.refuses_over_quota,
        # More rows than the plan allows, as after a downgrade: the oldest count.
        active_pairs=frozenset(pairs[user.pk][: limits.pair_limit]),
        accounts=frozenset(logins[user.pk][: limits.user_account_limit]),
        features=features,
        api_keys=api_keys.get(user.pk, {}),
        banned_until=longest.until.timestamp() if longest is not None else 0.0,
        ban_reason=longest.reason if longest is not None else "",
        ban_earned_by=_earned_by(longest) if longest is not None else "",
        source_bans=tuple(_source_ban(ban) for ban in standing if not ban.is_for_all),
        bans=len(counted),
        lifted_at=lifted_at,
    )


def _source_ban(ban: Ban) -> SourceBan:
    source = ban_source(ban.account, str(ban.api_key_id or ""))
    return SourceBan(source, ban.reason, ban.until.timestamp(), _earned_by(ban))


def _earned_by(ban: Ban) -> str:
    return earned_by(ban.account, f"{ban.api_key.prefix}…" if ban.api_key is not None else "", ban.session_id)


def _logins(limits: dict[uuid.UUID, Limits]) -> dict[uuid.UUID, list[str]]:
    """By owner, oldest first, those within the company's limit."""
    taken: dict[uuid.UUID, int] = defaultdict(int)
    logins: dict[uuid.UUID, list[str]] = defaultdict(list)
    # The owner's company too: one who was moved by hand takes no account along.
    rows = MT5Account.objects.filter(company__in=list(limits), owner__company=F("company"), is_active=True).order_by(
        "pk"
    )
    for company_id, owner_id, login in rows.order_by("pk").values_list("company_id", "owner_id", "login"):
        taken[company_id] += 1
        if taken[company_id] <= limits[company_id].company_account_limit:
            logins[owner_id].append(login)
    return logins


def _api_keys(user_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, dict[str, float]]:
    keys: dict[uuid.UUID, dict[str, float]] = defaultdict(dict)
    rows = ApiKey.objects.filter(user__in=user_ids, revoked_at__isnull=True, scope=ApiKey.Scope.STREAM)
    rows = rows.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now()))
    for user_id, pk, expires_at in rows.values_list("user_id", "pk", "expires_at"):
        keys[user_id][str(pk)] = math.inf if expires_at is None else expires_at.timestamp()
    return keys


def _bans(user_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, list[Ban]]:
    bans: dict[uuid.UUID, list[Ban]] = defaultdict(list)
    rows = Ban.objects.filter(user__in=user_ids, until__gt=timezone.now() - BAN_MEMORY)
    for ban in rows.select_related("api_key"):
        bans[ban.user_id].append(ban)
    return bans


def access_versions(company_ids: Collection[str]) -> dict[str, int]:
    """The versions of the companies that exist, by id."""
    keys = [key for key in map(as_uuid, company_ids) if key is not None]
    versions: dict[str, int] = {}
    for start in range(0, len(keys), _BATCH):
        rows = Company.objects.filter(pk__in=keys[start : start + _BATCH]).values_list("pk", "access_version")
        versions.update({str(pk): version for pk, version in rows})
    return versions


def revoked_tokens(after_id: int) -> list[tuple[int, str, float]]:
    """(row id, jti, expiry in Unix seconds) of revoked tokens that have not expired, in the order of their ids.

    The last rows up to ``after_id`` come again. Ids are given out when a row is written, yet transactions commit in
    another order: a row with a lower id may appear after one with a higher id was read.
    """
    rows = RevokedToken.objects.filter(pk__gt=after_id - _OVERLAP, expires_at__gt=timezone.now()).order_by("pk")
    return [(row.pk, row.jti, row.expires_at.timestamp()) for row in rows]


def kicks(after_id: int) -> list[tuple[int, str, str, float]]:
    """(row id, session id or "", user id, Unix seconds) of the last minute's kicks; the last rows come again."""
    since = timezone.now() - datetime.timedelta(minutes=1)
    rows = Kick.objects.filter(pk__gt=after_id - _OVERLAP, created_at__gt=since).order_by("pk")
    return [(row.pk, row.session_id, str(row.user_id), row.created_at.timestamp()) for row in rows]


def access_until(company: Company) -> float:
    """Unix seconds; infinity when the company's time is not limited."""
    if company.paid_until is None:
        return math.inf
    try:
        return (company.paid_until + company.grace).timestamp()
    except OverflowError:
        # An operator's "for ever", as in the year 9999.
        return math.inf


def as_uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _refusal(user: User, company: Company) -> str:
    if not user.is_active:
        return "user_disabled"
    if company.status == Company.Status.SUSPENDED:
        return "company_suspended"
    if company.status == Company.Status.UNPAID or access_until(company) <= timezone.now().timestamp():
        return "payment_required"
    return ""
