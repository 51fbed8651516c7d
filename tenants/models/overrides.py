"""What one company has instead of its tier's limits. Room: tenants."""

from django.core.validators import MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from tenants.models.companies import Company


class CompanyOverride(models.Model):
    """Limits that hold for one company instead of its tier's; an empty field leaves the tier's."""

    company = models.OneToOneField(Company, on_delete=models.CASCADE, related_name="override")
    user_limit = models.PositiveIntegerField(_("users a company"), null=True, blank=True)
    company_account_limit = models.PositiveIntegerField(_("MT5 accounts a company"), null=True, blank=True)
    user_account_limit = models.PositiveIntegerField(_("MT5 accounts a user"), null=True, blank=True)
    pair_limit = models.PositiveIntegerField(_("active pairs a user"), null=True, blank=True)
    message_rate_limit = models.FloatField(
        _("messages a second a user"), null=True, blank=True, validators=[MinValueValidator(0.1)]
    )
    connection_limit = models.PositiveIntegerField(_("connections a user"), null=True, blank=True)
    company_connection_limit = models.PositiveIntegerField(_("connections a company"), null=True, blank=True)
    monthly_data_limit = models.PositiveBigIntegerField(_("bytes a month a company"), null=True, blank=True)
    monthly_api_call_limit = models.PositiveBigIntegerField(_("API calls a month a company"), null=True, blank=True)
    refuses_over_quota = models.BooleanField(_("refuses messages over the monthly volume"), null=True, blank=True)
    has_signals = models.BooleanField(_("trading signals"), null=True, blank=True)
    has_alerts = models.BooleanField(_("alerts and notifications"), null=True, blank=True)
    has_replay = models.BooleanField(_("replay of past data"), null=True, blank=True)
    note = models.CharField(_("why"), max_length=200, blank=True)

    class Meta:
        verbose_name = _("company override")
        verbose_name_plural = _("company overrides")
        constraints = [
            models.CheckConstraint(
                condition=models.Q(message_rate_limit__isnull=True) | models.Q(message_rate_limit__gt=0),
                name="override_rate_above_zero",
            ),
        ]

    def __str__(self) -> str:
        return str(self.company)
