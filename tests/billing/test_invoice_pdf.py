"""An invoice as a PDF: who, what, how much, in both languages (billing: invoice_pdf)."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import translation
from pypdf import PdfReader
from pytest_django import Settings

from billing import clock
from billing.invoice_pdf import render
from billing.models import Invoice
from tenants.models import Company, User
from tests.billing.buyer import Buyer

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def hand(settings: Settings) -> Iterator[clock.Hand]:
    settings.GATEWAY_SELLER_NAME = "PT Gerbang Data & Co"
    settings.GATEWAY_SELLER_ADDRESS = "Jl. Merdeka 1|Jakarta 10110"
    settings.GATEWAY_SELLER_TAX_ID = "01.234.567.8-901.000"
    with clock.stopped_at(datetime(2026, 1, 10, 3, 0, tzinfo=UTC)) as hand:
        yield hand


@pytest.fixture
def buyer(db: None) -> Buyer:
    return Buyer.new("alpha")


def text_of(body: bytes) -> str:
    reader = PdfReader(io.BytesIO(body))
    assert len(reader.pages) == 1
    return " ".join(reader.pages[0].extract_text().split())


def loaded(buyer: Buyer) -> Invoice:
    return Invoice.objects.select_related("subscription__company", "price__plan").get(subscription=buyer.subscription)


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ["Invoice INV-2026-000001", "10 January 2026", "10 February 2026", "Plan Pro, monthly", "Total"]),
        ("id", ["Faktur INV-2026-000001", "10 Januari 2026", "10 Februari 2026", "Paket Pro, bulanan", "Jumlah"]),
    ],
)
def test_invoice_says_all_in_the_language_that_is_asked_for(buyer: Buyer, language: str, words: list[str]) -> None:
    buyer.order("PRO")
    with translation.override(language):
        text = text_of(render(loaded(buyer)))
    seller = ["PT Gerbang Data & Co", "Jl. Merdeka 1", "Jakarta 10110", "01.234.567.8-901.000"]
    for word in [*words, *seller, "alpha", "Rp449.550", "Rp49.450", "Rp499.000", "PPN", "11 %"]:
        assert word in text, word


def test_paid_and_returned_invoices_say_so(buyer: Buyer) -> None:
    attempt = buyer.order("PRO")
    assert "Please pay" in text_of(render(loaded(buyer)))
    buyer.told(attempt, "settlement", payment_type="credit_card")
    assert "Paid. Thank you." in text_of(render(loaded(buyer)))
    buyer.refunded(attempt, 100_000)
    assert "Paid back -Rp100.000" in text_of(render(loaded(buyer)))


def test_names_with_letters_of_markup_or_of_other_scripts_are_no_trouble(buyer: Buyer) -> None:
    Company.objects.filter(pk=buyer.company.pk).update(name="<b>Śākya & 東京 \U0001f4c8</b>")
    buyer.order("PRO")
    text = text_of(render(loaded(buyer)))
    assert "<b>" in text and "&" in text and "????" not in text.replace("?? ?", "")


def test_company_admin_gets_the_file_in_both_languages(buyer: Buyer) -> None:
    buyer.order("PRO")
    number = loaded(buyer).number
    client = Client()
    client.force_login(User.objects.create_user("alice", company=buyer.company, role=User.Role.COMPANY_ADMIN))
    for language, word in (("en", "Invoice"), ("id", "Faktur")):
        answer = client.get(reverse("billing:pdf", args=[number, language]))
        assert (answer.status_code, answer["Content-Type"]) == (200, "application/pdf")
        assert "no-store" in answer["Cache-Control"]
        assert f"{number}-{language}.pdf" in answer["Content-Disposition"]
        assert f"{word} {number}" in text_of(answer.content)
