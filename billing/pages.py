"""Payment pages at Midtrans (Snap): card, bank transfer, GoPay and QRIS on one page. Room: billing."""

import time
from datetime import timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from billing import attempts, clock
from billing.invoices import customer_of, items_of, locked
from billing.midtrans.bodies import PageOrder
from billing.midtrans.client import MidtransClient
from billing.midtrans.outcomes import Done, Refusal, Refused
from billing.models import Invoice, PaymentAttempt
from billing.problems import BillingError
from billing.transitions import Money, PaymentState, is_awaited, money_of

log = structlog.get_logger(__name__)

# Midtrans gives no page a longer life, and methods on it less than a quarter of an hour are not reliable.
_LONGEST, _SHORTEST = timedelta(days=7), timedelta(minutes=15)
# Where renewals are charged by us, an open page must not keep the charge waiting for long.
_BESIDE_A_METHOD = timedelta(hours=1)
# A second click waits this long, in seconds, for the page that the first one is getting.
_PATIENCE, _STEP = 5.0, 0.1
_BUSY = PaymentState.PENDING, PaymentState.AUTHORIZED, PaymentState.CHALLENGED


def open_page(invoice: Invoice, *, finish_url: str, actor: str, life: timedelta | None = None) -> str:
    """The address of the page on which an open invoice is paid; the same one again while it lives.

    Raises BillingError, temporary when Midtrans does not answer: the order id is kept then, and asked for again.
    """
    with MidtransClient.from_settings() as client:
        attempt = _attempt(client, invoice, actor)
        deadline = time.monotonic() + _PATIENCE
        while True:
            if attempt.page_url:
                return attempt.page_url
            if attempts.take(attempt):
                return _ask(client, attempt, finish_url, life)
            if time.monotonic() > deadline:
                raise _try_again()
            # Somebody else is asking for it just now.
            time.sleep(_STEP)
            attempt.refresh_from_db()


def _attempt(client: MidtransClient, invoice: Invoice, actor: str) -> PaymentAttempt:
    """The one that is open, or a new one where there is none or it is dead."""
    # Each turn closes one that is dead; more than a few are a loop.
    for _turn in range(5):
        with transaction.atomic():
            locked(invoice.subscription.company_id)
            row = Invoice.objects.select_for_update(of=("self",)).select_related("subscription").get(pk=invoice.pk)
            if row.state != Invoice.State.OPEN:
                raise BillingError(_("Invoice %(number)s is not open any more.") % {"number": row.number})
            opened = row.attempts.filter(is_closed=False).first()
            if opened is None:
                return attempts.begin(row, PaymentAttempt.By.CUSTOMER, actor=actor)
        opened.invoice = invoice
        if opened.by == PaymentAttempt.By.MERCHANT:
            raise BillingError(
                _("A charge for this invoice is under way: look again in a few minutes."), is_temporary=True
            )
        if _is_alive(opened):
            return opened
        if not attempts.look(client, opened, source="checkout"):
            raise _try_again()
        if _is_alive(opened):
            return opened
        state = PaymentState(opened.state)
        if state is PaymentState.CREATED:
            attempts.close(opened, state=PaymentState.EXPIRED, problem="its page has expired", actor="checkout")
        elif is_awaited(state):
            # Begun on a page whose address was lost.
            if not attempts.end_pending(client, opened, source="checkout"):
                raise _try_again()
        elif money_of(state) is Money.UNPAID:
            # Denied on a page that may still be open: the next try has an order id of its own.
            PaymentAttempt.objects.filter(pk=opened.pk).update(is_closed=True, next_poll_at=None)
    raise _try_again()


def _is_alive(attempt: PaymentAttempt) -> bool:
    """The customer can go on with its page, or it has none yet."""
    if attempt.is_closed:
        return False
    if attempt.state in _BUSY:
        return bool(attempt.page_url)
    if attempt.state != PaymentState.CREATED:
        return False
    return not attempt.page_url or (attempt.page_expires_at is not None and attempt.page_expires_at > clock.now())


def _ask(client: MidtransClient, attempt: PaymentAttempt, finish_url: str, life: timedelta | None) -> str:
    invoice = attempt.invoice
    lives = _life(invoice, life)
    order = PageOrder(
        order_id=attempt.order_id,
        amount=attempt.amount,
        items=items_of(invoice),
        customer=customer_of(invoice),
        expires_in=int(lives.total_seconds()),
        finish_url=finish_url,
        payer_id=str(invoice.subscription.company_id),
    )
    begun = clock.now()
    outcome = client.create_page(order)
    if isinstance(outcome, Done):
        PaymentAttempt.objects.filter(pk=attempt.pk).update(page_url=outcome.value.url, page_expires_at=begun + lives)
        return outcome.value.url
    attempts.hand_back(attempt)
    if isinstance(outcome, Refused) and outcome.reason in (Refusal.INVALID, Refusal.DUPLICATE_ORDER):
        # The order id may be taken: by a page whose answer was lost, and on which somebody has chosen a method since.
        attempts.look(client, attempt, source="checkout")
        if attempt.state == PaymentState.CREATED:
            log.error("payment_page_refused", order_id=attempt.order_id, status_code=outcome.status_code)
        elif attempt.state in _BUSY:
            attempts.end_pending(client, attempt, source="checkout")
    raise _try_again()


def _life(invoice: Invoice, wanted: timedelta | None) -> timedelta:
    now, subscription = clock.now(), invoice.subscription
    life = wanted or timedelta(seconds=settings.GATEWAY_PAYMENT_PAGE_TTL)
    if invoice.kind == Invoice.Kind.RENEWAL and subscription.method_id is not None:
        life = min(life, _BESIDE_A_METHOD)
    if invoice.kind in (Invoice.Kind.UPGRADE, Invoice.Kind.CHANGE):
        # Its price is that of the days which were left when it was written.
        life = min(life, invoice.due_at - now)
    return min(max(life, _SHORTEST), _LONGEST)


def _try_again() -> BillingError:
    return BillingError(_("The payment page could not be opened: try again in a minute."), is_temporary=True)
