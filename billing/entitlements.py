"""What a company may use because of what was paid or given, and the door of this room. Room: billing.

Access follows from the grants that are not revoked, the subscription's state and the company's grace, worked out from
the rows each time, never from the last thing that was heard. FREE is the floor. What comes out is written to the
tenants room in the same transaction; from there it reaches live connections.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction

from billing import books, clock
from billing.lifecycle import move
from billing.models import AccessGrant, Invoice, Plan, Subscription
from billing.transitions import SubscriptionEvent, SubscriptionState
from tenants import access
from tenants.access import Actor

FREE = "FREE"
_RUNNING = frozenset({SubscriptionState.ACTIVE, SubscriptionState.PAST_DUE})
_LOOK_BACK, _OVERLAP = timedelta(days=31), timedelta(minutes=1)
# A gift lets somebody in who owes; a subscription that never was, or is over, does not begin by one.
_OWING = frozenset({SubscriptionState.PAST_DUE, SubscriptionState.UNPAID})


@dataclass(frozen=True, slots=True)
class Span:
    """A grant that is not revoked: [starts_at, ends_at)."""

    starts_at: datetime
    ends_at: datetime
    tier: str
    rank: int


@dataclass(frozen=True, slots=True)
class Entitlement:
    """``paid_until`` None: not limited, as the free tier. ``is_cut_off``: nobody of the company is let in."""

    tier: str
    paid_until: datetime | None
    is_cut_off: bool


def compute(state: SubscriptionState, spans: Sequence[Span], *, grace: timedelta, now: datetime) -> Entitlement:
    """Pure. The highest plan of the grants that run now; in the grace time after them, that of the last one."""
    running = [span for span in spans if span.starts_at <= now < span.ends_at]
    if running:
        best = max(running, key=lambda span: span.rank)
        return Entitlement(best.tier, cover_end(spans, now), False)
    past = [span for span in spans if span.ends_at <= now]
    last = max(past, key=lambda span: (span.ends_at, span.rank), default=None)
    if state is SubscriptionState.UNPAID:
        return Entitlement(last.tier if last else FREE, last.ends_at if last else None, True)
    if state in _RUNNING and last is not None:
        # The gateways end connections by themselves at the end of the grace; the state follows by a job.
        return Entitlement(last.tier, last.ends_at, now >= last.ends_at + grace)
    return Entitlement(FREE, None, False)


def cover_end(spans: Sequence[Span], now: datetime) -> datetime | None:
    """Until when there is access without a gap; None: there is none now."""
    end = max((span.ends_at for span in spans if span.starts_at <= now < span.ends_at), default=None)
    if end is None:
        return None
    for span in sorted(spans, key=lambda span: span.starts_at):
        if span.starts_at <= end:
            end = max(end, span.ends_at)
    return end


def spans_of(company_id: uuid.UUID) -> list[Span]:
    """Those of the company that are not revoked."""
    rows = AccessGrant.objects.filter(company_id=company_id, revoked_at__isnull=True)
    values = rows.values_list("starts_at", "ends_at", "plan__tier__code", "plan__rank")
    return [Span(*row) for row in values]


def locked_subscription(company_id: uuid.UUID) -> Subscription | None:
    """Locks the company and then its subscription, in this order everywhere; None: it has none."""
    access.lock({company_id})
    rows = Subscription.objects.select_for_update(of=("self",)).select_related("company__tier", "price__plan")
    return rows.filter(company_id=company_id).first()


def refresh(company_id: uuid.UUID, *, actor: str = "billing") -> Entitlement | None:
    """Brings the subscription's dates and the tenants' access in line with the grants; changes nothing where they are.

    None: the company has neither a subscription nor a grant; its access is not the business of billing.
    """
    with transaction.atomic():
        subscription = locked_subscription(company_id)
        grants = list(AccessGrant.objects.filter(company_id=company_id).select_related("plan__tier", "company__tier"))
        if subscription is None and not grants:
            return None
        now = clock.now()
        company = subscription.company if subscription is not None else grants[0].company
        if subscription is not None:
            _follow(subscription, now)
        state = SubscriptionState(subscription.state) if subscription is not None else SubscriptionState.NONE
        result = compute(state, spans_of(company_id), grace=company.grace, now=now)
        who = Actor.system(f"billing:{actor}")
        status = type(company).Status
        if company.tier.code != result.tier:
            access.set_tier(who, company, Plan.objects.select_related("tier").get(tier__code=result.tier).tier)
        owes = company.status == status.UNPAID
        if company.paid_until != result.paid_until or (owes and not result.is_cut_off):
            access.set_paid_until(who, company, result.paid_until)
            owes = False
        # A suspension by an operator lies over everything.
        if result.is_cut_off and not owes and company.status != status.SUSPENDED:
            access.set_company_status(who, company, status.UNPAID, "the paid time is over")
        return result


def grant(
    company_id: uuid.UUID,
    plan: Plan,
    starts_at: datetime,
    ends_at: datetime,
    *,
    invoice: Invoice | None = None,
    given_by: str = "",
    actor: str,
    receipt_id: int | None = None,
) -> AccessGrant:
    """Gives paid time (``invoice``), or time in somebody's name (``given_by``), and with it access at once."""
    with transaction.atomic():
        subscription = locked_subscription(company_id)
        row = AccessGrant.objects.create(
            company_id=company_id, plan=plan, starts_at=starts_at, ends_at=ends_at, invoice=invoice, given_by=given_by
        )
        books.entry(
            "access_granted",
            actor=actor,
            invoice=invoice,
            company_id=company_id,
            receipt_id=receipt_id,
            after=plan.tier.code,
            note=f"{starts_at.isoformat()} to {ends_at.isoformat()}" + (f", given by {given_by}" if given_by else ""),
        )
        if subscription is not None:
            state, now = SubscriptionState(subscription.state), clock.now()
            if invoice is not None and subscription.price is None:
                subscription.price = invoice.price
            if invoice is not None and invoice.kind != Invoice.Kind.UPGRADE:
                # Of the renewal that this ends.
                subscription.first_failure_at = subscription.next_retry_at = None
                subscription.reminders_sent = []
            _follow(subscription, now)
            if invoice is not None or (state in _OWING and starts_at <= now < ends_at):
                move(subscription, SubscriptionEvent.PAYMENT_RECEIVED, actor=actor)
        refresh(company_id, actor=actor)
        return row


def revoke(row: AccessGrant, *, because: str, actor: str, receipt_id: int | None = None) -> None:
    """Takes it back at once. What is left is given by the other grants; nothing happens to one that is revoked."""
    with transaction.atomic():
        subscription = locked_subscription(row.company_id)
        row = AccessGrant.objects.select_for_update(of=("self",)).select_related("plan__tier", "invoice").get(pk=row.pk)
        if row.revoked_at is not None:
            return
        now = clock.now()
        row.revoked_at, row.revoked_because = now, because[:80]
        row.save(update_fields=["revoked_at", "revoked_because"])
        books.entry(
            "access_revoked",
            actor=actor,
            invoice=row.invoice,
            company_id=row.company_id,
            receipt_id=receipt_id,
            before=row.plan.tier.code,
            note=because,
        )
        if subscription is not None:
            _judge_revoked(subscription, row, now, because, actor)
        refresh(row.company_id, actor=actor)


def turn(since: datetime) -> int:
    """Refreshes whose grants began or ended after ``since``, and who is let in again although unpaid; how many.

    A plan that begins in the middle, as after a downgrade, begins by this.
    """
    now = clock.now()
    turning = AccessGrant.objects.filter(revoked_at__isnull=True)
    companies = set(turning.filter(starts_at__gt=since, starts_at__lte=now).values_list("company_id", flat=True))
    companies |= set(turning.filter(ends_at__gt=since, ends_at__lte=now).values_list("company_id", flat=True))
    unpaid = Subscription.objects.filter(state=SubscriptionState.UNPAID.value, company__status="active")
    companies |= set(unpaid.values_list("company_id", flat=True))
    for company_id in companies:
        refresh(company_id, actor="worker")
    return len(companies)


def _judge_revoked(subscription: Subscription, row: AccessGrant, now: datetime, because: str, actor: str) -> None:
    """What the loss of this grant makes of the subscription: nothing, where another one runs."""
    spans = spans_of(row.company_id)
    ended = [span for span in spans if span.ends_at <= now]
    was_running = row.starts_at <= now < row.ends_at
    was_last = row.ends_at <= now and all(span.ends_at <= row.ends_at for span in ended)
    _follow(subscription, now)
    if cover_end(spans, now) is not None or not (was_running or was_last):
        return
    event = SubscriptionEvent.PAYMENT_REVERSED
    if row.invoice is None and any(now < span.ends_at + subscription.company.grace for span in ended):
        # A gift ends, and what was paid is not over for long.
        event = SubscriptionEvent.PERIOD_ENDED
    move(subscription, event, actor=actor, note=because)


class Turning:
    """``turn`` as a job: each time since the last time, the first time since a month."""

    def __init__(self) -> None:
        self._since: datetime | None = None

    def __call__(self) -> int:
        now = clock.now()
        count = turn(self._since or now - _LOOK_BACK)
        # Again a little: a grant may have been written while this looked.
        self._since = now - _OVERLAP
        return count


def _follow(subscription: Subscription, now: datetime) -> None:
    """Price and dates as the grants have them: price of the best one that runs, end of what is paid without a gap."""
    rows = AccessGrant.objects.filter(company_id=subscription.company_id, revoked_at__isnull=True)
    grants = list(rows.select_related("plan", "invoice__price__plan"))
    paid = [row for row in grants if row.invoice is not None and row.starts_at <= now < row.ends_at]
    best = max(paid, key=lambda row: (row.plan.rank, row.starts_at), default=None)
    before = (subscription.price_id, subscription.next_price_id, subscription.period_start, subscription.paid_until)
    if best is not None and best.invoice is not None:
        subscription.price, subscription.period_start = best.invoice.price, best.starts_at
        if subscription.next_price_id == subscription.price_id:
            subscription.next_price = None
    spans = [Span(row.starts_at, row.ends_at, "", row.plan.rank) for row in grants]
    end = cover_end(spans, now) or max((span.ends_at for span in spans if span.ends_at <= now), default=None)
    if end is not None:
        subscription.paid_until = end
    elif subscription.paid_until is not None:
        subscription.paid_until = min(subscription.paid_until, now)
    after = (subscription.price_id, subscription.next_price_id, subscription.period_start, subscription.paid_until)
    if after != before:
        subscription.save()
