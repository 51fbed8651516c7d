"""What companies do in a year, path by path, and what is to be true at its end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from billing import checkout, clock, refunds, vault
from billing.models import Invoice, Subscription, Transaction
from tests.billing.shop import OPERATOR, Shopper
from tests.support.midtrans_twin import Twin

# What a company does at a round; it may be called at any time of a day.
Move = Callable[["Member"], None]


class Look:
    """How all companies stand, read at once."""

    def __init__(self) -> None:
        rows = Subscription.objects.values_list("company_id", "state", "company__tier__code", "company__status")
        self.standing = {company_id: (state, f"{tier}/{status}") for company_id, state, tier, status in rows}
        opened = Invoice.objects.filter(state="open").values_list("subscription__company_id", "kind", "pk", "due_at")
        self.open = {(company_id, kind): (pk, due_at) for company_id, kind, pk, due_at in opened}


@dataclass
class Member:
    """One company of the year. ``seen``: the states it was in, each once, in order."""

    path: "Path"
    shopper: Shopper
    began: datetime
    seen: list[str] = field(default_factory=list)
    tiers: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    look: Look | None = None

    @property
    def day(self) -> int:
        return (clock.now() - self.began).days

    def once(self, what: str, day: int) -> bool:
        """Whether it is time for something that is done once."""
        if what in self.done or self.day < day:
            return False
        self.done.add(what)
        return True

    def is_as_expected(self) -> bool:
        """Of what goes up and down each month only the pattern is compared."""
        states = [*self.path.states]
        if len(states) > 8:
            states = states[: len(self.seen)]
        least, most = self.path.paid
        return (self.seen, self.tiers) == (states, [*self.path.tiers]) and (
            least <= len(self.shopper.invoices(state="paid")) <= most
        )

    def note(self, look: Look) -> None:
        self.look = look
        state, tier = look.standing[self.shopper.company.pk]
        if self.seen[-1:] != [state]:
            self.seen.append(state)
        if self.tiers[-1:] != [tier]:
            self.tiers.append(tier)


@dataclass(frozen=True)
class Path:
    """``tier``, ``interval``, ``method``: the first purchase. ``states`` and ``tiers``: all that is seen, in order.
    ``paid``: how many invoices are paid in 370 days, least and most."""

    name: str
    count: int
    tier: str = "PRO"
    interval: str = "monthly"
    method: str = "card"
    move: Move = lambda member: None
    states: tuple[str, ...] = ("active",)
    tiers: tuple[str, ...] = ("PRO/active",)
    paid: tuple[int, int] = (13, 13)

    def begin(self, twin: Twin, number: int) -> Member:
        shopper = Shopper.new(twin, f"{self.name}-{number}".replace("_", "-"))
        return Member(self, shopper, clock.now())


def _pay(member: Member, kind: str, after: timedelta, method: str) -> bool:
    """Pays the open invoice of this kind, when it is due for so long (or, below zero, is due as soon)."""
    pk, due_at = member.look.open.get((member.shopper.company.pk, kind), (0, clock.now())) if member.look else (0, None)
    if not pk or due_at is None or clock.now() - due_at < after:
        return False
    member.shopper.pay(Invoice.objects.get(pk=pk), method)
    return True


def _pay_ahead(member: Member) -> None:
    _pay(member, "renewal", -timedelta(days=4), member.path.method)


def _pay_in_grace(member: Member) -> None:
    _pay(member, "renewal", timedelta(days=1), "bank_transfer")


def _behave(member: Member, behaviour: str) -> None:
    method = member.shopper.subscription.method
    if method is not None and method.sealed_token:
        member.shopper.twin.sandbox.cards[vault.unseal(method.sealed_token)].behaviour = behaviour


def _declined_once(member: Member) -> None:
    if member.once("decline", 20):
        _behave(member, "51")
    elif 20 < member.day < 40 and member.shopper.attempts(state="denied") and member.once("recover", 20):
        _behave(member, "accept")


def _declined_for_ever(member: Member) -> None:
    if member.once("decline", 20):
        _behave(member, "51")


def _stolen_card(member: Member) -> None:
    if member.once("decline", 20):
        _behave(member, "14")
    if "another" not in member.done and 20 < member.day < 40 and member.shopper.attempts(state="denied"):
        assert _pay(member, "renewal", -timedelta(days=4), "card")
        member.done.add("another")


def _upgrade(member: Member) -> None:
    if member.once("upgrade", 40):
        invoice = member.shopper.choose("ENTERPRISE", member.path.interval)
        assert invoice is not None
        assert invoice.kind == "upgrade"
        member.shopper.pay(invoice, "card")


def _downgrade(member: Member) -> None:
    if member.once("downgrade", 40):
        assert member.shopper.choose("PRO", member.path.interval) is None


def _to_yearly(member: Member) -> None:
    if member.once("yearly", 45):
        invoice = member.shopper.choose("PRO", "yearly")
        assert invoice is not None
        assert invoice.kind == "change"
        member.shopper.pay(invoice, "card")


def _cancel(member: Member) -> None:
    if member.once("cancel", 50):
        checkout.cancel(member.shopper.actor, member.shopper.company)


def _cancel_and_stay(member: Member) -> None:
    if member.once("cancel", 50):
        checkout.cancel(member.shopper.actor, member.shopper.company)
    elif member.once("stay", 52):
        checkout.withdraw_cancel(member.shopper.actor, member.shopper.company)


def _last_payment(member: Member) -> Transaction:
    rows = Transaction.objects.filter(attempt__invoice__subscription__company=member.shopper.company)
    return rows.select_related("attempt").order_by("-pk")[0]


def _refunded_and_back(member: Member) -> None:
    if member.once("refund", 20):
        assert refunds.refund(OPERATOR, _last_payment(member), reason="complaint").state == "done"
    elif member.once("back", 22):
        invoice = member.shopper.choose("PRO", member.path.interval)
        assert invoice is not None
        member.shopper.pay(invoice, "card")


def _partly_refunded(member: Member) -> None:
    if member.once("refund", 20):
        assert refunds.refund(OPERATOR, _last_payment(member), amount=99_000, reason="an outage").state == "done"


def _charged_back(member: Member) -> None:
    if member.once("chargeback", 35):
        member.shopper.twin.act(_last_payment(member).attempt.order_id, "chargeback")
        member.shopper.twin.deliver()


def _reversed(member: Member) -> None:
    if member.once("reversal", 1):
        member.shopper.twin.act(_last_payment(member).attempt.order_id, "reverse")
        member.shopper.twin.deliver()
    elif member.day < 20 and member.once("again", 2):
        assert _pay(member, "first", -timedelta(days=30), "bank_transfer")
    else:
        _pay_ahead(member)


_GONE = ("active", "past_due", "unpaid", "ended")
_GONE_TIERS = ("PRO/active", "PRO/unpaid", "FREE/active")
PATHS = [
    Path("card", 6),
    Path("wallet", 3, method="gopay"),
    Path("transfer", 4, method="bank_transfer", move=_pay_ahead),
    Path("qris", 2, method="qris", move=_pay_ahead),
    Path("late", 2, method="bank_transfer", move=_pay_in_grace, states=("active", "past_due") * 14, paid=(12, 13)),
    Path("stops", 5, method="bank_transfer", states=_GONE, tiers=_GONE_TIERS, paid=(1, 1)),
    Path("soft_decline", 2, move=_declined_once, states=("active", "past_due", "active")),
    Path("soft_declines", 4, move=_declined_for_ever, states=_GONE, tiers=_GONE_TIERS, paid=(1, 1)),
    Path("hard_decline", 2, move=_stolen_card),
    Path("upgrade", 2, move=_upgrade, tiers=("PRO/active", "ENTERPRISE/active"), paid=(14, 14)),
    Path("downgrade", 2, "ENTERPRISE", move=_downgrade, tiers=("ENTERPRISE/active", "PRO/active")),
    Path("to_yearly", 6, move=_to_yearly, paid=(3, 3)),
    Path(
        "cancel", 5, move=_cancel, states=("active", "cancelling", "ended"), tiers=("PRO/active", "FREE/active"),
        paid=(2, 2),
    ),
    Path("cancel_and_stay", 2, move=_cancel_and_stay, states=("active", "cancelling", "active")),
    Path(
        "refund", 2, move=_refunded_and_back, states=("active", "unpaid", "active"),
        tiers=("PRO/active", "FREE/unpaid", "PRO/active"), paid=(12, 12),
    ),
    Path("part_refund", 2, move=_partly_refunded, paid=(12, 12)),
    Path(
        "chargeback", 3, move=_charged_back, states=("active", "unpaid", "ended"), tiers=_GONE_TIERS, paid=(1, 1),
    ),
    Path(
        "reversal", 2, method="bank_transfer", move=_reversed, states=("active", "unpaid", "active"),
        tiers=("PRO/active", "FREE/unpaid", "PRO/active"), paid=(13, 13),
    ),
    Path("card_year", 72, interval="yearly", paid=(2, 2)),
    Path("wallet_year", 10, method="gopay", interval="yearly", paid=(2, 2)),
    Path("transfer_year", 26, method="bank_transfer", move=_pay_ahead, interval="yearly", paid=(2, 2)),
    Path("enterprise_year", 10, "ENTERPRISE", tiers=("ENTERPRISE/active",), interval="yearly", paid=(2, 2)),
    Path("upgrade_year", 10, move=_upgrade, tiers=("PRO/active", "ENTERPRISE/active"), interval="yearly", paid=(3, 3)),
    Path(
        "downgrade_year", 5, "ENTERPRISE", "yearly", move=_downgrade, tiers=("ENTERPRISE/active", "PRO/active"),
        paid=(2, 2),
    ),
    Path(
        "cancel_year", 6, move=_cancel, interval="yearly", states=("active", "cancelling", "ended"),
        tiers=("PRO/active", "FREE/active"), paid=(1, 1),
    ),
    Path(
        "refund_year", 5, move=_refunded_and_back, interval="yearly", states=("active", "unpaid", "active"),
        tiers=("PRO/active", "FREE/unpaid", "PRO/active"), paid=(1, 1),
    ),
]  # fmt: skip
