"""Numbers of invoices: one after the other within a year, none left out. Room: billing."""

from django.db import transaction

from billing import clock
from billing.models import InvoiceCounter
from billing.periods import local_day


def next_invoice_number() -> str:
    """ "INV-2026-000123", the year being that of Asia/Jakarta.

    Part of the caller's transaction, which holds the counter until its end: a number whose invoice is not written is
    given out again. Take the company's lock before. Raises RuntimeError outside of ``transaction.atomic()``.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("a number is taken in the transaction that writes its invoice: use transaction.atomic()")
    counter, _ = InvoiceCounter.objects.select_for_update().get_or_create(year=local_day(clock.now()).year)
    counter.last += 1
    counter.save(update_fields=["last"])
    return f"INV-{counter.year}-{counter.last:06}"
