"""A company that buys, and what Midtrans says of its payments."""

import itertools
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction

from billing import clock
from billing.ledger import Applied, apply_status
from billing.midtrans.payload import Refund, TransactionStatus
from billing.models import AccessGrant, BillingEntry, Invoice, PaymentAttempt, Plan, Price, Subscription
from billing.money import tax_inside
from billing.numbers import next_invoice_number
from billing.orders import new_order_id
from billing.periods import Interval, local_day, next_period_end
from tenants.models import Company, SubscriptionTier

_numbers = itertools.count(1)


def price_of(tier: str, interval: str = "monthly") -> Price:
    return Price.objects.select_related("plan__tier").get(plan__tier__code=tier, interval=interval, is_active=True)


@dataclass
class Buyer:
    company: Company
    subscription: Subscription
    transaction_ids: dict[str, str] = field(default_factory=dict)

    @classmethod
    def new(cls, name: str = "") -> "Buyer":
        name = name or f"buyer-{next(_numbers)}"
        free = SubscriptionTier.objects.get(code="FREE")
        company = Company.objects.create(name=name, slug=name, tier=free)
        return cls(company, Subscription.objects.create(company=company))

    def order(
        self,
        tier: str = "PRO",
        *,
        kind: str = "first",
        interval: str = "monthly",
        start: datetime | None = None,
        end: datetime | None = None,
        total: int | None = None,
        **fields: Any,
    ) -> PaymentAttempt:
        """An open invoice and an attempt to pay it; ``fields`` are the attempt's."""
        price, start = price_of(tier, interval), start or clock.now()
        end = end or next_period_end(start, Interval(interval), anchor_day=local_day(start).day)
        taxed = tax_inside(price.amount if total is None else total, Decimal(11))
        with transaction.atomic():
            invoice = Invoice.objects.create(
                number=next_invoice_number(),
                subscription=self.subscription,
                kind=kind,
                price=price,
                description=f"{tier} {interval}",
                period_start=start,
                period_end=end,
                net=taxed.net,
                tax=taxed.tax,
                tax_rate=Decimal(11),
                total=taxed.total,
                due_at=start,
            )
        return self.attempt(invoice, **fields)

    def attempt(self, invoice: Invoice, **fields: Any) -> PaymentAttempt:
        values: dict[str, Any] = {
            "order_id": new_order_id(invoice.pk),
            "amount": invoice.total,
            "by": PaymentAttempt.By.CUSTOMER,
            "idempotency_key": str(uuid.uuid4()),
            **fields,
        }
        return PaymentAttempt.objects.create(invoice=invoice, **values)

    def status(self, attempt: PaymentAttempt, told: str, **changes: Any) -> TransactionStatus:
        """As GET status tells it: "pending", "settlement" …; one transaction id an order unless it is given."""
        key = self.transaction_ids.setdefault(attempt.order_id, str(uuid.uuid4()))
        code = {"pending": "201", "deny": "202", "expire": "407"}.get(told, "200")
        values: dict[str, Any] = {
            "order_id": attempt.order_id,
            "transaction_id": key,
            "transaction_status": told,
            "status_code": code,
            "payment_type": "bank_transfer",
            "gross_amount": attempt.amount,
            "gross_amount_text": f"{attempt.amount}.00",
            "fraud_status": "accept",
            "merchant_id": "G000000001",
            **changes,
        }
        return TransactionStatus(**values)

    def told(self, attempt: PaymentAttempt, told: str, *, source: str = "webhook", **changes: Any) -> Applied:
        return apply_status(attempt, self.status(attempt, told, **changes), source=source)

    def refunded(self, attempt: PaymentAttempt, amount: int, *, confirmed: bool = True) -> Applied:
        told = "refund" if amount >= attempt.amount else "partial_refund"
        refund = Refund(1, amount, "key", "asked", confirmed)
        return self.told(attempt, told, refund_amount=amount, refunds=(refund,))

    def refresh(self) -> "Buyer":
        self.company.refresh_from_db()
        self.subscription.refresh_from_db()
        return self

    @property
    def access(self) -> tuple[str, str]:
        """(tier, status) of the company now."""
        company = Company.objects.select_related("tier").get(pk=self.company.pk)
        return company.tier.code, company.status

    @property
    def state(self) -> str:
        return Subscription.objects.get(pk=self.subscription.pk).state

    def live_grants(self) -> list[AccessGrant]:
        return list(AccessGrant.objects.filter(company=self.company, revoked_at__isnull=True).order_by("starts_at"))

    def give(self, tier: str, days: int, *, by: str = "olivia") -> AccessGrant:
        from billing import entitlements

        now = clock.now()
        plan = Plan.objects.select_related("tier").get(tier__code=tier)
        return entitlements.grant(self.company.pk, plan, now, now + timedelta(days=days), given_by=by, actor=by)


def kinds(attempt: PaymentAttempt) -> list[str]:
    """What the books say of an order, in the order of writing."""
    return list(BillingEntry.objects.filter(order_id=attempt.order_id).order_by("pk").values_list("kind", flat=True))
