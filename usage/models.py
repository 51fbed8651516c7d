"""What each company has used in each month. Room: usage."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class CompanyMonth(models.Model):
    """One company's use in one calendar month of Asia/Jakarta. The id is copied: figures outlive a company."""

    company_id = models.UUIDField(_("company id"))
    # The first day.
    month = models.DateField(_("month"))
    messages = models.PositiveBigIntegerField(_("messages"), default=0)
    size = models.PositiveBigIntegerField(_("bytes"), default=0)
    api_calls = models.PositiveBigIntegerField(_("API calls"), default=0)
    # The highest share of the volume that the company has been told of: 0, 80 or 100.
    noticed_percent = models.PositiveSmallIntegerField(_("told of percent"), default=0)

    class Meta:
        verbose_name = _("use in a month")
        verbose_name_plural = _("use by month")
        constraints = [models.UniqueConstraint(fields=["company_id", "month"], name="one_row_a_company_and_month")]

    def __str__(self) -> str:
        return f"{self.company_id} {self.month:%Y-%m}"
