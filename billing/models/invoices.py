"""What a company owes, and how it tried to pay. Room: billing."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from billing import clock
from billing.models.plans import Price
from billing.models.subscriptions import PaymentMethod, Subscription
from billing.transitions import PaymentState

_STATES = [(state.value, state.value) for state in PaymentState]


class InvoiceCounter(models.Model):
    """The last number given out in a year; its row is the lock of ``numbers``."""

    year = models.PositiveSmallIntegerField(primary_key=True)
    last = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.year}: {self.last}"


class Invoice(models.Model):
    """Whole rupiah; ``net + tax == total``. Never deleted; what is wrong is voided and written anew."""

    class Kind(models.TextChoices):
        FIRST = "first", _("first period")
        RENEWAL = "renewal", _("renewal")
        UPGRADE = "upgrade", _("upgrade for the rest of the period")
        CHANGE = "change", _("another period")

    class State(models.TextChoices):
        OPEN = "open", _("open")
        PAID = "paid", _("paid")
        # Nobody waits for it any more; money that comes all the same is looked at by an operator.
        VOID = "void", _("void")
        PARTLY_RETURNED = "partly_returned", _("partly returned")
        RETURNED = "returned", _("returned")

    # INV-2026-000123: counts up within a year without gaps.
    number = models.CharField(_("number"), max_length=20, unique=True)
    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT, related_name="invoices")
    kind = models.CharField(_("kind"), max_length=8, choices=Kind.choices)
    state = models.CharField(_("state"), max_length=16, choices=State.choices, default=State.OPEN)
    price = models.ForeignKey(Price, on_delete=models.PROTECT, related_name="+")
    description = models.CharField(_("description"), max_length=120)
    period_start = models.DateTimeField(_("period from"))
    period_end = models.DateTimeField(_("period to"))
    net = models.PositiveBigIntegerField(_("net"))
    tax = models.PositiveBigIntegerField(_("tax"))
    # Per cent, as it was.
    tax_rate = models.DecimalField(_("tax rate"), max_digits=5, decimal_places=2)
    total = models.PositiveBigIntegerField(_("total"))
    returned = models.PositiveBigIntegerField(_("returned"), default=0)
    due_at = models.DateTimeField(_("due"))
    created_at = models.DateTimeField(_("written"), default=clock.now, editable=False)
    paid_at = models.DateTimeField(_("paid"), null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = _("invoice")
        verbose_name_plural = _("invoices")
        constraints = [
            models.CheckConstraint(
                condition=models.Q(total=models.F("net") + models.F("tax")), name="invoice_total_is_net_and_tax"
            ),
            models.CheckConstraint(condition=models.Q(returned__lte=models.F("total")), name="invoice_returns_no_more"),
            # One renewal a period: two workers cannot both write it.
            models.UniqueConstraint(
                fields=["subscription", "period_start"],
                condition=models.Q(kind="renewal") & ~models.Q(state="void"),
                name="one_renewal_a_period",
            ),
        ]

    def __str__(self) -> str:
        return self.number


class PaymentAttempt(models.Model):
    """One order id at Midtrans. It is written before anything is asked of Midtrans."""

    class By(models.TextChoices):
        CUSTOMER = "customer", _("customer")
        MERCHANT = "merchant", _("renewal")

    order_id = models.CharField(_("order id"), max_length=36, unique=True)
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="attempts")
    amount = models.PositiveBigIntegerField(_("amount"))
    by = models.CharField(_("by"), max_length=8, choices=By.choices)
    method = models.ForeignKey(PaymentMethod, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    idempotency_key = models.CharField(max_length=46, editable=False)
    # Of the Snap page; whoever has it can only pay.
    page_url = models.URLField(max_length=300, blank=True, editable=False)
    page_expires_at = models.DateTimeField(null=True, blank=True)
    # The state of the transaction that counts most; CREATED while Midtrans knows none.
    state = models.CharField(_("state"), max_length=24, choices=_STATES, default=PaymentState.CREATED)
    # Nothing more is expected of it; it is polled no longer.
    is_closed = models.BooleanField(_("closed"), default=False)
    last_problem = models.CharField(_("last problem"), max_length=120, blank=True)
    # When Midtrans was last asked for the page or the charge: for a minute nobody else asks.
    asked_at = models.DateTimeField(null=True, blank=True, editable=False)
    # The failure of a charge of ours was dealt with: retried, or another method asked for.
    failure_noted_at = models.DateTimeField(null=True, blank=True, editable=False)
    polls = models.PositiveIntegerField(default=0)
    next_poll_at = models.DateTimeField(null=True, blank=True, db_index=True)
    created_at = models.DateTimeField(_("begun"), default=clock.now, editable=False)

    class Meta:
        ordering = ["-id"]
        verbose_name = _("payment attempt")
        verbose_name_plural = _("payment attempts")

    def __str__(self) -> str:
        return self.order_id


class Transaction(models.Model):
    """One transaction id of an attempt: a customer who begins anew on the same page makes another one."""

    attempt = models.ForeignKey(PaymentAttempt, on_delete=models.PROTECT, related_name="transactions")
    transaction_id = models.CharField(_("transaction id"), max_length=64, unique=True)
    state = models.CharField(_("state"), max_length=24, choices=_STATES, default=PaymentState.CREATED)
    payment_type = models.CharField(_("payment type"), max_length=32, blank=True)
    refunded = models.PositiveBigIntegerField(_("refunded"), default=0)
    needs_review = models.BooleanField(_("somebody should look"), default=False)
    # The last answer of GET status, secrets masked.
    details = models.JSONField(default=dict)
    settled_at = models.DateTimeField(_("settled"), null=True, blank=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = _("transaction")
        verbose_name_plural = _("transactions")

    def __str__(self) -> str:
        return self.transaction_id
