"""The audit log of money: what happened, from what to what, by whom. Room: billing.

Lines are only ever added. They hold ids, states and amounts; never a token, a key or a signature.
"""

import uuid
from collections.abc import Iterable
from typing import Any

from billing import clock
from billing.models import BillingEntry, Invoice, PaymentAttempt


def entry(
    kind: str,
    *,
    actor: str,
    attempt: PaymentAttempt | None = None,
    invoice: Invoice | None = None,
    company_id: uuid.UUID | None = None,
    order_id: str = "",
    transaction_id: str = "",
    receipt_id: int | None = None,
    before: str = "",
    after: str = "",
    amount: int | None = None,
    note: str = "",
) -> BillingEntry:
    """Writes one line in the caller's transaction, where there is one.

    ``actor``: a person's username, or worker, webhook, poller, replay, charge. What an attempt or an invoice says of
    itself (order, number, company) need not be given. ``amount``: whole rupiah.
    """
    if attempt is not None:
        invoice, order_id = attempt.invoice, attempt.order_id
    if invoice is not None and company_id is None:
        company_id = invoice.subscription.company_id
    return BillingEntry.objects.create(
        at=clock.now(),
        actor=actor[:150],
        kind=kind,
        company_id=company_id,
        invoice_number=invoice.number if invoice is not None else "",
        order_id=order_id[:64],
        transaction_id=transaction_id[:64],
        receipt_id=receipt_id,
        before=before[:40],
        after=after[:40],
        amount=amount,
        note=note[:200],
    )


def entries(lines: Iterable[dict[str, Any]]) -> None:
    """Writes many lines at once; each has the fields of ``BillingEntry`` but the time."""
    now = clock.now()
    BillingEntry.objects.bulk_create([BillingEntry(at=now, **line) for line in lines])
