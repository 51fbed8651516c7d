"""Amounts: whole rupiah in integers, nothing else. Room: billing.

Pure. Rounding is to the nearest rupiah, halves up, and always of one single quantity: the other parts of a sum are
found by subtraction, so that parts add up exactly.
"""

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

# Amounts as Midtrans writes them: "150000.00". Twelve digits are far above any price and fit a BIGINT.
_AMOUNT = re.compile(r"(0|[1-9][0-9]{0,11})(?:\.0{1,2})?")


class AmountError(ValueError):
    """A text that is no amount of whole rupiah; the message never repeats it."""


def parse_amount(text: str) -> int:
    """Rupiah of "150000.00" or "150000". Raises AmountError: a fraction of a rupiah, a sign, a space, an exponent."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise AmountError('an amount is whole rupiah, written as "150000.00"')
    return int(match[1])


def rupiah(amount: int) -> str:
    """For people, as Indonesia writes it: "Rp150.000"."""
    return f"{'-' if amount < 0 else ''}Rp{abs(amount):,}".replace(",", ".")


def divide(numerator: int, denominator: int) -> int:
    """Nearest whole number, halves up; both at least 0, the denominator above it."""
    return (2 * numerator + denominator) // (2 * denominator)


def unused_value(price: int, *, period_start: date, period_end: date, on: date) -> int:
    """What is left on ``on`` of a price paid for [start, end): 0 to ``price``. The day itself counts as left.

    Dates are those of Asia/Jakarta. Raises ValueError for a period without days or a negative price.
    """
    days = (period_end - period_start).days
    if days <= 0 or price < 0:
        raise ValueError("a period has at least one day and a price is not negative")
    left = min(max((period_end - on).days, 0), days)
    return divide(price * left, days)


def upgrade_price(*, old_price: int, new_price: int, period_start: date, period_end: date, on: date) -> int:
    """What a change to a dearer plan costs for the rest of the running period; 0 to ``new_price``.

    The difference of the prices for the days left; 0 when the new plan is not dearer (a downgrade waits for the end of
    the period and pays nothing back).
    """
    difference = max(new_price - old_price, 0)
    return unused_value(difference, period_start=period_start, period_end=period_end, on=on)


def interval_change_price(*, old_price: int, new_price: int, period_start: date, period_end: date, on: date) -> int:
    """What a new period at ``new_price`` costs that begins on ``on``, as from monthly to yearly; 0 to ``new_price``.

    The unused part of the old period is taken off; what it exceeds the new price by is lost, so offer it only where
    the new period costs more.
    """
    credit = unused_value(old_price, period_start=period_start, period_end=period_end, on=on)
    return max(new_price - credit, 0)


@dataclass(frozen=True, slots=True)
class Taxed:
    """``net + tax == total``, all in rupiah."""

    net: int
    tax: int
    total: int


def with_tax(net: int, rate: Decimal) -> Taxed:
    """Tax on top. ``rate`` is in per cent, Decimal("11") for the PPN of 11 %. Raises ValueError below 0."""
    tax = _share(net, rate, Decimal(100))
    return Taxed(net, tax, net + tax)


def tax_inside(total: int, rate: Decimal) -> Taxed:
    """The tax that a price which includes it contains; arguments as ``with_tax``."""
    tax = _share(total, rate, Decimal(100) + rate)
    return Taxed(total - tax, tax, total)


def _share(amount: int, rate: Decimal, base: Decimal) -> int:
    if amount < 0 or not rate.is_finite() or rate < 0:
        raise ValueError("an amount and a tax rate are not negative")
    # Whole numbers only: Decimal would round to 28 digits on the way.
    upper, lower = rate.as_integer_ratio()
    base_upper, base_lower = base.as_integer_ratio()
    return divide(amount * upper * base_lower, lower * base_upper)
