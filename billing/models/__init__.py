"""The rows of the billing room; other rooms come through ``billing.entitlements``."""

from billing.models.invoices import Invoice, PaymentAttempt, Transaction
from billing.models.plans import Plan, Price
from billing.models.records import BillingEntry, WebhookReceipt
from billing.models.subscriptions import AccessGrant, PaymentMethod, Subscription

__all__ = [
    "AccessGrant",
    "BillingEntry",
    "Invoice",
    "PaymentAttempt",
    "PaymentMethod",
    "Plan",
    "Price",
    "Subscription",
    "Transaction",
    "WebhookReceipt",
]
