"""Our client against the stand-in: what is done, what is refused, and that unknown is never failed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog

from billing.midtrans.bodies import Customer, Item, PageOrder
from billing.midtrans.client import MidtransClient, new_idempotency_key, page_url_of
from billing.midtrans.declines import Decline, kind_of_decline
from billing.midtrans.outcomes import Done, Doubt, Outcome, Refusal, Refused, Unknown
from billing.midtrans.payload import AccountStatus, TransactionStatus
from billing.transitions import PaymentState, reported_state
from tests.support.midtrans import SERVER_KEY, StandIn, press, wait_until
from tests.support.ports import free_port

PRICE = 199_000
NewOrder = Callable[[], str]


def done(outcome: Outcome[Any]) -> Any:
    assert isinstance(outcome, Done), outcome
    return outcome.value


def refused(outcome: Outcome[Any]) -> Refusal:
    assert isinstance(outcome, Refused), outcome
    return outcome.reason


def state_of(status: TransactionStatus) -> PaymentState | None:
    return reported_state(status.transaction_status, status.fraud_status, status.status_code)


def open_page(client: MidtransClient, order_id: str, **fields: Any) -> Any:
    return done(client.create_page(PageOrder(order_id, PRICE, **fields)))


def saved_card(client: MidtransClient, stand_in: StandIn, order_id: str) -> str:
    """The token that a first payment on a page leaves."""
    open_page(client, order_id, payer_id="company-alpha")
    stand_in.choose(order_id, "card")
    stand_in.act(order_id, "pay")
    token: str = done(client.status(order_id)).saved_token
    return token


def charge(client: MidtransClient, order_id: str, token: str, key: str = "") -> Outcome[TransactionStatus]:
    key = key or new_idempotency_key()
    return client.charge_card(order_id=order_id, amount=PRICE, saved_token=token, idempotency_key=key)


def test_page_is_opened_and_nothing_is_started_until_the_customer_chooses(
    client: MidtransClient, stand_in: StandIn, new_order: NewOrder
) -> None:
    order_id = new_order()
    items = (Item("PRO, one month", 200_000), Item("Discount", -1_000))
    page = open_page(client, order_id, items=items, customer=Customer("Budi", "budi@example.com"))
    assert page.url.startswith(f"{stand_in.url}/snap/v4/redirection/")
    assert refused(client.status(order_id)) is Refusal.MISSING
    stand_in.choose(order_id, "bank_transfer")
    status = done(client.status(order_id))
    assert (status.transaction_status, status.gross_amount, status.bank) == ("pending", PRICE, "bca")


@pytest.mark.parametrize(
    ("method", "kind", "paid"),
    [
        ("card", "credit_card", PaymentState.CAPTURED),
        ("bank_transfer", "bank_transfer", PaymentState.SETTLED),
        ("gopay", "gopay", PaymentState.SETTLED),
        ("qris", "qris", PaymentState.SETTLED),
    ],
)
def test_each_method_is_paid(
    client: MidtransClient, stand_in: StandIn, new_order: NewOrder, method: str, kind: str, paid: PaymentState
) -> None:
    order_id = new_order()
    open_page(client, order_id)
    stand_in.choose(order_id, method)
    stand_in.act(order_id, "pay")
    status = done(client.status(order_id))
    assert (status.payment_type, state_of(status)) == (kind, paid)
    assert done(client.status(status.transaction_id)) == status


def test_saved_card_is_charged_without_its_owner(
    client: MidtransClient, stand_in: StandIn, new_order: NewOrder
) -> None:
    token = saved_card(client, stand_in, new_order())
    status = done(charge(client, new_order(), token))
    assert state_of(status) is PaymentState.CAPTURED


@pytest.mark.parametrize(("code", "kind"), [("51", Decline.SOFT), ("54", Decline.HARD)])
def test_denied_charge_is_an_answer_that_tells_why(
    client: MidtransClient, stand_in: StandIn, new_order: NewOrder, code: str, kind: Decline
) -> None:
    token = saved_card(client, stand_in, new_order())
    stand_in.control("cards", {"token": token, "behaviour": code})
    status = done(charge(client, new_order(), token))
    assert state_of(status) is PaymentState.DENIED
    assert kind_of_decline(status.status_code, status.channel_response_code) is kind


def test_forgotten_card_asks_for_another_method(client: MidtransClient, stand_in: StandIn, new_order: NewOrder) -> None:
    token = saved_card(client, stand_in, new_order())
    stand_in.control("cards", {"token": token, "behaviour": "gone"})
    assert refused(charge(client, new_order(), token)) is Refusal.METHOD_GONE


def test_second_charge_of_an_order_is_refused(client: MidtransClient, stand_in: StandIn, new_order: NewOrder) -> None:
    token = saved_card(client, stand_in, new_order())
    order_id = new_order()
    done(charge(client, order_id, token))
    assert refused(charge(client, order_id, token)) is Refusal.DUPLICATE_ORDER


def test_same_key_charges_once_and_answers_twice(
    client: MidtransClient, stand_in: StandIn, new_order: NewOrder
) -> None:
    token = saved_card(client, stand_in, new_order())
    order_id, key = new_order(), new_idempotency_key()
    assert done(charge(client, order_id, token, key)) == done(charge(client, order_id, token, key))
    calls = [call for call in stand_in.control("log")["calls"] if call["order_id"] == order_id]
    assert [call["idempotency_key"] for call in calls] == [key, key]
    # The key is of that call alone.
    done(client.status(order_id))
    assert stand_in.control("log")["calls"][-1]["idempotency_key"] == ""


def test_challenge_is_not_paid_until_it_is_accepted(
    client: MidtransClient, stand_in: StandIn, new_order: NewOrder
) -> None:
    accepted, denied = new_order(), new_order()
    for order_id in (accepted, denied):
        open_page(client, order_id)
        stand_in.choose(order_id, "card")
        stand_in.act(order_id, "challenge")
        assert state_of(done(client.status(order_id))) is PaymentState.CHALLENGED
    assert state_of(done(client.approve(accepted))) is PaymentState.CAPTURED
    assert state_of(done(client.deny(denied))) is PaymentState.DENIED
    assert refused(client.approve(denied)) is Refusal.WRONG_STATE


def test_pending_payment_is_cancelled_or_expired_and_a_settled_one_is_not(
    client: MidtransClient, stand_in: StandIn, new_order: NewOrder
) -> None:
    first, second, third = new_order(), new_order(), new_order()
    for order_id in (first, second, third):
        open_page(client, order_id)
        stand_in.choose(order_id, "gopay")
    assert state_of(done(client.cancel(first))) is PaymentState.CANCELLED
    expired = done(client.expire(second))
    assert (state_of(expired), expired.status_code) == (PaymentState.EXPIRED, "407")
    assert state_of(done(client.status(second))) is PaymentState.EXPIRED
    stand_in.act(third, "pay")
    assert refused(client.cancel(third)) is Refusal.WRONG_STATE
    assert refused(client.cancel("gw-inv-none")) is Refusal.MISSING


def test_refunds_add_up_and_repeat_by_their_key(client: MidtransClient, stand_in: StandIn, new_order: NewOrder) -> None:
    order_id = new_order()
    open_page(client, order_id)
    stand_in.choose(order_id, "qris")
    stand_in.act(order_id, "pay")
    for _ in range(2):
        part = done(client.refund_direct(order_id, refund_key="rf-1", amount=50_000, reason="downgrade"))
        assert state_of(part) is PaymentState.PARTIALLY_REFUNDED
    assert done(client.status(order_id)).refund_amount == 50_000
    too_much = client.refund(order_id, refund_key="rf-2", amount=PRICE, reason="all")
    assert refused(too_much) is Refusal.REFUND_REFUSED
    done(client.refund(order_id, refund_key="rf-3", amount=PRICE - 50_000, reason="rest"))
    status = done(client.status(order_id))
    assert (state_of(status), status.refund_amount, len(status.refunds)) == (PaymentState.REFUNDED, PRICE, 2)


def test_bank_transfer_is_not_refunded(client: MidtransClient, stand_in: StandIn, new_order: NewOrder) -> None:
    order_id = new_order()
    open_page(client, order_id)
    stand_in.choose(order_id, "bank_transfer")
    stand_in.act(order_id, "pay")
    outcome = client.refund(order_id, refund_key="rf-1", amount=1, reason="")
    assert refused(outcome) is Refusal.WRONG_STATE


def test_linked_gopay_is_charged_until_it_is_unlinked(
    client: MidtransClient, stand_in: StandIn, new_order: NewOrder
) -> None:
    pending: AccountStatus = done(client.link_gopay(phone_number="81212345678", redirect_url="https://example.com"))
    assert (pending.status, pending.wallet_token) == ("PENDING", "")
    assert pending.activation_url.startswith(stand_in.url)
    assert refused(client.unlink_gopay(pending.account_id)) is Refusal.WRONG_STATE
    press(pending.activation_url, action="enable")
    account: AccountStatus = done(client.gopay_account(pending.account_id))
    assert account.status == "ENABLED"

    def charge_wallet() -> Outcome[TransactionStatus]:
        return client.charge_gopay(
            order_id=new_order(),
            amount=PRICE,
            account_id=account.account_id,
            wallet_token=account.wallet_token,
            idempotency_key=new_idempotency_key(),
        )

    status = done(charge_wallet())
    assert (state_of(status), status.account_id) == (PaymentState.SETTLED, account.account_id)
    assert done(client.unlink_gopay(account.account_id)).status == "DISABLED"
    assert refused(charge_wallet()) is Refusal.METHOD_GONE


def test_wallet_of_a_page_is_kept_for_its_payer(client: MidtransClient, stand_in: StandIn, new_order: NewOrder) -> None:
    order_id = new_order()
    open_page(client, order_id, payer_id="company-alpha")
    stand_in.choose(order_id, "gopay")
    stand_in.act(order_id, "pay")
    account_id = done(client.status(order_id)).account_id
    assert done(client.gopay_account(account_id)).status == "ENABLED"


def test_wrong_key_is_refused_everywhere_and_shown_nowhere(stand_in: StandIn, new_order: NewOrder) -> None:
    with stand_in.client(server_key="SB-Mid-server-wrong") as client, structlog.testing.capture_logs() as logs:
        outcomes = (
            client.status(new_order()),
            client.create_page(PageOrder(new_order(), PRICE)),
            charge(client, new_order(), "token"),
            client.link_gopay(phone_number="812", redirect_url="https://example.com"),
        )
        assert {refused(outcome) for outcome in outcomes} == {Refusal.UNAUTHORIZED}
        shown = repr(client) + repr(outcomes) + repr(logs)
    assert "SB-Mid-server-wrong" not in shown
    assert logs


# --- Unknown is not failed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize(
    ("fault", "doubt"),
    [
        ({"effect": "error", "status": 500}, Doubt.BROKEN),
        ({"effect": "error", "status": 503}, Doubt.BROKEN),
        ({"effect": "broken"}, Doubt.UNREADABLE),
        ({"effect": "timeout", "seconds": 4.0}, Doubt.TIMEOUT),
    ],
)
def test_lost_answer_to_a_charge_is_unknown_and_status_tells_the_truth(
    client: MidtransClient,
    stand_in: StandIn,
    new_order: NewOrder,
    fault: dict[str, Any],
    doubt: Doubt,
    is_done: bool,
) -> None:
    token, order_id = saved_card(client, stand_in, new_order()), new_order()
    stand_in.fault(call="charge", order_id=order_id, done=is_done, **fault)
    with stand_in.client(read_timeout=1.0) as hasty:
        assert charge(hasty, order_id, token) == Unknown(doubt)
    truth = client.status(order_id)
    if is_done:
        assert state_of(done(truth)) is PaymentState.CAPTURED
    else:
        assert refused(truth) is Refusal.MISSING


def test_retry_by_the_same_key_after_a_lost_answer_charges_once(
    client: MidtransClient, stand_in: StandIn, new_order: NewOrder
) -> None:
    token = saved_card(client, stand_in, new_order())
    order_id, key = new_order(), new_idempotency_key()
    stand_in.fault(call="charge", order_id=order_id, effect="error", done=True)
    assert charge(client, order_id, token, key) == Unknown(Doubt.BROKEN)
    assert state_of(done(charge(client, order_id, token, key))) is PaymentState.CAPTURED
    transactions = stand_in.control("log")["transactions"]
    assert [entry["order_id"] for entry in transactions].count(order_id) == 1


def test_retry_while_the_first_call_still_runs_is_unknown(stand_in: StandIn, new_order: NewOrder) -> None:
    with stand_in.client() as first_client, stand_in.client() as second_client:
        token = saved_card(first_client, stand_in, new_order())
        order_id, key = new_order(), new_idempotency_key()
        stand_in.fault(call="charge", order_id=order_id, effect="timeout", seconds=3.0, done=True)
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(charge, first_client, order_id, token, key)
            wait_until(lambda: isinstance(second_client.status(order_id), Done), lambda: "the first call has not begun")
            assert charge(second_client, order_id, token, key) == Unknown(Doubt.IN_PROGRESS)
            assert first.result() == Unknown(Doubt.BROKEN)
        assert state_of(done(charge(second_client, order_id, token, key))) is PaymentState.CAPTURED


@pytest.mark.parametrize("call", ["status", "cancel", "refund", "snap", "account"])
def test_failing_midtrans_is_unknown_for_every_call(
    client: MidtransClient, stand_in: StandIn, new_order: NewOrder, call: str
) -> None:
    stand_in.fault(call=call, effect="error")
    order_id = new_order()
    acts: dict[str, Callable[[], Outcome[Any]]] = {
        "status": lambda: client.status(order_id),
        "cancel": lambda: client.cancel(order_id),
        "refund": lambda: client.refund(order_id, refund_key="rf", amount=1, reason=""),
        "snap": lambda: client.create_page(PageOrder(order_id, PRICE)),
        "account": lambda: client.gopay_account("6d78a1d5-aebe-59f4-bc47-a715839997ff"),
    }
    assert acts[call]() == Unknown(Doubt.BROKEN)


def test_nobody_listening_is_unknown() -> None:
    with MidtransClient(server_key=SERVER_KEY, base_url=f"http://127.0.0.1:{free_port()}") as client:
        assert client.status("gw-inv-1") == Unknown(Doubt.UNREACHABLE)


# --- Mistakes of ours -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order_id", ["", "..", "a/b", "a#1", "a?b", "a b", "a" * 51])
def test_order_id_that_would_change_the_path_is_never_sent(client: MidtransClient, order_id: str) -> None:
    for act in (client.status, client.cancel, client.expire, client.gopay_account):
        with pytest.raises(ValueError, match="1 to 50"):
            act(order_id)


@pytest.mark.parametrize(
    ("order", "problem"),
    [
        (PageOrder("o-1", 0), "at least one rupiah"),
        (PageOrder("o-1", -5), "at least one rupiah"),
        (PageOrder("o-1", True), "at least one rupiah"),
        (PageOrder("o-1", 10**12), "at least one rupiah"),
        (PageOrder("o-1", 100, items=(Item("a", 99),)), "do not add up"),
        (PageOrder("o-1", 100, expires_in=19), "20 seconds"),
        (PageOrder("o-1", 100, expires_in=7 * 86_400 + 1), "20 seconds"),
        (PageOrder("o/1", 100), "1 to 50"),
    ],
)
def test_impossible_order_is_never_sent(client: MidtransClient, order: PageOrder, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        client.create_page(order)


@pytest.mark.parametrize("key", ["", "x" * 47, "a\nb", "é"])
def test_impossible_idempotency_key_is_never_sent(client: MidtransClient, key: str) -> None:
    with pytest.raises(ValueError, match="idempotency"):
        client.charge_card(order_id="o-1", amount=1, saved_token="token", idempotency_key=key)


def test_empty_server_key_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="MIDTRANS_SERVER_KEY"):
        MidtransClient(server_key=" ", base_url="http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("base", "page"),
    [
        ("https://api.midtrans.com", "https://app.midtrans.com/snap/v1"),
        ("https://api.sandbox.midtrans.com", "https://app.sandbox.midtrans.com/snap/v1"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/snap/v1"),
        ("https://api.example.com/x/", "https://api.example.com/x/snap/v1"),
    ],
)
def test_address_of_pages_follows_from_that_of_the_api(base: str, page: str) -> None:
    assert page_url_of(base) == page
