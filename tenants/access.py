"""The door to the tenant rows for every other room. Room: tenants.

Plain functions on the ORM; call them from a thread where an event loop runs. Whatever changes what a user may do goes
through here and raises the company's ``access_version`` in the same transaction: gateways poll it.
"""

import datetime
import math
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from tenants.models import (
    MESSAGE_RATE_CEILING,
    ActivePair,
    ApiKey,
    Company,
    MT5Account,
    RevokedToken,
    User,
)

# More rows than are ever written while one transaction that revokes a token is open.
_REVOKED_OVERLAP = 200


@dataclass(frozen=True, slots=True)
class TerminalAccess:
    """Everything the stream needs to know about one user, from one visit to the database."""

    user_id: str
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
    pair_limit: int
    account_limit: int
    active_pairs: frozenset[str]
    # MT5 logins.
    accounts: frozenset[str]
    # Any of signals, alerts, replay.
    features: frozenset[str]


def terminal_access(user_id: str) -> TerminalAccess | None:
    """None for a user that does not exist, has no company, or an id that is none."""
    key = _uuid(user_id)
    if key is None:
        return None
    user = User.objects.select_related("company__tier").filter(pk=key).first()
    if user is None or user.company is None:
        return None
    company = user.company
    tier = company.tier
    # More rows than the plan allows, as after a downgrade: the oldest count.
    pairs = ActivePair.objects.filter(user=user).order_by("pk").values_list("symbol", flat=True)[: tier.pair_limit]
    of_company = MT5Account.objects.filter(company=company, is_active=True).order_by("pk")
    within_plan = of_company.values("pk")[: tier.company_account_limit]
    accounts = of_company.filter(owner=user, pk__in=within_plan)
    logins = accounts.values_list("login", flat=True)[: tier.user_account_limit]
    rate = tier.message_rate_limit
    return TerminalAccess(
        user_id=str(user.pk),
        company_id=str(company.pk),
        tier=tier.code,
        access_version=company.access_version,
        refusal=_refusal(user, company),
        access_until=_access_until(company),
        message_rate_limit=rate if settings.GATEWAY_BENCHMARK else min(rate, MESSAGE_RATE_CEILING),
        connection_limit=tier.connection_limit,
        pair_limit=tier.pair_limit,
        account_limit=tier.user_account_limit,
        active_pairs=frozenset(pairs),
        accounts=frozenset(logins),
        features=tier.features,
    )


def access_versions(company_ids: Collection[str]) -> dict[str, int]:
    """The versions of the companies that exist, by id."""
    keys = [key for key in map(_uuid, company_ids) if key is not None]
    versions: dict[str, int] = {}
    # SQLite takes a bounded number of parameters in one query.
    for start in range(0, len(keys), 500):
        rows = Company.objects.filter(pk__in=keys[start : start + 500]).values_list("pk", "access_version")
        versions.update({str(pk): version for pk, version in rows})
    return versions


def revoked_tokens(after_id: int) -> list[tuple[int, str, float]]:
    """(row id, jti, expiry in Unix seconds) of revoked tokens that have not expired, in the order of their ids.

    The last rows up to ``after_id`` come again. Ids are given out when a row is written, yet transactions commit in
    another order: a row with a lower id may appear after one with a higher id was read.
    """
    seen_for_good = after_id - _REVOKED_OVERLAP
    rows = RevokedToken.objects.filter(pk__gt=seen_for_good, expires_at__gt=timezone.now()).order_by("pk")
    return [(row.pk, row.jti, row.expires_at.timestamp()) for row in rows]


def revoke_token(jti: str, user_id: str, expires_at: float) -> None:
    """Live connections of the token end at the next poll; a second call changes nothing."""
    moment = datetime.datetime.fromtimestamp(expires_at, tz=datetime.UTC)
    RevokedToken.objects.get_or_create(jti=jti, defaults={"user_id": user_id, "expires_at": moment})


def prune_revoked_tokens() -> int:
    """Deletes the rows of tokens that have expired by themselves an hour ago; how many."""
    old = timezone.now() - datetime.timedelta(hours=1)
    return RevokedToken.objects.filter(expires_at__lt=old).delete()[0]


def disable_user(user_id: str) -> None:
    _set_user_active(user_id, is_active=False)


def enable_user(user_id: str) -> None:
    _set_user_active(user_id, is_active=True)


def suspend_company(company_id: str) -> None:
    _set_company_status(company_id, Company.Status.SUSPENDED)


def resume_company(company_id: str) -> None:
    _set_company_status(company_id, Company.Status.ACTIVE)


def revoke_api_keys(keys: Iterable[ApiKey]) -> int:
    """No new tokens come from these keys; tokens that are out live on until they expire."""
    wanted = [key.pk for key in keys]
    return ApiKey.objects.filter(pk__in=wanted, revoked_at__isnull=True).update(revoked_at=timezone.now())


def raise_access_version(company_ids: Collection[uuid.UUID]) -> None:
    """Call it in the transaction of the change."""
    Company.objects.filter(pk__in=company_ids).update(access_version=F("access_version") + 1)


def _set_user_active(user_id: str, *, is_active: bool) -> None:
    with transaction.atomic():
        user = User.objects.get(pk=user_id)
        User.objects.filter(pk=user.pk).update(is_active=is_active)
        if user.company_id is not None:
            raise_access_version([user.company_id])


def _set_company_status(company_id: str, status: Company.Status) -> None:
    with transaction.atomic():
        Company.objects.filter(pk=company_id).update(status=status)
        raise_access_version([uuid.UUID(str(company_id))])


def _refusal(user: User, company: Company) -> str:
    if not user.is_active:
        return "user_disabled"
    if company.status == Company.Status.SUSPENDED:
        return "company_suspended"
    if company.status == Company.Status.UNPAID or _access_until(company) <= timezone.now().timestamp():
        return "payment_required"
    return ""


def _access_until(company: Company) -> float:
    if company.paid_until is None:
        return math.inf
    try:
        return (company.paid_until + company.grace).timestamp()
    except OverflowError:
        # An operator's "for ever", as in the year 9999.
        return math.inf


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
