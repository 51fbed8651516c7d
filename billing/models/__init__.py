"""The rows of the billing room; other rooms come through ``billing.entitlements``."""

from billing.models.invoices import Invoice, InvoiceCounter, PaymentAttempt, Transaction
from billing.models.plans import Plan, Price
from billing.models.records import BillingEntry, WebhookReceipt
from billing.models.refunds import Refund
from billing.models.subscriptions import AccessGrant, PaymentMethod, Subscription

__all__ = [
    "AccessGrant",
    "BillingEntry",
    "Invoice",
    "InvoiceCounter",
    "PaymentAttempt",
    "PaymentMethod",
    "Plan",
    "Price",
    "Refund",
    "Subscription",
    "Transaction",
    "WebhookReceipt",
]
