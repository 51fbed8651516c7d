"""The line about the monthly volume on the page of a plan (usage: places)."""

import pytest

from tenants.models import Company, SubscriptionTier
from usage.places import data_of_month
from usage.recording import Amount, add

pytestmark = pytest.mark.django_db


@pytest.fixture
def company(db: None) -> Company:
    return Company.objects.create(name="Alpha", slug="alpha", tier=SubscriptionTier.objects.get(code="FREE"))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B of 1 GB of data this month"),
        (5 * 2**20, "5 MB of 1 GB of data this month"),
        (1_234_567, "1.18 MB of 1 GB of data this month"),
        (700 * 2**20, "700 MB of 1 GB of data this month"),
    ],
)
def test_company_reads_how_much_of_its_volume_is_used(company: Company, size: int, text: str) -> None:
    add({str(company.pk): Amount(1, size)})
    place = data_of_month(company)
    assert (place.text, place.taken, place.is_full, place.advice) == (text, size, False, "")


def test_used_up_volume_says_what_to_do(company: Company) -> None:
    add({str(company.pk): Amount(1, 2**30)})
    place = data_of_month(company)
    assert place.is_full and "choose a larger plan" in place.advice
