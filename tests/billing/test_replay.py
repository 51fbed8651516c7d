"""An operator looks again: after messages, after orders, and what is said about it."""

import io
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from billing import clock, receipts
from billing.models import BillingEntry, PaymentAttempt, WebhookReceipt
from tests.billing.buyer import Buyer
from tests.billing.notified import body_of, post, verdicts
from tests.support.status_server import StatusServer

pytestmark = pytest.mark.django_db


@pytest.fixture
def hand() -> Iterator[clock.Hand]:
    with clock.stopped_at(clock.now()) as hand:
        yield hand


@pytest.fixture
def order(midtrans: StatusServer, hand: clock.Hand) -> PaymentAttempt:
    return Buyer.new().order()


@pytest.fixture
def failed(order: PaymentAttempt, midtrans: StatusServer, hand: clock.Hand) -> WebhookReceipt:
    """A settlement that was given up while Midtrans was away."""
    midtrans.failure = 503
    post(body_of(order, "settlement"))
    hand.advance(timedelta(days=2))
    receipts.process_waiting()
    midtrans.failure = 0
    midtrans.say(body_of(order, "settlement"))
    return WebhookReceipt.objects.get(verdict="failed")


def replay(*arguments: str, left: int = 0) -> list[str]:
    """What is printed; ``left``: how many come to nothing, which the exit status says too."""
    out = io.StringIO()
    try:
        call_command("billing_replay", *arguments, stdout=out)
        assert not left
    except CommandError as error:
        if not left or not str(error).startswith(f"{left} of "):
            raise
    return out.getvalue().splitlines()


def test_failed_message_is_applied_when_somebody_asks(failed: WebhookReceipt, order: PaymentAttempt) -> None:
    assert replay("--failed") == [f"receipt {failed.pk} midtrans {order.order_id} failed: applied", "1 done"]
    assert verdicts(order.order_id) == [("applied", "")]
    order.refresh_from_db()
    assert order.state == "settled"
    replayed = BillingEntry.objects.get(kind="replayed")
    assert replayed.actor.startswith("shell:")
    assert replay("--failed") == ["0 done"]


def test_dry_run_looks_after_nothing(failed: WebhookReceipt, order: PaymentAttempt, midtrans: StatusServer) -> None:
    asked = len(midtrans.asked)
    assert replay("--failed", "--order", order.order_id, "--dry-run") == [
        f"receipt {failed.pk} midtrans {order.order_id} failed: -",
        f"order {order.order_id}: -",
        "2 to look after",
    ]
    assert (len(midtrans.asked), verdicts(order.order_id)) == (asked, [("failed", "Midtrans: broken")])


def test_order_is_looked_after_without_any_message_and_again_without_harm(
    order: PaymentAttempt, midtrans: StatusServer
) -> None:
    midtrans.say(body_of(order, "settlement"))
    assert replay("--order", order.order_id)[0] == f"order {order.order_id}: changed: created -> settled"
    assert replay("--order", order.order_id)[0] == f"order {order.order_id}: unchanged"
    assert replay("--order", "nobody-knows", left=1)[0] == "order nobody-knows: not an order of ours"


def test_order_without_an_answer_says_so(order: PaymentAttempt, midtrans: StatusServer) -> None:
    assert replay("--order", order.order_id, left=1)[0].endswith("no answer: not started at Midtrans")
    midtrans.failure = 500
    first, last = replay("--order", order.order_id, left=1)
    assert first.endswith("no answer: Midtrans: broken")
    assert last == "0 done"


def test_applied_and_refused_messages_can_be_looked_after_again(order: PaymentAttempt, midtrans: StatusServer) -> None:
    midtrans.say(body_of(order, "pending"))
    post(body_of(order, "pending"))
    post(body_of(order, "settlement", key="wrong"))
    midtrans.say(body_of(order, "settlement"))
    [applied, refused] = WebhookReceipt.objects.order_by("pk")
    assert replay("--receipt", str(applied.pk))[0].endswith("applied: changed: pending -> settled")
    assert replay("--receipt", str(refused.pk))[0].endswith("refused: unchanged")


def test_messages_since_a_moment_are_chosen(order: PaymentAttempt, midtrans: StatusServer, hand: clock.Hand) -> None:
    midtrans.say(body_of(order, "pending"))
    post(body_of(order, "pending"))
    hand.advance(timedelta(hours=5))
    midtrans.say(body_of(order, "settlement"))
    post(body_of(order, "settlement"))
    assert replay("--since", "2h", "--dry-run")[-1] == "1 to look after"
    assert replay("--since", "6h", "--dry-run")[-1] == "2 to look after"
    assert replay("--since", (hand.moment - timedelta(hours=1)).isoformat(), "--dry-run")[-1] == "1 to look after"


@pytest.mark.parametrize("arguments", [[], ["--receipt", "4711"], ["--since", "yesterday"]])
def test_request_that_names_nothing_is_refused_with_what_to_do(db: None, arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        replay(*arguments)
