"""Invoices are written and voided here. Room: billing. The caller holds the locks: company, then subscription."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction

from billing import books
from billing.midtrans.bodies import Customer, Item
from billing.models import Invoice, Price, Subscription
from billing.money import Taxed, tax_inside
from billing.numbers import next_invoice_number
from billing.periods import local_day
from tenants.access import Actor, contacts, lock


def locked(company_id: UUID) -> Subscription:
    """The subscription of a company, held until the transaction ends; made where there is none yet."""
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("a lock is held until its transaction ends: use transaction.atomic()")
    lock({company_id})
    rows = Subscription.objects.select_for_update(of=("self",))
    rows = rows.select_related("company", "price__plan", "next_price__plan", "method").filter(company_id=company_id)
    found = rows.first()
    if found is None:
        Subscription.objects.create(company_id=company_id)
        found = rows.get()
    return found


def write(
    subscription: Subscription,
    *,
    kind: Invoice.Kind,
    price: Price,
    total: int,
    period: tuple[datetime, datetime],
    due_at: datetime,
    actor: str,
) -> Invoice:
    """Takes the place of whatever is open: one invoice is open at a time. ``total`` includes the tax."""
    for other in open_invoices(subscription):
        void(other, actor=actor, why="another invoice takes its place")
    taxed: Taxed = tax_inside(total, settings.GATEWAY_TAX_RATE)
    invoice = Invoice.objects.create(
        number=next_invoice_number(),
        subscription=subscription,
        kind=kind,
        price=price,
        description=_description(price, period),
        period_start=period[0],
        period_end=period[1],
        net=taxed.net,
        tax=taxed.tax,
        tax_rate=settings.GATEWAY_TAX_RATE,
        total=taxed.total,
        due_at=due_at,
    )
    books.entry("invoice_written", actor=actor, invoice=invoice, after=invoice.state, amount=total, note=kind.value)
    return invoice


def void(invoice: Invoice, *, actor: str, why: str) -> None:
    """What is still under way at Midtrans for it is ended by ``dunning.end_due``."""
    before, invoice.state = invoice.state, Invoice.State.VOID
    invoice.save(update_fields=["state"])
    books.entry("invoice_voided", actor=actor, invoice=invoice, before=before, after=invoice.state, note=why)


def open_invoices(subscription: Subscription, kinds: Collection[Invoice.Kind] = ()) -> list[Invoice]:
    """Locked, with their prices; the latest first."""
    rows = Invoice.objects.select_for_update(of=("self",)).select_related("price__plan", "subscription")
    rows = rows.filter(subscription=subscription, state=Invoice.State.OPEN)
    return list(rows.filter(kind__in=kinds) if kinds else rows)


def items_of(invoice: Invoice) -> tuple[Item, ...]:
    """Lines that add up to the total."""
    name = f"{invoice.price.plan.name} {invoice.price.interval} {invoice.number}"
    items = [Item(name, invoice.net)]
    if invoice.tax:
        items.append(Item(f"PPN {invoice.tax_rate.normalize():f} %", invoice.tax))
    return tuple(items)


def customer_of(invoice: Invoice) -> Customer:
    """The company, and the first of its admins who has an address."""
    company = invoice.subscription.company
    people = contacts(Actor.system("billing"), str(company.pk))
    return Customer(company.name, people[0].email if people else "")


def _description(price: Price, period: tuple[datetime, datetime]) -> str:
    return f"{price.plan.name} ({price.interval}) {local_day(period[0])} – {local_day(period[1])}"
