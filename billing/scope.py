"""Who sees which rows of this room; ``tenants.access.visible`` and ``find`` hold it. Room: billing."""

from billing.models import (
    AccessGrant,
    BillingEntry,
    Invoice,
    PaymentAttempt,
    PaymentMethod,
    Plan,
    Price,
    Refund,
    Subscription,
    Transaction,
    WebhookReceipt,
)
from tenants.access import register_scope


def register() -> None:
    register_scope(Subscription, "company")
    register_scope(PaymentMethod, "company")
    register_scope(AccessGrant, "company")
    register_scope(Invoice, "subscription__company")
    register_scope(PaymentAttempt, "invoice__subscription__company")
    register_scope(Transaction, "attempt__invoice__subscription__company")
    register_scope(Refund, "transaction__attempt__invoice__subscription__company")
    # Names who did something here, operators as well: what concerns a company, its pages show in words.
    register_scope(BillingEntry, None)
    register_scope(WebhookReceipt, None)
    # What is sold; the pages of a company show what is offered.
    register_scope(Plan, None)
    register_scope(Price, None)
