"""Subscription tiers: the limits of a plan, as a row. Room: tenants."""

from django.core.validators import MinValueValidator
from django.db import models

# No user goes above this many messages a second, whatever a row says.
MESSAGE_RATE_CEILING = 100.0


class SubscriptionTier(models.Model):
    """What a company has bought. An operator edits the row; the change reaches live connections."""

    code = models.CharField(max_length=32, unique=True, help_text="FREE, PRO, ENTERPRISE or a name of the operator's")
    user_limit = models.PositiveIntegerField(help_text="users a company")
    company_account_limit = models.PositiveIntegerField(help_text="MT5 accounts a company")
    user_account_limit = models.PositiveIntegerField(help_text="MT5 accounts a user")
    pair_limit = models.PositiveIntegerField(help_text="active trading pairs a user")
    message_rate_limit = models.FloatField(
        validators=[MinValueValidator(0.1)], help_text="messages a second a user, over all connections"
    )
    connection_limit = models.PositiveIntegerField(help_text="connections a user")
    monthly_data_limit = models.PositiveBigIntegerField(help_text="bytes a month a company")
    monthly_api_call_limit = models.PositiveBigIntegerField(help_text="API calls a month a company")
    has_signals = models.BooleanField(default=False, help_text="trading signals")
    has_alerts = models.BooleanField(default=True, help_text="alerts and notifications")
    has_replay = models.BooleanField(default=False, help_text="replay of past data")

    class Meta:
        ordering = ["code"]
        constraints = [
            models.CheckConstraint(condition=models.Q(message_rate_limit__gt=0), name="tier_rate_above_zero"),
        ]

    def __str__(self) -> str:
        return self.code

    @property
    def features(self) -> frozenset[str]:
        flags = {"signals": self.has_signals, "alerts": self.has_alerts, "replay": self.has_replay}
        return frozenset(name for name, is_in in flags.items() if is_in)
