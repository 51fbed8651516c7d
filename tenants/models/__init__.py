"""The rows of the tenants room; other rooms come through ``tenants.access``."""

from tenants.models.audit import AuditEntry
from tenants.models.companies import Company
from tenants.models.conduct import Ban, Kick
from tenants.models.credentials import ApiKey, RevokedToken
from tenants.models.overrides import CompanyOverride
from tenants.models.places import MESSAGE_RATE_CEILING, Limits, limits_of
from tenants.models.tiers import SubscriptionTier
from tenants.models.users import ActivePair, MT5Account, User

__all__ = [
    "MESSAGE_RATE_CEILING",
    "ActivePair",
    "ApiKey",
    "AuditEntry",
    "Ban",
    "Company",
    "CompanyOverride",
    "Kick",
    "Limits",
    "MT5Account",
    "RevokedToken",
    "SubscriptionTier",
    "User",
    "limits_of",
]
