"""A company that buys by the pages and jobs of billing, with Midtrans in this process."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from billing import checkout, clock, dunning, polling, renewals
from billing.entitlements import Turning
from billing.models import Invoice, PaymentAttempt, Price, Subscription
from tenants.access import Actor
from tenants.models import Company, SubscriptionTier, User
from tests.billing.buyer import price_of
from tests.support.midtrans_twin import Twin

FINISH = "http://localhost:8000/back/"
OPERATOR = Actor.system("olivia")
_numbers = itertools.count(1)


@dataclass
class Shopper:
    """A company with one admin, who is the actor of everything."""

    company: Company
    actor: Actor
    twin: Twin

    @classmethod
    def new(cls, twin: Twin, name: str = "") -> "Shopper":
        name = name or f"shopper-{next(_numbers)}"
        company = Company.objects.create(name=name, slug=name, tier=SubscriptionTier.objects.get(code="FREE"))
        admin = User.objects.create_user(
            f"{name}.admin", email=f"{name}@example.com", company=company, role=User.Role.COMPANY_ADMIN
        )
        return cls(company, Actor.of(admin), twin)

    @property
    def subscription(self) -> Subscription:
        return Subscription.objects.select_related("price__plan__tier", "method").get(company=self.company)

    @property
    def state(self) -> str:
        return self.subscription.state

    @property
    def paid_until(self) -> datetime:
        end = self.subscription.paid_until
        assert end is not None
        return end

    @property
    def access(self) -> tuple[str, str]:
        """(tier, status) of the company now."""
        company = Company.objects.select_related("tier").get(pk=self.company.pk)
        return company.tier.code, company.status

    def invoices(self, **which: str) -> list[Invoice]:
        return list(Invoice.objects.filter(subscription__company=self.company, **which).order_by("pk"))

    def open_invoice(self) -> Invoice:
        [invoice] = self.invoices(state="open")
        return invoice

    def attempts(self, **which: object) -> list[PaymentAttempt]:
        rows = PaymentAttempt.objects.filter(invoice__subscription__company=self.company, **which)
        return list(rows.order_by("pk"))

    def choose(self, tier: str, interval: str = "monthly") -> Invoice | None:
        return checkout.change_plan(self.actor, self.company, price_of(tier, interval))

    def price(self, tier: str, interval: str = "monthly") -> Price:
        return price_of(tier, interval)

    def open_page(self, invoice: Invoice) -> str:
        """The order id whose page is open now."""
        checkout.open_page(self.actor, invoice, finish_url=FINISH)
        return invoice.attempts.get(is_closed=False).order_id

    def pay(self, invoice: Invoice, method: str = "bank_transfer") -> str:
        """Pays an invoice by its page; the order id."""
        order_id = self.open_page(invoice)
        self.twin.pay(order_id, method)
        self.twin.deliver()
        return order_id

    def buy(self, tier: str = "PRO", interval: str = "monthly", *, method: str = "bank_transfer") -> str:
        invoice = self.choose(tier, interval)
        assert invoice is not None
        return self.pay(invoice, method)


class Worker:
    """The jobs of the worker, run by hand. ``keep``: whether a notification of an order arrives."""

    def __init__(self, twin: Twin, keep: Callable[[str], bool] = lambda _order_id: True) -> None:
        self._twin = twin
        self._keep = keep
        self._turning = Turning()

    def work(self) -> int:
        """One round of all of them, and the notifications of what they did."""
        done = dunning.end_due() + self._turning() + renewals.renew_due() + dunning.retry_due() + dunning.remind_due()
        self._twin.deliver(keep=self._keep)
        return done + polling.poll_due()

    def until(self, hand: clock.Hand, moment: datetime, step: timedelta = timedelta(hours=9)) -> None:
        """Works along, at least at ``moment`` itself."""
        while hand.moment < moment:
            hand.moment = min(hand.moment + step, moment)
            self._twin.settle_all()
            self._twin.deliver()
            self.work()
