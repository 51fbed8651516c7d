"""What renewals are charged to: cards that a payment has saved, and linked GoPay accounts. Room: billing."""

import structlog
from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext as _

from billing import books, clock, faults, vault
from billing.invoices import locked
from billing.ledger import Applied, on_payment_change
from billing.midtrans.client import MidtransClient
from billing.midtrans.outcomes import Done, Unknown
from billing.midtrans.payload import AccountStatus, TransactionStatus
from billing.models import PaymentAttempt, PaymentMethod, Subscription
from billing.problems import BillingError
from billing.receipts import on_account_change
from billing.transitions import Access
from tenants.access import Actor, find

log = structlog.get_logger(__name__)

_LINKED = "ENABLED"


def usable(prefix: str = "") -> Q:
    """The methods that a renewal may be charged to; ``prefix``: "method__" of subscriptions."""
    lives = Q(**{f"{prefix}expires_at__isnull": True}) | Q(**{f"{prefix}expires_at__gt": clock.now()})
    wanted = Q(
        **{f"{prefix}pk__isnull": False, f"{prefix}removed_at__isnull": True, f"{prefix}refused_at__isnull": True}
    )
    # A wallet whose token was not fetched yet has none.
    return lives & wanted & ~Q(**{f"{prefix}sealed_token": b""})


def is_usable(method: PaymentMethod | None) -> bool:
    return method is not None and PaymentMethod.objects.filter(usable(), pk=method.pk).exists()


def keep(attempt: PaymentAttempt, status: TransactionStatus) -> PaymentMethod | None:
    """Keeps the card or wallet that has just paid; renewals use it from now on. In the caller's transaction.

    None: the payment kept nothing. A wallet's token is asked for by ``complete``, outside of the transaction.
    """
    if status.saved_token:
        card = PaymentMethod(
            kind=PaymentMethod.Kind.CARD,
            label=status.masked_card or "card",
            sealed_token=vault.seal(status.saved_token),
            expires_at=status.saved_token_expires_at,
        )
        return _keep(attempt, card)
    if status.payment_type == "gopay" and status.account_id:
        wallet = PaymentMethod(
            kind=PaymentMethod.Kind.GOPAY, label=f"…{status.account_id[-4:]}", account_id=status.account_id
        )
        return _keep(attempt, wallet)
    return None


def complete(limit: int = 20) -> int:
    """Fetches the tokens of wallets that were kept; how many are ready now."""
    waiting = PaymentMethod.objects.filter(removed_at__isnull=True, refused_at__isnull=True, sealed_token=b"")
    rows = list(waiting.exclude(account_id="").order_by("pk")[:limit])
    done = 0
    if rows:
        with MidtransClient.from_settings() as client:
            for row in rows:
                done += _complete(client, row)
    return done


def look_again(account_id: str) -> int:
    """Something was said of a linked wallet: asks Midtrans how it stands. How many rows changed.

    Raises BillingError, temporary, when Midtrans does not answer.
    """
    if not PaymentMethod.objects.filter(account_id=account_id, removed_at__isnull=True, refused_at=None).exists():
        return 0
    with MidtransClient.from_settings() as client:
        outcome = client.gopay_account(account_id)
    if isinstance(outcome, Unknown):
        raise BillingError(_("Midtrans does not answer at the moment: try again in a minute."), is_temporary=True)
    return _account_changed(outcome.value) if isinstance(outcome, Done) else 0


def _account_changed(account: AccountStatus) -> int:
    """One that was unlinked at GoPay is charged no longer; the next renewal asks for another method."""
    if account.status in (_LINKED, "PENDING"):
        return 0
    changed = 0
    for row in PaymentMethod.objects.filter(account_id=account.account_id, removed_at__isnull=True, refused_at=None):
        changed += refuse(row, actor="webhook", why=f"the wallet is {account.status.lower()}")
    return changed


def remove(actor: Actor, method: PaymentMethod) -> None:
    """It is charged no longer; a wallet is unlinked as far as Midtrans answers. Raises NotVisible."""
    with transaction.atomic():
        row = _own(actor, method)
        subscription = locked(row.company_id)
        if row.removed_at is not None:
            return
        # What charges somebody is not kept for longer than it is wanted.
        row.removed_at, row.sealed_token = clock.now(), b""
        row.save(update_fields=["removed_at", "sealed_token"])
        if subscription.method_id == row.pk:
            rest = PaymentMethod.objects.filter(usable(), company_id=row.company_id).exclude(pk=row.pk)
            _use(subscription, rest.order_by("-pk").first())
        books.entry("method_removed", actor=actor.name, company_id=row.company_id, note=str(row))
    if row.account_id:
        with MidtransClient.from_settings() as client:
            client.unlink_gopay(row.account_id)


def make_default(actor: Actor, method: PaymentMethod) -> None:
    """Renewals are charged to it from now on. Raises NotVisible, and BillingError for one that is of no use."""
    with transaction.atomic():
        row = _own(actor, method)
        subscription = locked(row.company_id)
        if not is_usable(row):
            raise BillingError(_("This payment method can no longer be charged: choose another one."))
        _use(subscription, row)
        books.entry("method_chosen", actor=actor.name, company_id=row.company_id, note=str(row))


def refuse(method: PaymentMethod, *, actor: str, why: str) -> bool:
    """The bank or the wallet has said no for good; whether that is news."""
    with transaction.atomic():
        locked(method.company_id)
        changed = PaymentMethod.objects.filter(pk=method.pk, refused_at__isnull=True).update(refused_at=clock.now())
        if changed:
            books.entry("method_refused", actor=actor, company_id=method.company_id, note=f"{method}: {why}")
    return bool(changed)


def _keep(attempt: PaymentAttempt, method: PaymentMethod) -> PaymentMethod | None:
    if attempt.by == PaymentAttempt.By.MERCHANT:
        # It paid because it was kept before.
        return None
    subscription = attempt.invoice.subscription
    method.company_id, method.label = subscription.company_id, method.label[:40]
    known = PaymentMethod.objects.filter(company_id=method.company_id, kind=method.kind, removed_at__isnull=True)
    # The same card again has a new token; the old one is not charged any more.
    known.filter(label=method.label).update(removed_at=clock.now(), sealed_token=b"")
    method.save()
    _use(subscription, method)
    books.entry("method_kept", actor="checkout", attempt=attempt, note=str(method))
    return method


def _use(subscription: Subscription, method: PaymentMethod | None) -> None:
    subscription.method = method
    Subscription.objects.filter(pk=subscription.pk).update(method=method)


def _complete(client: MidtransClient, row: PaymentMethod) -> bool:
    outcome = client.gopay_account(row.account_id)
    if not isinstance(outcome, Done):
        return False
    if outcome.value.status == _LINKED and outcome.value.wallet_token:
        sealed = vault.seal(outcome.value.wallet_token)
        return bool(PaymentMethod.objects.filter(pk=row.pk, removed_at__isnull=True).update(sealed_token=sealed))
    _account_changed(outcome.value)
    return False


def _own(actor: Actor, method: PaymentMethod) -> PaymentMethod:
    return find(actor, PaymentMethod, pk=method.pk)


def register() -> None:
    """At start, in every process: whoever hears of a payment keeps what paid it, and of a wallet looks at it."""
    on_payment_change(_after_payment)
    on_account_change(_after_account_change)


def _after_account_change(account_id: str) -> None:
    look_again(account_id)


def _after_payment(attempt: PaymentAttempt, status: TransactionStatus, applied: Applied) -> None:
    faults.reach(faults.BEFORE_STORE)
    if applied.access is Access.GRANT:
        keep(attempt, status)
