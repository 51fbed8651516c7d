"""A year of 200 subscriptions by a clock of the test's own, every path with what is expected of it."""

import logging
import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from billing import audit, clock, schedule
from billing.models import Subscription
from tests.billing.shop import Worker
from tests.billing.year import PATHS, Look
from tests.support.midtrans_twin import install

pytestmark = pytest.mark.django_db
# Late in the day: each round of 23 hours comes once on the day on which a period ends, before that end.
START = datetime(2026, 1, 10, 16, 30, tzinfo=UTC)
YEAR = timedelta(days=370)
# Not a whole day: each round comes at another hour.
STEP = timedelta(hours=23)
# Of a hundred notifications, and of a hundred answers of charges.
LOST, UNHEARD = 10, 3


# Half a minute on a machine of its own.
@pytest.mark.timeout(1200)
def test_year_of_two_hundred_subscriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    # A line of log for each of some ten thousand answers takes longer than the answers.
    monkeypatch.setattr(logging.root, "level", logging.ERROR)
    # How the poller looks at what was paid long ago has tests of its own, and would be half of the time of this one.
    monkeypatch.setattr(schedule, "_AFTER_PAYMENT", (YEAR,))
    monkeypatch.setattr(schedule, "_AFTER_PAYMENT_LATER", YEAR)
    dice = random.Random(2026)
    twin = install(monkeypatch)
    with clock.stopped_at(START) as hand:
        worker = Worker(twin, keep=lambda _order_id: dice.randrange(100) >= LOST)
        members = []
        for path in PATHS:
            for number in range(path.count):
                members.append(path.begin(twin, number))
                members[-1].shopper.buy(path.tier, path.interval, method=path.method)
        assert len(members) == 200
        while hand.moment < START + YEAR:
            hand.advance(STEP)
            if dice.randrange(100) < UNHEARD:
                twin.lose("charge", done=dice.random() < 0.5)
            twin.settle_all()
            worker.work()
            while twin.lost:
                # The jobs run every half minute; what was begun and left is not left for a day.
                twin.lost -= 1
                for _round in range(3):
                    hand.advance(timedelta(minutes=6))
                    worker.work()
            look = Look()
            for member in members:
                member.note(look)
                member.path.move(member)
        for _round in range(3):
            hand.advance(timedelta(minutes=10))
            worker.work()
        findings = audit.run().findings

    assert findings == []
    wrong = [
        (member.shopper.company.name, member.seen, member.tiers, len(member.shopper.invoices(state="paid")))
        for member in members
        if not member.is_as_expected()
    ]
    assert wrong == []
    assert Counter(Subscription.objects.values_list("state", flat=True)).keys() == {"active", "ended"}
