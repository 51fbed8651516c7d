"""Amounts: read strictly, divided without losing or inventing a rupiah."""

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.money import (
    AmountError,
    divide,
    interval_change_price,
    parse_amount,
    rupiah,
    tax_inside,
    unused_value,
    upgrade_price,
    with_tax,
)

PRICES = st.integers(0, 10**10)
RATES = st.decimals(0, 100, places=2)
START = date(2026, 1, 31)


@pytest.mark.parametrize(("text", "amount"), [("150000.00", 150_000), ("150000", 150_000), ("0.00", 0), ("1.0", 1)])
def test_amount_is_read(text: str, amount: int) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " 1",
            "1 ",
            "+1",
            "-1",
            "1.5",
            "150000.01",
            "1e3",
            "1,000",
            "1.000",
            "01",
            "0150000.00",
            "NaN",
            "Infinity",
        ),
        *("１５", "1_000", ".00", "1.", "1\n", "9" * 13),
    ],
)
def test_anything_else_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(AmountError) as caught:
        parse_amount(text)
    assert not text.strip() or text not in str(caught.value).replace("150000.00", "")


@given(st.integers(0, 10**12 - 1))
def test_amount_survives_a_round_trip(amount: int) -> None:
    assert parse_amount(f"{amount}.00") == amount


def test_rupiah_is_written_as_in_indonesia() -> None:
    assert [rupiah(amount) for amount in (0, 999, 1_990_000, -5_000)] == ["Rp0", "Rp999", "Rp1.990.000", "-Rp5.000"]


@given(st.integers(0, 10**12), st.integers(1, 10**6))
def test_division_is_to_the_nearest_halves_up(numerator: int, denominator: int) -> None:
    exact = Decimal(numerator) / Decimal(denominator)
    result = divide(numerator, denominator)
    assert abs(2 * (result * denominator - numerator)) <= denominator
    assert result >= exact or exact - result < Decimal("0.5")


@given(PRICES, PRICES, st.integers(1, 366), st.integers(-10, 400))
def test_upgrade_is_never_negative_and_never_above_the_price(old: int, new: int, days: int, day: int) -> None:
    end, on = START + timedelta(days=days), START + timedelta(days=day)
    price = upgrade_price(old_price=old, new_price=new, period_start=START, period_end=end, on=on)
    assert 0 <= price <= new
    assert price <= max(new - old, 0)
    changed = interval_change_price(old_price=old, new_price=new, period_start=START, period_end=end, on=on)
    assert 0 <= changed <= new


@given(PRICES, st.integers(1, 366))
def test_value_shrinks_day_by_day_from_all_to_nothing(price: int, days: int) -> None:
    end = START + timedelta(days=days)
    values = [
        unused_value(price, period_start=START, period_end=end, on=START + timedelta(days=day))
        for day in range(days + 1)
    ]
    assert values == sorted(values, reverse=True)
    assert (values[0], values[-1]) == (price, 0)


def test_upgrade_in_the_middle_of_a_month_costs_half_the_difference() -> None:
    price = upgrade_price(
        old_price=200_000,
        new_price=900_001,
        period_start=date(2026, 11, 1),
        period_end=date(2026, 12, 1),
        on=date(2026, 11, 16),
    )
    assert price == 350_001


def test_yearly_takes_the_rest_of_the_month_off() -> None:
    price = interval_change_price(
        old_price=300_000,
        new_price=3_000_000,
        period_start=date(2026, 11, 1),
        period_end=date(2026, 12, 1),
        on=date(2026, 11, 21),
    )
    assert price == 2_900_000


@pytest.mark.parametrize(("price", "end"), [(-1, date(2026, 3, 1)), (1, START), (1, date(2025, 1, 1))])
def test_impossible_period_or_price_is_refused(price: int, end: date) -> None:
    with pytest.raises(ValueError, match="at least one day"):
        unused_value(price, period_start=START, period_end=end, on=START)


def test_ppn_on_top_and_inside() -> None:
    assert with_tax(199_000, Decimal(11)).tax == 21_890
    inside = tax_inside(220_890, Decimal(11))
    assert (inside.net, inside.tax, inside.total) == (199_000, 21_890, 220_890)
    assert tax_inside(100, Decimal(0)).tax == 0


@given(PRICES, RATES)
def test_parts_add_up_to_the_total(amount: int, rate: Decimal) -> None:
    for taxed in (with_tax(amount, rate), tax_inside(amount, rate)):
        assert taxed.net + taxed.tax == taxed.total
        assert 0 <= taxed.tax <= taxed.total


@given(PRICES, RATES)
def test_tax_on_top_is_found_inside_again(net: int, rate: Decimal) -> None:
    assert abs(tax_inside(with_tax(net, rate).total, rate).net - net) <= 1


@pytest.mark.parametrize(("amount", "rate"), [(-1, "11"), (1, "-1"), (1, "NaN"), (1, "Infinity")])
def test_impossible_tax_is_refused(amount: int, rate: str) -> None:
    with pytest.raises(ValueError, match="not negative"):
        with_tax(amount, Decimal(rate))
    with pytest.raises(ValueError, match="not negative"):
        tax_inside(amount, Decimal(rate))
