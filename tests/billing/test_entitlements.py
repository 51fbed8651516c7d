"""Which access follows from what was paid or given, at every moment."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from billing import clock, entitlements
from billing.entitlements import Entitlement, Span, Turning, compute
from billing.models import BillingEntry, Subscription
from billing.transitions import SubscriptionState
from tenants.models import Company
from tests.billing.buyer import Buyer

S = SubscriptionState
NOW = datetime(2026, 5, 4, 3, 0, tzinfo=UTC)
DAY = timedelta(days=1)
GRACE = 3 * DAY


def span(start: float, end: float, tier: str = "PRO") -> Span:
    """Days from now."""
    return Span(NOW + start * DAY, NOW + end * DAY, tier, {"FREE": 0, "PRO": 10, "ENTERPRISE": 20}[tier])


FREE = Entitlement("FREE", None, False)


@pytest.mark.parametrize(
    ("state", "spans", "wanted"),
    [
        (S.NONE, [], FREE),
        (S.ENDED, [span(-40, -10)], FREE),
        (S.ACTIVE, [span(-1, 29)], Entitlement("PRO", NOW + 29 * DAY, False)),
        # The first moment belongs to it, the last does not.
        (S.ACTIVE, [span(0, 1)], Entitlement("PRO", NOW + DAY, False)),
        (S.NONE, [span(-1, 0)], FREE),
        # Not begun.
        (S.NONE, [span(0.1, 1)], FREE),
        # Joined: to the end of the last; with a gap: to the gap.
        (S.ACTIVE, [span(-1, 1), span(1, 31)], Entitlement("PRO", NOW + 31 * DAY, False)),
        (S.ACTIVE, [span(-1, 1), span(2, 31)], Entitlement("PRO", NOW + DAY, False)),
        # An upgrade lies over the rest, a downgrade waits.
        (S.ACTIVE, [span(-1, 5), span(-0.5, 5, "ENTERPRISE")], Entitlement("ENTERPRISE", NOW + 5 * DAY, False)),
        (S.ACTIVE, [span(-1, 5, "ENTERPRISE"), span(5, 35)], Entitlement("ENTERPRISE", NOW + 35 * DAY, False)),
        # Grace, to the moment.
        (S.PAST_DUE, [span(-31, -1)], Entitlement("PRO", NOW - DAY, False)),
        (S.ACTIVE, [span(-31, -1)], Entitlement("PRO", NOW - DAY, False)),
        (S.PAST_DUE, [span(-31, -2.999)], Entitlement("PRO", NOW - 2.999 * DAY, False)),
        (S.PAST_DUE, [span(-31, -3)], Entitlement("PRO", NOW - 3 * DAY, True)),
        # No grace for whoever leaves, and for a trial.
        (S.CANCELLING, [span(-31, -1)], FREE),
        (S.TRIAL, [span(-31, -1)], FREE),
        (S.CANCELLING, [span(-31, 1)], Entitlement("PRO", NOW + DAY, False)),
        # A debt.
        (S.UNPAID, [], Entitlement("FREE", None, True)),
        (S.UNPAID, [span(-31, -1)], Entitlement("PRO", NOW - DAY, True)),
        # Time that runs lets in, whatever was owed.
        (S.UNPAID, [span(-1, 1)], Entitlement("PRO", NOW + DAY, False)),
    ],
)
def test_access_follows_from_grants_grace_and_debt(state: S, spans: list[Span], wanted: Entitlement) -> None:
    for order in (spans, spans[::-1]):
        assert compute(state, order, grace=GRACE, now=NOW) == wanted


@pytest.fixture
def hand() -> Iterator[clock.Hand]:
    with clock.stopped_at(NOW) as hand:
        yield hand


@pytest.fixture
def buyer(db: None, hand: clock.Hand) -> Buyer:
    return Buyer.new()


def test_time_given_by_name_lets_in_and_taking_it_back_ends_it(buyer: Buyer) -> None:
    gift = buyer.give("ENTERPRISE", 30)
    assert buyer.access == ("ENTERPRISE", "active")
    assert buyer.state == "none"
    entitlements.revoke(gift, because="a mistake", actor="olivia")
    entitlements.revoke(gift, because="again", actor="olivia")
    assert buyer.access == ("FREE", "active")
    entries = BillingEntry.objects.order_by("pk").values_list("kind", "actor", "company_id")
    assert [*entries] == [
        ("access_granted", "olivia", buyer.company.pk),
        ("access_revoked", "olivia", buyer.company.pk),
    ]


def test_time_given_to_somebody_who_owes_lets_them_in_and_its_end_cuts_off_again(buyer: Buyer) -> None:
    order = buyer.order()
    buyer.told(order, "settlement")
    buyer.told(order, "chargeback")
    assert buyer.access[1] == "unpaid"
    gift = buyer.give("PRO", 5)
    assert (buyer.access, buyer.state) == (("PRO", "active"), "active")
    entitlements.revoke(gift, because="over", actor="olivia")
    assert (buyer.access[1], buyer.state) == ("unpaid", "unpaid")


def test_gift_that_ends_within_the_grace_of_what_was_paid_leaves_the_grace(buyer: Buyer, hand: clock.Hand) -> None:
    buyer.told(buyer.order(), "settlement")
    end = buyer.live_grants()[0].ends_at
    hand.moment = end + DAY
    gift = buyer.give("ENTERPRISE", 5)
    assert buyer.access == ("ENTERPRISE", "active")
    entitlements.revoke(gift, because="over", actor="olivia")
    assert (buyer.access, buyer.state) == (("PRO", "active"), "past_due")
    assert buyer.refresh().company.paid_until == end


def test_company_that_never_bought_is_not_the_business_of_billing(buyer: Buyer) -> None:
    Subscription.objects.all().delete()
    Company.objects.filter(pk=buyer.company.pk).update(status="unpaid")
    assert entitlements.refresh(buyer.company.pk) is None
    assert buyer.access == ("FREE", "unpaid")


def test_refresh_changes_nothing_where_all_is_well(buyer: Buyer) -> None:
    buyer.told(buyer.order(), "settlement")
    version = buyer.refresh().company.access_version
    entitlements.refresh(buyer.company.pk)
    assert buyer.refresh().company.access_version == version


def test_next_plan_begins_by_itself_at_its_time(buyer: Buyer, hand: clock.Hand) -> None:
    buyer.told(buyer.order("ENTERPRISE"), "settlement")
    end = buyer.live_grants()[0].ends_at
    downgrade = buyer.order("PRO", kind="renewal", start=end)
    Subscription.objects.update(next_price=downgrade.invoice.price)
    buyer.told(downgrade, "settlement")
    turning = Turning()
    assert turning() == 0 or buyer.access[0] == "ENTERPRISE"
    hand.moment = end - timedelta(seconds=1)
    turning()
    assert buyer.access[0] == "ENTERPRISE"
    hand.advance(timedelta(seconds=1))
    assert turning() == 1
    subscription = buyer.refresh().subscription
    assert buyer.access == ("PRO", "active")
    assert (subscription.price_id, subscription.next_price_id) == (downgrade.invoice.price_id, None)


def test_gift_ends_by_itself_at_its_time_also_after_a_pause_of_the_worker(buyer: Buyer, hand: clock.Hand) -> None:
    buyer.give("PRO", 2)
    hand.advance(5 * DAY)
    Turning()()
    assert buyer.access == ("FREE", "active")


def test_operator_who_resumes_somebody_who_owes_does_not_let_them_in_for_long(buyer: Buyer) -> None:
    order = buyer.order()
    buyer.told(order, "settlement")
    buyer.told(order, "chargeback")
    Company.objects.filter(pk=buyer.company.pk).update(status="active")
    assert Turning()() == 1
    assert buyer.access[1] == "unpaid"
