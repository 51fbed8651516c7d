"""Order ids are ours, of one length, and of the form that Midtrans takes (billing: orders, faults)."""

import os

import pytest
from pytest_django import Settings

from billing import faults
from billing.midtrans.bodies import check_order_id
from billing.orders import invoice_id_of, new_order_id


@pytest.mark.parametrize("invoice_id", [1, 42, 9_999_999_999])
def test_order_id_has_one_length_and_leads_back_to_its_invoice(invoice_id: int) -> None:
    order_id = new_order_id(invoice_id)
    check_order_id(order_id)
    assert (len(order_id), invoice_id_of(order_id)) == (26, invoice_id)


def test_each_try_has_an_order_id_of_its_own() -> None:
    assert len({new_order_id(7) for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize("invoice_id", [0, -1, 10_000_000_000])
def test_invoice_that_does_not_fit_has_no_order_id(invoice_id: int) -> None:
    with pytest.raises(ValueError, match="1 to 10 digits"):
        new_order_id(invoice_id)


@pytest.mark.parametrize(
    "order_id", ["", "gw-1-9f86d081884c", "gw-0000000001-9F86D081884C", "gw-0000000001-9f86d081884c0", "shop-1"]
)
def test_order_id_of_somebody_else_is_known(order_id: str) -> None:
    assert invoice_id_of(order_id) is None


def test_process_dies_at_the_place_that_is_named_in_development_only(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _signal: killed.append(pid))
    settings.GATEWAY_BILLING_FAULT = faults.AFTER_CHARGE
    settings.GATEWAY_ENVIRONMENT = "production"
    faults.reach(faults.AFTER_CHARGE)
    settings.GATEWAY_ENVIRONMENT = "development"
    faults.reach(faults.BEFORE_CHARGE)
    assert killed == []
    faults.reach(faults.AFTER_CHARGE)
    assert killed == [os.getpid()]
