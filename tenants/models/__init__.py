"""The rows of the tenants room; other rooms come through ``tenants.access``."""

from tenants.models.companies import Company
from tenants.models.credentials import ApiKey, RevokedToken
from tenants.models.tiers import MESSAGE_RATE_CEILING, SubscriptionTier
from tenants.models.users import ActivePair, MT5Account, User

__all__ = [
    "MESSAGE_RATE_CEILING",
    "ActivePair",
    "ApiKey",
    "Company",
    "MT5Account",
    "RevokedToken",
    "SubscriptionTier",
    "User",
]
