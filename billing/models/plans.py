"""What is sold. Room: billing."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from billing.periods import Interval


class Plan(models.Model):
    """A tier that companies can buy; the limits are the tier's."""

    tier = models.OneToOneField("tenants.SubscriptionTier", on_delete=models.PROTECT, related_name="plan")
    name = models.CharField(_("name"), max_length=60)
    # The larger, the more: a change upwards is an upgrade and takes effect at once.
    rank = models.PositiveSmallIntegerField(_("rank"), unique=True)
    is_public = models.BooleanField(_("offered"), default=True)

    class Meta:
        ordering = ["rank"]
        verbose_name = _("plan")
        verbose_name_plural = _("plans")

    def __str__(self) -> str:
        return self.name


class Price(models.Model):
    """What a plan costs for one period, tax included, in whole rupiah. A new price is a new row: what was agreed
    stays."""

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="prices")
    interval = models.CharField(_("period"), max_length=8, choices=[(i.value, i.value) for i in Interval])
    amount = models.PositiveBigIntegerField(_("rupiah, tax included"))
    is_active = models.BooleanField(_("offered"), default=True)

    class Meta:
        ordering = ["plan__rank", "amount"]
        verbose_name = _("price")
        verbose_name_plural = _("prices")
        constraints = [
            models.UniqueConstraint(
                fields=["plan", "interval"], condition=models.Q(is_active=True), name="one_price_offered_a_period"
            ),
            models.CheckConstraint(condition=models.Q(amount__gt=0), name="price_above_zero"),
            models.CheckConstraint(
                condition=models.Q(interval__in=["monthly", "yearly"]), name="price_period_is_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.plan} {self.interval}"
