"""The stand-in as a process: pages, notifications, faults, errors as documented."""

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from billing.midtrans.bodies import PageOrder
from billing.midtrans.client import MidtransClient, PaymentPage
from billing.midtrans.outcomes import Done
from billing.midtrans.payload import parse_account, parse_transaction
from billing.midtrans.signature import Keys, SignatureRefused, verify_account, verify_notification
from billing.sandbox.pages import METHODS
from tests.support.gateway import clean_environment, run_manage
from tests.support.midtrans import SERVER_KEY, Receiver, StandIn, press, wait_until

PRICE = 199_000
KEYS = Keys.of([SERVER_KEY])
NewOrder = Callable[[], str]


def open_page(client: MidtransClient, order_id: str, **fields: Any) -> PaymentPage:
    outcome = client.create_page(PageOrder(order_id, PRICE, **fields))
    assert isinstance(outcome, Done)
    return outcome.value


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        text: str = response.read().decode()
    return text


def is_genuine(body: dict[str, Any]) -> bool:
    fields = {name: body[name] for name in ("order_id", "status_code", "gross_amount", "signature_key")}
    try:
        verify_notification(**fields, keys=KEYS)
    except SignatureRefused:
        return False
    return True


def raw_call(stand_in: StandIn, path: str, data: Any = None, *, key: str = SERVER_KEY, **headers: str) -> Any:
    """HTTP code and body of a call without our client."""
    headers["Authorization"] = f"Basic {base64.b64encode(f'{key}:'.encode()).decode()}"
    body = None if data is None else data if isinstance(data, bytes) else json.dumps(data).encode()
    request = urllib.request.Request(f"{stand_in.url}{path}", data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


# --- Pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("pay", ["settlement"]),
        ("deny", ["deny"]),
        ("expire", ["expire"]),
        ("refund", ["settlement", "refund", "refund"]),
        ("chargeback", ["settlement", "chargeback"]),
        ("reverse", ["settlement", "deny"]),
    ],
)
def test_one_click_takes_an_order_to_its_end_and_tells_every_step(
    client: MidtransClient,
    stand_in: StandIn,
    receiver: Receiver,
    new_order: NewOrder,
    method: str,
    action: str,
    told: list[str],
) -> None:
    order_id = new_order()
    page = open_page(client, order_id)
    text = press(page.url, method=method, action=action)
    if method == "card":
        told = ["capture"] if action == "pay" else ["capture", *told] if told[0] == "settlement" else told
    assert told[-1] in text
    receiver.wait_for(order_id, "pending", *told)
    assert all(is_genuine(body) for body in receiver.bodies)
    assert all(parse_transaction(body).gross_amount == PRICE for body in receiver.bodies)


def test_card_is_challenged_by_one_click_and_other_methods_are_not(
    client: MidtransClient, receiver: Receiver, new_order: NewOrder
) -> None:
    order_id = new_order()
    page = open_page(client, order_id)
    with pytest.raises(urllib.error.HTTPError, match="400"):
        press(page.url, method="gopay", action="challenge")
    text = press(page.url, method="card", action="challenge")
    assert "Accept the challenge" in text
    bodies = receiver.wait_for(order_id, "pending", "capture")
    assert (bodies[1]["fraud_status"], bodies[1]["status_code"]) == ("challenge", "201")


def test_page_offers_all_methods_for_small_screens_in_light_and_dark(
    client: MidtransClient, new_order: NewOrder
) -> None:
    text = fetch(open_page(client, new_order()).url)
    assert all(name in text for name in METHODS.values())
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    assert "Rp199.000" in text


def test_page_leads_back_to_the_shop_and_escapes_what_it_was_given(client: MidtransClient, new_order: NewOrder) -> None:
    order_id = new_order()
    page = open_page(client, order_id, finish_url='https://shop.example/done?a=1&b="><script>')
    text = press(page.url, method="qris", action="pay")
    assert "<script>" not in text
    link = re.search(r'href="(https://shop\.example/done[^"]*)"', text)
    assert link is not None
    assert f"order_id={order_id}" in link[1]
    other = open_page(client, new_order(), finish_url="javascript:alert(1)")
    assert "javascript:" not in press(other.url, method="qris", action="pay")


def test_second_click_changes_nothing(client: MidtransClient, receiver: Receiver, new_order: NewOrder) -> None:
    order_id = new_order()
    page = open_page(client, order_id)
    press(page.url, method="qris", action="wait")
    for _ in range(2):
        press(page.url, action="pay")
    receiver.wait_for(order_id, "pending", "settlement")


def test_new_page_of_an_order_ends_the_old_one(client: MidtransClient, new_order: NewOrder) -> None:
    order_id = new_order()
    old, new = open_page(client, order_id), open_page(client, order_id)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(old.url)
    assert order_id in fetch(new.url)


def test_home_lists_what_there_is(client: MidtransClient, stand_in: StandIn, new_order: NewOrder) -> None:
    order_id = new_order()
    assert "none yet" in fetch(stand_in.url)
    page = open_page(client, order_id)
    assert page.url in fetch(stand_in.url)
    press(page.url, method="gopay", action="pay")
    assert "settlement" in fetch(stand_in.url)


# --- Notifications ----------------------------------------------------------------------------------------------------


def paid(client: MidtransClient, stand_in: StandIn, order_id: str) -> None:
    open_page(client, order_id)
    stand_in.choose(order_id, "gopay")
    stand_in.act(order_id, "pay")


def test_notification_looks_like_one_of_midtrans(
    client: MidtransClient, stand_in: StandIn, receiver: Receiver, new_order: NewOrder
) -> None:
    open_page(client, new_order())
    order_id = new_order()
    open_page(client, order_id)
    stand_in.choose(order_id, "bank_transfer")
    receiver.wait_for(order_id, "pending")
    headers = receiver.headers[-1]
    assert (headers["User-Agent"], headers["Content-Type"]) == ("Veritrans", "application/json")


def test_refund_is_confirmed_by_a_second_notification(
    client: MidtransClient, stand_in: StandIn, receiver: Receiver, new_order: NewOrder
) -> None:
    order_id = new_order()
    paid(client, stand_in, order_id)
    receiver.wait_for(order_id, "pending", "settlement")
    stand_in.act(order_id, "refund")
    bodies = receiver.wait_for(order_id, "pending", "settlement", "refund", "refund")
    first, second = (parse_transaction(body) for body in bodies[2:])
    assert [status.refunds[0].is_confirmed for status in (first, second)] == [False, True]
    assert first.event_key != second.event_key


@pytest.mark.parametrize(
    ("codes", "answers", "outcome"),
    [
        ([500, 200], [500, 200], "delivered"),
        ([500, 500], [500, 500], "given_up"),
        ([400, 400, 400], [400, 400, 400], "given_up"),
        ([302], [302], "given_up"),
        ([307], [200], "delivered"),
    ],
)
def test_notification_is_repeated_by_the_answer(
    tmp_path: Path, receiver: Receiver, new_order: NewOrder, codes: list[int], answers: list[int], outcome: str
) -> None:
    # 2 and 10 minutes pass in 0.02 and 0.1 s.
    stand_in = StandIn(tmp_path, receiver.url, time_factor=6_000)
    try:
        stand_in.wait_ready()
        receiver.codes, receiver.location = [*codes], receiver.url
        order_id = new_order()
        with stand_in.client() as client:
            open_page(client, order_id)
        stand_in.choose(order_id, "qris")
        wait_until(
            lambda: stand_in.notifications(order_id)[0]["outcome"] == outcome,
            lambda: str(stand_in.notifications(order_id)),
        )
        assert stand_in.notifications(order_id)[0]["answers"] == answers
    finally:
        assert stand_in.stop() in (0, -15)


def test_override_header_names_up_to_three_addresses(
    stand_in: StandIn, receiver: Receiver, new_order: NewOrder
) -> None:
    data = {
        "payment_type": "qris",
        "qris": {"acquirer": "gopay"},
        "transaction_details": {"order_id": new_order(), "gross_amount": 5_000},
    }
    urls = ",".join(f"{receiver.url}{number}" for number in range(4))
    raw_call(stand_in, "/v2/charge", data, **{"X-Override-Notification": urls})
    order_id = data["transaction_details"]["order_id"]  # type: ignore[index]
    receiver.wait_for(order_id, "pending", "pending", "pending")
    assert sorted(delivery["url"][-1] for delivery in stand_in.notifications(order_id)) == ["0", "1", "2"]


def test_linked_account_is_told_and_signed_by_its_own_formula(
    client: MidtransClient, stand_in: StandIn, receiver: Receiver
) -> None:
    outcome = client.link_gopay(phone_number="81212345678", redirect_url="https://example.com")
    assert isinstance(outcome, Done)
    press(outcome.value.activation_url, action="enable")
    wait_until(lambda: bool(receiver.bodies), lambda: "no notification")
    account = parse_account(receiver.bodies[0])
    verify_account(
        account_id=account.account_id,
        account_status=account.status,
        status_code=account.status_code,
        signature_key=account.signature_key,
        keys=KEYS,
    )


def test_unpaid_payment_expires_by_itself(
    client: MidtransClient, stand_in: StandIn, receiver: Receiver, new_order: NewOrder
) -> None:
    data = {
        "transaction_details": {"order_id": (order_id := new_order()), "gross_amount": 5_000},
        "expiry": {"unit": "second", "duration": 1},
    }
    assert raw_call(stand_in, "/snap/v1/transactions", data)[0] == 201
    stand_in.choose(order_id, "bank_transfer")
    receiver.wait_for(order_id, "pending", "expire")


# --- Faults -----------------------------------------------------------------------------------------------------------


def test_lost_notification_is_never_sent_and_status_knows(
    client: MidtransClient, stand_in: StandIn, receiver: Receiver, new_order: NewOrder
) -> None:
    order_id = new_order()
    stand_in.fault(call="notification", effect="lose", count=2, order_id=order_id)
    paid(client, stand_in, order_id)
    stand_in.act(order_id, "refund")
    receiver.wait_for(order_id, "refund", "refund")
    outcomes = [delivery["outcome"] for delivery in stand_in.notifications(order_id)]
    assert outcomes[:2] == ["lost", "lost"]


def test_duplicates_come_with_the_same_body(
    client: MidtransClient, stand_in: StandIn, receiver: Receiver, new_order: NewOrder
) -> None:
    order_id = new_order()
    stand_in.fault(call="notification", effect="duplicate", copies=3, order_id=order_id)
    open_page(client, order_id)
    stand_in.choose(order_id, "gopay")
    bodies = receiver.wait_for(order_id, *["pending"] * 4)
    assert all(body == bodies[0] for body in bodies)
    number = stand_in.notifications(order_id)[0]["number"]
    stand_in.control("resend", {"number": number})
    receiver.wait_for(order_id, *["pending"] * 5)


def test_held_notification_comes_after_the_next_one(
    client: MidtransClient, stand_in: StandIn, receiver: Receiver, new_order: NewOrder
) -> None:
    order_id = new_order()
    stand_in.fault(call="notification", effect="hold", order_id=order_id)
    paid(client, stand_in, order_id)
    receiver.wait_for(order_id, "settlement", "pending")


def test_failing_notification_does_not_hold_the_next_one_up(
    client: MidtransClient, stand_in: StandIn, receiver: Receiver, new_order: NewOrder
) -> None:
    order_id = new_order()
    # Three tries fail within 1.2 s; the fourth comes 3 s later.
    receiver.codes = [503, 503, 503]
    open_page(client, order_id)
    stand_in.choose(order_id, "gopay")
    receiver.wait_for(order_id, "pending", "pending", "pending")
    stand_in.act(order_id, "pay")
    receiver.wait_for(order_id, "pending", "pending", "pending", "settlement")
    receiver.wait_for(order_id, "pending", "pending", "pending", "settlement", "pending")


def test_delayed_notification_comes_late(
    client: MidtransClient, stand_in: StandIn, receiver: Receiver, new_order: NewOrder
) -> None:
    order_id = new_order()
    stand_in.fault(call="notification", effect="delay", seconds=2.0, order_id=order_id)
    paid(client, stand_in, order_id)
    receiver.wait_for(order_id, "settlement", "pending")


@pytest.mark.parametrize(
    ("fields", "genuine", "amount", "status"),
    [
        ({"effect": "wrong_amount", "amount": 1}, True, 1, "pending"),
        ({"effect": "forge"}, False, PRICE, "pending"),
        ({"effect": "tamper", "transaction_status": "settlement"}, True, PRICE, "settlement"),
    ],
)
def test_false_notification(
    client: MidtransClient,
    stand_in: StandIn,
    receiver: Receiver,
    new_order: NewOrder,
    fields: dict[str, Any],
    genuine: bool,
    amount: int,
    status: str,
) -> None:
    order_id = new_order()
    stand_in.fault(call="notification", order_id=order_id, **fields)
    open_page(client, order_id)
    stand_in.choose(order_id, "gopay")
    (body,) = receiver.wait_for(order_id, status)
    assert is_genuine(body) is genuine
    assert parse_transaction(body).gross_amount == amount
    truth = client.status(order_id)
    assert isinstance(truth, Done)
    assert (truth.value.transaction_status, truth.value.gross_amount) == ("pending", PRICE)


def test_wrong_amount_in_an_answer(client: MidtransClient, stand_in: StandIn, new_order: NewOrder) -> None:
    order_id = new_order()
    paid(client, stand_in, order_id)
    stand_in.fault(call="status", effect="wrong_amount", amount=1, order_id=order_id)
    amounts = []
    for _ in range(2):
        outcome = client.status(order_id)
        assert isinstance(outcome, Done)
        amounts.append(outcome.value.gross_amount)
    assert amounts == [1, PRICE]


def test_faults_are_listed_and_taken_away(stand_in: StandIn) -> None:
    stand_in.fault(call="status", effect="error")
    answer = stand_in.control("faults")
    assert len(answer["waiting"]) == 1
    assert "lose" in answer["known"]["notification"]
    assert stand_in.control("faults", method="DELETE")["waiting"] == []
    with pytest.raises(urllib.error.HTTPError, match="400"):
        stand_in.fault(call="status", effect="lose")


# --- Errors as documented ---------------------------------------------------------------------------------------------


def charge_body(order_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "payment_type": "qris",
        "transaction_details": {"order_id": order_id, "gross_amount": 5_000},
        **fields,
    }


def test_core_errors_are_in_the_body_and_the_key_is_asked_for_first(stand_in: StandIn, new_order: NewOrder) -> None:
    order_id = new_order()
    http, body = raw_call(stand_in, "/v2/none/status")
    assert (http, body["status_code"]) == (200, "404")
    assert raw_call(stand_in, "/v2/none/status", key="wrong")[0] == 401
    assert raw_call(stand_in, "/v2/charge", charge_body(order_id))[1]["status_code"] == "201"
    assert raw_call(stand_in, "/v2/charge", charge_body(order_id))[1]["status_code"] == "406"
    assert raw_call(stand_in, f"/v2/{order_id}/approve", {})[1]["status_code"] == "412"
    assert raw_call(stand_in, f"/v2/{order_id}/cancel", {})[1]["status_code"] == "200"
    # The id of a cancelled one may be used again.
    assert raw_call(stand_in, "/v2/charge", charge_body(order_id))[1]["status_code"] == "201"


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        {},
        {"transaction_details": {"order_id": "a b", "gross_amount": 1}},
        {"transaction_details": {"order_id": "a", "gross_amount": 1.5}},
        {"transaction_details": {"order_id": "a", "gross_amount": 0}},
        charge_body("a", payment_type="gold"),
        charge_body("a", payment_type="bank_transfer", bank_transfer={"bank": "none"}),
        charge_body("a", item_details=[{"price": 1, "quantity": 1, "name": "x"}]),
        charge_body("a", item_details=[1]),
        charge_body("a", payment_type="bank_transfer", bank_transfer="bca"),
    ],
)
def test_request_that_is_not_as_documented_is_400(stand_in: StandIn, data: Any) -> None:
    assert raw_call(stand_in, "/v2/charge", data)[1]["status_code"] == "400"


def test_snap_errors_are_messages(stand_in: StandIn, new_order: NewOrder) -> None:
    http, body = raw_call(stand_in, "/snap/v1/transactions", {})
    assert (http, [*body]) == (400, ["error_messages"])
    assert raw_call(stand_in, "/snap/v1/transactions", {}, key="wrong")[0] == 401


def test_test_cards_end_as_midtrans_documents_and_a_token_serves_once(stand_in: StandIn, new_order: NewOrder) -> None:
    ends = {}
    for number in ("4811111111111114", "4911111111111113", "4511111111111117"):
        token = raw_call(stand_in, f"/v2/token?card_number={number}&client_key=client")[1]["token_id"]
        data = charge_body(new_order(), payment_type="credit_card", credit_card={"token_id": token})
        body = raw_call(stand_in, "/v2/charge", data)[1]
        ends[number[1]] = (body["transaction_status"], body["fraud_status"], body["status_code"])
    assert ends == {
        "8": ("capture", "accept", "200"),
        "9": ("deny", "accept", "202"),
        "5": ("capture", "challenge", "201"),
    }
    again = charge_body(new_order(), payment_type="credit_card", credit_card={"token_id": token})
    assert raw_call(stand_in, "/v2/charge", again)[1]["status_code"] == "411"


def test_registered_card_is_charged_more_than_once(stand_in: StandIn, new_order: NewOrder) -> None:
    path = "/v2/card/register?card_number=4811111111111114&client_key=client"
    token = raw_call(stand_in, path)[1]["saved_token_id"]
    for _ in range(2):
        data = charge_body(new_order(), payment_type="credit_card", credit_card={"token_id": token})
        assert raw_call(stand_in, "/v2/charge", data)[1]["status_code"] == "200"


def test_form_of_another_site_cannot_control_it(stand_in: StandIn) -> None:
    request = urllib.request.Request(f"{stand_in.url}/sandbox/faults", data=b'{"call":"status","effect":"error"}')
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=10)
    assert stand_in.control("faults")["waiting"] == []


# --- The command ------------------------------------------------------------------------------------------------------


def test_stand_in_refuses_production(tmp_path: Path) -> None:
    environment = clean_environment(tmp_path, GATEWAY_ENVIRONMENT="production", GATEWAY_SECRET_KEY="x" * 60)
    done = run_manage("midtrans_sandbox", "--port", "0", environment=environment, timeout=60)
    assert done.returncode != 0
    assert "development machines" in done.stderr


def test_stand_in_says_when_its_port_is_taken(stand_in: StandIn, tmp_path: Path) -> None:
    done = run_manage(
        "midtrans_sandbox", "--port", str(stand_in.port), environment=clean_environment(tmp_path), timeout=60
    )
    assert done.returncode != 0
    assert "cannot listen" in done.stderr
