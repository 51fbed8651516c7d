"""Charges of a saved card or a linked wallet, without its owner: never two for one order. Room: billing.

The order id and the idempotency key are committed before Midtrans is asked. An answer that is lost leaves the attempt
as it was; whoever goes on asks GET status first, and charges only when Midtrans has never heard of the order id, again
with the same one, which Midtrans takes once.
"""

from datetime import timedelta

import structlog
from django.db.models import Q

from billing import attempts, clock, faults, ledger, vault
from billing.invoices import customer_of, items_of
from billing.midtrans.client import MidtransClient
from billing.midtrans.declines import Decline, kind_of_decline
from billing.midtrans.outcomes import Done, Outcome, Refusal, Refused
from billing.midtrans.payload import TransactionStatus
from billing.models import Invoice, PaymentAttempt, PaymentMethod
from billing.transitions import PaymentState

log = structlog.get_logger(__name__)

ACTOR = "charge"
# Nobody begins a charge after this. What Midtrans does not know well after it was not begun, and is not any more: the
# poller closes it then, and the next try has an order id of its own.
_BEGIN_WITHIN = timedelta(minutes=8)
# Not the customer's fault and nothing was done: the same order is tried again later.
_OURS = frozenset({Refusal.UNAUTHORIZED, Refusal.RATE_LIMITED})


def prepare(invoice: Invoice, method: PaymentMethod) -> PaymentAttempt:
    """Writes the attempt; the caller holds the locks, commits, and then calls ``carry_out``."""
    return attempts.begin(invoice, PaymentAttempt.By.MERCHANT, actor=ACTOR, method=method)


def carry_out(attempt_id: int) -> bool:
    """Brings a charge to its end, however often and by whomever it was begun; whether it has one now."""
    rows = PaymentAttempt.objects.select_related("invoice__subscription__company", "invoice__price__plan", "method")
    attempt = rows.get(pk=attempt_id)
    was_asked = attempt.asked_at is not None
    if attempt.by != PaymentAttempt.By.MERCHANT or attempt.state != PaymentState.CREATED or not attempts.take(attempt):
        return False
    with MidtransClient.from_settings() as client:
        if was_asked:
            if not attempts.look(client, attempt, source=ACTOR):
                return False
            if attempt.state != PaymentState.CREATED:
                return True
        if attempt.invoice.state != Invoice.State.OPEN:
            return attempts.close(attempt, state=PaymentState.CANCELLED, problem="not owed any more", actor=ACTOR)
        if clock.now() - attempt.created_at > _BEGIN_WITHIN:
            return False
        return _charge(client, attempt)


def unfinished(limit: int) -> list[int]:
    """Charges that nobody works on and that have no end yet: whoever began them died, or got no answer."""
    before = clock.now() - attempts.LEASE
    idle = Q(asked_at__isnull=True, created_at__lte=before) | Q(asked_at__lte=before)
    rows = PaymentAttempt.objects.filter(
        idle, by=PaymentAttempt.By.MERCHANT, state=PaymentState.CREATED.value, is_closed=False
    )
    return list(rows.order_by("asked_at", "pk").values_list("pk", flat=True)[:limit])


def decline_of(attempt: PaymentAttempt) -> Decline:
    """Whether another try of a charge that failed is of use."""
    told = attempt.transactions.order_by("-pk").first()
    if told is not None:
        details = told.details
        return kind_of_decline(str(details.get("status_code", "")), str(details.get("channel_response_code", "")))
    return kind_of_decline(attempt.last_problem.partition(" ")[0])


def _charge(client: MidtransClient, attempt: PaymentAttempt) -> bool:
    method = attempt.method
    if method is None:
        return attempts.close(attempt, state=PaymentState.FAILED, problem="411 the method is gone", actor=ACTOR)
    try:
        token = vault.unseal(method.sealed_token)
    except vault.VaultError:
        log.error("payment_method_unreadable", method_id=method.pk)
        return attempts.close(attempt, state=PaymentState.FAILED, problem="411 the method is unreadable", actor=ACTOR)
    faults.reach(faults.BEFORE_CHARGE)
    outcome = _ask(client, attempt, method, token)
    faults.reach(faults.AFTER_CHARGE)
    if isinstance(outcome, Done):
        ledger.apply_status(attempt, outcome.value, source=ACTOR)
        faults.reach(faults.AFTER_STORE)
        return True
    if not isinstance(outcome, Refused) or outcome.reason in _OURS:
        # Nobody knows, or it is ours to mend: the lease runs out, and GET status is asked first.
        return False
    if outcome.reason is Refusal.DUPLICATE_ORDER:
        return attempts.look(client, attempt, source=ACTOR) and attempt.state != PaymentState.CREATED
    problem = f"{outcome.status_code} {outcome.reason.value}"
    return attempts.close(attempt, state=PaymentState.FAILED, problem=problem, actor=ACTOR)


def _ask(
    client: MidtransClient, attempt: PaymentAttempt, method: PaymentMethod, token: str
) -> Outcome[TransactionStatus]:
    invoice = attempt.invoice
    items, customer = items_of(invoice), customer_of(invoice)
    if method.kind == PaymentMethod.Kind.CARD:
        return client.charge_card(
            order_id=attempt.order_id,
            amount=attempt.amount,
            saved_token=token,
            idempotency_key=attempt.idempotency_key,
            items=items,
            customer=customer,
        )
    return client.charge_gopay(
        order_id=attempt.order_id,
        amount=attempt.amount,
        account_id=method.account_id,
        wallet_token=token,
        idempotency_key=attempt.idempotency_key,
        items=items,
        customer=customer,
    )
