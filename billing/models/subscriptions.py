"""What a company has bought, and what was granted for it. Room: billing."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from billing import clock
from billing.models.plans import Plan, Price
from billing.transitions import SubscriptionState


class PaymentMethod(models.Model):
    """What renewals are charged to: a saved card or a linked GoPay account. The token is encrypted (``vault``)."""

    class Kind(models.TextChoices):
        CARD = "card", _("card")
        GOPAY = "gopay", "GoPay"

    company = models.ForeignKey("tenants.Company", on_delete=models.CASCADE, related_name="payment_methods")
    kind = models.CharField(_("kind"), max_length=8, choices=Kind.choices)
    # As people know it: 481111******1114, or the end of a telephone number.
    label = models.CharField(_("name"), max_length=40)
    sealed_token = models.BinaryField(editable=False)
    # GoPay: the account that is linked.
    account_id = models.CharField(max_length=64, blank=True, editable=False)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    # The bank or the wallet has refused it for good: renewals do not charge it any more.
    refused_at = models.DateTimeField(_("refused"), null=True, blank=True)
    created_at = models.DateTimeField(_("added"), default=clock.now, editable=False)
    removed_at = models.DateTimeField(_("removed"), null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        verbose_name = _("payment method")
        verbose_name_plural = _("payment methods")

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.label}"


class Subscription(models.Model):
    """One a company. ``state`` changes by ``transitions.judge_subscription`` only."""

    company = models.OneToOneField("tenants.Company", on_delete=models.PROTECT, related_name="subscription")
    state = models.CharField(
        _("state"), max_length=12, choices=[(s.value, s.value) for s in SubscriptionState], default="none"
    )
    # When ``state`` last changed.
    state_since = models.DateTimeField(null=True, blank=True)
    price = models.ForeignKey(Price, on_delete=models.PROTECT, null=True, blank=True, related_name="subscriptions")
    # Takes the place of ``price`` with the next period: a downgrade, or another interval.
    next_price = models.ForeignKey(Price, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    # Day of the month on which the first period began, 1 to 31.
    anchor_day = models.PositiveSmallIntegerField(default=1)
    period_start = models.DateTimeField(_("period from"), null=True, blank=True)
    # The end of what is paid.
    paid_until = models.DateTimeField(_("paid until"), null=True, blank=True)
    method = models.ForeignKey(
        PaymentMethod, on_delete=models.SET_NULL, null=True, blank=True, related_name="subscriptions"
    )
    # Of the renewal that is under way.
    first_failure_at = models.DateTimeField(null=True, blank=True)
    next_retry_at = models.DateTimeField(null=True, blank=True)
    # Days before ``paid_until`` of which somebody was reminded in this period.
    reminders_sent = models.JSONField(default=list)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["company__name"]
        verbose_name = _("subscription")
        verbose_name_plural = _("subscriptions")
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state__in=["none", "ended"])
                | models.Q(price__isnull=False, paid_until__isnull=False),
                name="subscription_has_a_price_and_an_end",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.company}: {self.state}"


class AccessGrant(models.Model):
    """Paid or given time: access follows from the grants that are not revoked. Explained by an invoice that is paid, or
    by an operator's name."""

    company = models.ForeignKey("tenants.Company", on_delete=models.PROTECT, related_name="grants")
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="+")
    starts_at = models.DateTimeField(_("from"))
    ends_at = models.DateTimeField(_("to"))
    # A payment that went back revokes the grant; the next one for the same invoice makes another row.
    invoice = models.ForeignKey(
        "billing.Invoice", on_delete=models.PROTECT, null=True, blank=True, related_name="grants"
    )
    given_by = models.CharField(_("given by"), max_length=150, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)
    revoked_because = models.CharField(_("because"), max_length=80, blank=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        ordering = ["-id"]
        verbose_name = _("grant of access")
        verbose_name_plural = _("grants of access")
        constraints = [
            models.CheckConstraint(
                condition=models.Q(ends_at__gt=models.F("starts_at")), name="grant_ends_after_start"
            ),
            models.CheckConstraint(
                condition=models.Q(invoice__isnull=False) | ~models.Q(given_by=""), name="grant_is_explained"
            ),
            models.UniqueConstraint(
                fields=["invoice"], condition=models.Q(revoked_at__isnull=True), name="one_live_grant_an_invoice"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.company}: {self.plan} until {self.ends_at:%Y-%m-%d}"
