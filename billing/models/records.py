"""What came in and what was done: receipts and the books' audit log. Room: billing."""

from typing import Any, NoReturn

from django.db import models
from django.utils.translation import gettext_lazy as _

from billing import clock


class WebhookReceipt(models.Model):
    """One message at an endpoint, written before it is trusted and outside the transaction that applies it."""

    class Source(models.TextChoices):
        MIDTRANS = "midtrans", "Midtrans"
        EVENTS = "events", _("signed events")

    class Verdict(models.TextChoices):
        RECEIVED = "received", _("received")
        REFUSED = "refused", _("refused")
        # Genuine, and waits for an answer of Midtrans.
        WAITING = "waiting", _("waiting")
        APPLIED = "applied", _("applied")
        # The same event was there before.
        DUPLICATE = "duplicate", _("duplicate")
        IGNORED = "ignored", _("ignored")
        FAILED = "failed", _("failed")

    received_at = models.DateTimeField(_("received"), default=clock.now, editable=False, db_index=True)
    source = models.CharField(_("source"), max_length=10, choices=Source.choices)
    address = models.CharField(_("address"), max_length=64, blank=True)
    body_sha256 = models.CharField(max_length=64, db_index=True)
    # Signatures, tokens and card numbers masked.
    body = models.JSONField(_("body"), default=dict)
    order_id = models.CharField(_("order id"), max_length=64, blank=True, db_index=True)
    # What makes two messages the same event; empty where nothing does.
    event_key = models.CharField(max_length=200, blank=True, db_index=True)
    verdict = models.CharField(_("verdict"), max_length=10, choices=Verdict.choices, default=Verdict.RECEIVED)
    reason = models.CharField(_("reason"), max_length=120, blank=True)
    tries = models.PositiveIntegerField(default=0)
    next_try_at = models.DateTimeField(null=True, blank=True, db_index=True)
    processed_at = models.DateTimeField(_("processed"), null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = _("webhook receipt")
        verbose_name_plural = _("webhook receipts")
        constraints = [
            models.UniqueConstraint(
                fields=["source", "event_key"],
                condition=models.Q(verdict="applied") & ~models.Q(event_key=""),
                name="an_event_is_applied_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.source} {self.order_id} {self.verdict}"


class BillingEntry(models.Model):
    """One line of the audit log of money; only ever added, the database refuses UPDATE and DELETE by a trigger."""

    at = models.DateTimeField(_("at"), db_index=True)
    # A person's username, or worker, webhook, poller, replay.
    actor = models.CharField(_("by"), max_length=150)
    kind = models.CharField(_("kind"), max_length=40)
    company_id = models.UUIDField(_("company id"), null=True, db_index=True)
    invoice_number = models.CharField(_("invoice"), max_length=20, blank=True, db_index=True)
    order_id = models.CharField(_("order id"), max_length=64, blank=True, db_index=True)
    transaction_id = models.CharField(_("transaction id"), max_length=64, blank=True)
    receipt_id = models.BigIntegerField(_("receipt"), null=True)
    before = models.CharField(_("before"), max_length=40, blank=True)
    after = models.CharField(_("after"), max_length=40, blank=True)
    amount = models.BigIntegerField(_("rupiah"), null=True)
    note = models.CharField(_("note"), max_length=200, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = _("billing entry")
        verbose_name_plural = _("billing log")

    def __str__(self) -> str:
        return f"{self.kind} {self.order_id or self.invoice_number}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("billing entries are never changed")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("billing entries are never deleted")
