"""The log only grows, numbers leave none out, the clock and the vault keep their word."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import DatabaseError, transaction
from pytest_django import Settings

from billing import books, clock, vault
from billing.models import BillingEntry, Invoice, Plan
from billing.numbers import next_invoice_number
from tests.billing.buyer import Buyer


@pytest.mark.django_db
@pytest.mark.parametrize("act", ["update", "delete"])
def test_database_refuses_to_change_the_log(act: str) -> None:
    entry = books.entry("found_by_poll", actor="poller", order_id="x" * 100, note="n" * 500)
    assert (len(entry.order_id), len(entry.note)) == (64, 200)
    with pytest.raises(DatabaseError, match="never changed"), transaction.atomic():
        rows = BillingEntry.objects.filter(pk=entry.pk)
        rows.update(actor="nobody") if act == "update" else rows._raw_delete(rows.db)
    assert BillingEntry.objects.get().actor == "poller"


@pytest.mark.django_db
def test_entries_refuse_to_be_changed_by_hand() -> None:
    entry = books.entry("found_by_poll", actor="poller")
    with pytest.raises(TypeError):
        entry.save()
    with pytest.raises(TypeError):
        entry.delete()


@pytest.mark.django_db
def test_number_of_an_invoice_that_was_not_written_is_given_out_again() -> None:
    with clock.stopped_at(datetime(2026, 12, 31, 16, 59, tzinfo=UTC)) as hand:
        with transaction.atomic():
            assert next_invoice_number() == "INV-2026-000001"
        with pytest.raises(RuntimeError), transaction.atomic():
            assert next_invoice_number() == "INV-2026-000002"
            raise RuntimeError("not written")
        with transaction.atomic():
            assert next_invoice_number() == "INV-2026-000002"
        # Midnight in Jakarta.
        hand.advance(timedelta(minutes=1))
        with transaction.atomic():
            assert next_invoice_number() == "INV-2027-000001"


@pytest.mark.django_db(transaction=True)
def test_number_is_taken_in_a_transaction_only() -> None:
    with pytest.raises(RuntimeError, match="atomic"):
        next_invoice_number()


@pytest.mark.django_db
def test_product_sells_three_plans() -> None:
    plans = Plan.objects.order_by("rank")
    found = {plan.tier.code: dict(plan.prices.values_list("interval", "amount")) for plan in plans}
    assert found == {
        "FREE": {},
        "PRO": {"monthly": 499_000, "yearly": 4_990_000},
        "ENTERPRISE": {"monthly": 2_499_000, "yearly": 24_990_000},
    }


@pytest.mark.django_db
def test_invoices_of_the_cast_are_numbered_one_by_one() -> None:
    buyer = Buyer.new()
    numbers = [buyer.order().invoice.number[-6:] for _ in range(3)]
    assert numbers == ["000001", "000002", "000003"]
    assert Invoice.objects.count() == 3


def test_sealed_token_is_opened_by_the_same_key_and_an_older_one(settings: Settings) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "one", []
    sealed = vault.seal("481111token1114")
    assert b"1114" not in sealed
    assert vault.unseal(memoryview(sealed)) == "481111token1114"
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "two", ["one"]
    assert vault.unseal(sealed) == "481111token1114"
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(vault.VaultError) as refused:
        vault.unseal(sealed)
    assert "1114" not in str(refused.value)
    with pytest.raises(vault.VaultError):
        vault.unseal(b"not sealed")


def test_clock_is_shifted_by_its_setting_and_stands_still_for_tests(settings: Settings) -> None:
    settings.GATEWAY_CLOCK_OFFSET = 86_400.0
    ahead = clock.now() - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < ahead < timedelta(hours=24, minutes=1)
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    with clock.stopped_at(moment) as hand:
        assert clock.now() == moment
        assert hand.advance(timedelta(days=1)) == clock.now() == moment + timedelta(days=1)
        with pytest.raises(RuntimeError), clock.stopped_at(moment):
            pass
    with pytest.raises(ValueError, match="zone"), clock.stopped_at(datetime(2026, 1, 1)):  # noqa: DTZ001
        pass
