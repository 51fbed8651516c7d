"""Subscription tiers: the limits of a plan, as a row. Room: tenants."""

from django.core.validators import MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _


class SubscriptionTier(models.Model):
    """What a company has bought. An operator edits the row; the change reaches live connections."""

    code = models.CharField(
        _("code"), max_length=32, unique=True, help_text=_("FREE, PRO, ENTERPRISE or a name of the operator's")
    )
    user_limit = models.PositiveIntegerField(_("users a company"))
    company_account_limit = models.PositiveIntegerField(_("MT5 accounts a company"))
    user_account_limit = models.PositiveIntegerField(_("MT5 accounts a user"))
    pair_limit = models.PositiveIntegerField(_("active pairs a user"))
    message_rate_limit = models.FloatField(
        _("messages a second a user"), validators=[MinValueValidator(0.1)], help_text=_("over all connections")
    )
    connection_limit = models.PositiveIntegerField(_("connections a user"))
    company_connection_limit = models.PositiveIntegerField(_("connections a company"), default=200)
    monthly_data_limit = models.PositiveBigIntegerField(_("bytes a month a company"))
    monthly_api_call_limit = models.PositiveBigIntegerField(_("API calls a month a company"))
    refuses_over_quota = models.BooleanField(
        _("refuses messages over the monthly volume"),
        default=True,
        help_text=_("otherwise the company is told and its messages go on"),
    )
    has_signals = models.BooleanField(_("trading signals"), default=False)
    has_alerts = models.BooleanField(_("alerts and notifications"), default=True)
    has_replay = models.BooleanField(_("replay of past data"), default=False)

    class Meta:
        ordering = ["code"]
        verbose_name = _("subscription tier")
        verbose_name_plural = _("subscription tiers")
        constraints = [
            models.CheckConstraint(condition=models.Q(message_rate_limit__gt=0), name="tier_rate_above_zero"),
        ]

    def __str__(self) -> str:
        return self.code
