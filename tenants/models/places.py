"""The places that a plan has, for people, accounts and pairs. Room: tenants."""

from dataclasses import dataclass, fields
from typing import Any

from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import models
from django.utils.translation import gettext as _

from tenants.models.companies import Company

# No user goes above this many messages a second, whatever a row says.
MESSAGE_RATE_CEILING = 100.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a company has: its tier's limits, with what an override says instead. Units as in SubscriptionTier."""

    user_limit: int
    company_account_limit: int
    user_account_limit: int
    pair_limit: int
    message_rate_limit: float
    connection_limit: int
    company_connection_limit: int
    monthly_data_limit: int
    monthly_api_call_limit: int
    refuses_over_quota: bool
    has_signals: bool
    has_alerts: bool
    has_replay: bool

    @property
    def features(self) -> frozenset[str]:
        flags = {"signals": self.has_signals, "alerts": self.has_alerts, "replay": self.has_replay}
        return frozenset(name for name, is_in in flags.items() if is_in)


def limits_of(company: Company) -> Limits:
    """The one place where a tier and an override become limits."""
    tier = company.tier
    try:
        override = company.override
    except ObjectDoesNotExist:
        override = None
    values = {}
    for field in fields(Limits):
        own = getattr(override, field.name, None)
        values[field.name] = getattr(tier, field.name) if own is None else own
    return Limits(**values)


def check_room(row: models.Model, counted: models.QuerySet[Any], company: Company, limit_name: str) -> None:
    """Raises ValidationError (``plan_limit``) when the plan has no place for one more row.

    Each row takes a place, disabled or not, so that enabling one needs no check. A row that has its place keeps it:
    after a downgrade people and accounts must still be editable. The caller holds the company's lock where two could
    ask for the last place at once.
    """
    # Read anew: the caller's copy may be older than the lock, and a smaller plan have come meanwhile.
    current = Company.objects.select_related("tier", "override").filter(pk=company.pk).first()
    limit = getattr(limits_of(current or company), limit_name)
    taken = counted.count()
    if taken >= limit and not counted.filter(pk=row.pk).exists():
        raise ValidationError(full_text(limit_name, taken, limit), code="plan_limit")


def full_text(limit_name: str, taken: int, limit: int) -> str:
    texts = {
        "user_limit": _("%(taken)d of %(limit)d users of the plan are taken: remove one or choose a larger plan"),
        "company_account_limit": _(
            "%(taken)d of %(limit)d MT5 accounts of the plan are taken: remove one or choose a larger plan"
        ),
        "user_account_limit": _(
            "this user has %(taken)d of %(limit)d MT5 accounts: remove one or choose a larger plan"
        ),
        "pair_limit": _("this user has %(taken)d of %(limit)d active pairs: remove one or choose a larger plan"),
    }
    return texts[limit_name] % {"taken": taken, "limit": limit}
