"""Money that an operator sends back. Room: billing."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from billing.models.invoices import Transaction


class Refund(models.Model):
    """Written before Midtrans is asked; the same key again is the same refund. What has gone back in all is told by
    ``Transaction.refunded``."""

    class State(models.TextChoices):
        # Nobody knows yet whether Midtrans has it: it is asked again with the same key.
        ASKED = "asked", _("asked")
        DONE = "done", _("done")
        REFUSED = "refused", _("refused")

    transaction = models.ForeignKey(Transaction, on_delete=models.PROTECT, related_name="refunds")
    refund_key = models.CharField(_("refund key"), max_length=40, unique=True)
    amount = models.PositiveBigIntegerField(_("amount"))
    reason = models.CharField(_("reason"), max_length=200)
    asked_by = models.CharField(_("by"), max_length=150)
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.ASKED)
    problem = models.CharField(_("problem"), max_length=120, blank=True)
    # When Midtrans was last asked: for a minute nobody else asks.
    asked_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(_("begun"))

    class Meta:
        ordering = ["-id"]
        verbose_name = _("refund")
        verbose_name_plural = _("refunds")
        constraints = [
            models.CheckConstraint(condition=models.Q(amount__gt=0), name="refund_above_zero"),
        ]

    def __str__(self) -> str:
        return self.refund_key
