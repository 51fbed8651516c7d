"""The one place that changes a subscription's state. Room: billing."""

from billing import books, clock
from billing.models import Subscription
from billing.transitions import Effect, SubscriptionEvent, SubscriptionState, SubscriptionVerdict, judge_subscription


def move(subscription: Subscription, event: SubscriptionEvent, *, actor: str, note: str = "") -> SubscriptionVerdict:
    """Judges, saves the row and writes it down; the caller holds the locks (company, then subscription).

    Price and end of the paid time are to be on the row before a state that needs them. Access does not change here:
    call ``entitlements.refresh`` in the same transaction.
    """
    before = SubscriptionState(subscription.state)
    verdict = judge_subscription(before, event)
    if verdict.effect is Effect.CHANGED:
        subscription.state, subscription.state_since = verdict.state.value, clock.now()
        books.entry(
            "subscription_changed",
            actor=actor,
            company_id=subscription.company_id,
            before=before.value,
            after=verdict.state.value,
            note=note or event.value,
        )
    subscription.save()
    return verdict
