"""The demo's companies have plans that the books explain (billing: demo)."""

import pytest

from billing import audit
from billing.demo import forget_payments, give_plans
from billing.models import AccessGrant, Subscription
from tenants.models import Company, SubscriptionTier
from tests.billing.buyer import Buyer

pytestmark = pytest.mark.django_db
TIERS = {"merapi": "FREE", "bromo": "PRO", "rinjani": "ENTERPRISE"}


@pytest.fixture(autouse=True)
def companies(db: None) -> None:
    for slug, tier in [*TIERS.items(), ("other", "PRO")]:
        Company.objects.create(name=slug, slug=slug, tier=SubscriptionTier.objects.get(code=tier))


def given() -> list[tuple[str, str, str]]:
    rows = AccessGrant.objects.order_by("company__slug")
    return list(rows.values_list("company__slug", "plan__tier__code", "given_by"))


def test_plans_are_given_once_in_the_name_of_the_demo() -> None:
    give_plans(TIERS)
    give_plans(TIERS)
    assert given() == [("bromo", "PRO", "demo"), ("rinjani", "ENTERPRISE", "demo")]
    tiers = dict(Company.objects.values_list("slug", "tier__code"))
    assert tiers == {**TIERS, "other": "PRO"}
    assert Subscription.objects.count() == len(TIERS)
    assert audit.run().findings == []


def test_what_was_taken_back_is_not_given_again() -> None:
    give_plans(TIERS)
    AccessGrant.objects.update(revoked_at="2026-01-01T00:00:00Z")
    give_plans(TIERS)
    assert len(given()) == 2


def test_payments_that_the_stand_in_forgot_can_be_begun_anew_and_what_is_paid_stays() -> None:
    buyer, payer = Buyer.new(), Buyer.new()
    begun, pending, paid = buyer.order("PRO"), buyer.order("PRO"), payer.order("PRO")
    buyer.told(pending, "pending")
    payer.told(paid, "settlement")
    assert forget_payments() == 2
    for attempt in (begun, pending, paid):
        attempt.refresh_from_db()
    assert [(row.state, row.is_closed) for row in (begun, pending)] == [("expired", True)] * 2
    assert (paid.state, payer.access) == ("settled", ("PRO", "active"))
    assert audit.run().findings == []
