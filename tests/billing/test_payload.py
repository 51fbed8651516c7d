"""Bodies of Midtrans: read whole, refused by the name of the field, and never repeated where they hold secrets."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.midtrans.declines import Decline, kind_of_decline
from billing.midtrans.payload import (
    BODY_SIZE_LIMIT,
    Kind,
    PayloadError,
    decode,
    kind_of,
    masked,
    parse_account,
    parse_transaction,
)
from tests.billing import samples

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
CARD = samples.read("credit_card_one_click_capture_saved_token.json")
NEEDED = ("order_id", "transaction_id", "transaction_status", "status_code", "payment_type", "gross_amount")


def problem_of(**changes: Any) -> PayloadError:
    with pytest.raises(PayloadError) as caught:
        parse_transaction({**CARD, **changes})
    return caught.value


@pytest.mark.parametrize("entry", samples.TRANSACTIONS, ids=lambda entry: entry["file"])
def test_sample_is_read(entry: dict[str, Any]) -> None:
    body = samples.read(entry["file"])
    assert kind_of(body) is Kind.TRANSACTION
    status = parse_transaction(body)
    assert (status.order_id, status.status_code) == (body["order_id"], body["status_code"])
    assert f"{status.gross_amount}.00" == body["gross_amount"] == status.gross_amount_text
    assert status.transaction_status == body["transaction_status"]


@pytest.mark.parametrize("entry", samples.OTHERS, ids=lambda entry: entry["file"])
def test_other_sample_is_recognised(entry: dict[str, Any]) -> None:
    expected = {"pay_account": Kind.ACCOUNT, "subscription": Kind.SUBSCRIPTION}[entry["kind"]]
    assert kind_of(samples.read(entry["file"])) is expected


def test_times_are_those_of_jakarta() -> None:
    status = parse_transaction(samples.read("gopay_settlement.json"))
    assert status.transaction_time == datetime(2026, 11, 23, 11, 45, 13, tzinfo=UTC)
    assert status.settlement_time == datetime(2026, 11, 23, 11, 45, 28, tzinfo=UTC)
    assert status.expiry_time is None


def test_bank_is_found_wherever_it_stands() -> None:
    names = ("bank_transfer_bca_pending", "bank_transfer_permata_settlement", "credit_card_settlement")
    assert [parse_transaction(samples.read(f"{name}.json")).bank for name in names] == ["bca", "permata", "bni"]


def test_refunds_are_read_and_their_confirmation_is_a_new_event() -> None:
    body = samples.read("gopay_refund_full.json")
    status = parse_transaction(body)
    assert (status.refund_amount, status.refunds[0].chargeback_id, status.refunds[0].is_confirmed) == (199_000, 7, True)
    del body["refunds"][0]["bank_confirmed_at"]
    assert parse_transaction(body).event_key != status.event_key


def test_same_event_has_the_same_key_and_each_state_its_own() -> None:
    names = ("pending_3ds", "capture_accept", "settlement", "partial_refund_requested", "refund_full")
    keys = {parse_transaction(samples.read(f"credit_card_{name}.json")).event_key for name in names}
    assert len(keys) == len(names)
    assert parse_transaction({**CARD, "status_message": "again"}).event_key == parse_transaction(CARD).event_key


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("value", [None, 200, 1.5, True, [], {}, "", "a\nb", "x" * 300])
def test_missing_or_wrong_field_is_named(name: str, value: Any) -> None:
    error = problem_of(**{name: value})
    assert error.field == name
    assert name in str(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transaction_id", "../v1/subscriptions/abc?x="),
        ("order_id", "../../x"),
        ("status_code", "20"),
        ("gross_amount", "199000.50"),
        ("gross_amount", "-1.00"),
        ("currency", "USD"),
        ("settlement_time", "2026-13-01 00:00:00"),
        ("refund_amount", "many"),
        ("refunds", [{"refund_chargeback_id": "1", "refund_amount": "1.00"}]),
        ("refunds", [{"refund_chargeback_id": True, "refund_amount": "1.00"}]),
        ("refunds", [{"refund_chargeback_id": 1}]),
        ("saved_token_id", 5),
    ],
)
def test_value_that_is_not_as_documented_is_refused(name: str, value: Any) -> None:
    error = problem_of(**{name: value})
    assert error.field in (name, "refund_chargeback_id", "refund_amount")
    assert str(value) not in str(error)


@given(st.dictionaries(st.text(max_size=12).filter(lambda name: name not in CARD), JSON, max_size=4))
def test_unknown_fields_change_nothing(extra: dict[str, Any]) -> None:
    known = {"actions", "refunds", "refund_amount", "expiry_time", "settlement_time", "redirect_url", "metadata"}
    assert parse_transaction({**CARD, **{k: v for k, v in extra.items() if k not in known}}) == parse_transaction(CARD)


@given(st.sampled_from([*CARD, "refunds", "metadata", "actions", "va_numbers"]), JSON)
def test_any_value_in_any_field_is_read_or_refused_by_name(name: str, value: Any) -> None:
    try:
        parse_transaction({**CARD, name: value})
    except PayloadError as error:
        assert error.field


def test_text_that_is_only_shown_refuses_no_payment() -> None:
    status = parse_transaction({**CARD, "channel_response_message": "a\nb" + "x" * 500, "bank": 5, "masked_card": None})
    assert status.channel_response_message.startswith("a b")
    assert len(status.channel_response_message) == 255
    assert (status.bank, status.masked_card) == ("", "")


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b"{", b"\xff", b"[" * 60_000, b"null"])
def test_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(PayloadError, match="body"):
        decode(body)


def test_body_is_read_at_the_limit_and_refused_above() -> None:
    body = b'{"a":"' + b"x" * (BODY_SIZE_LIMIT - 8) + b'"}'
    assert len(body) == BODY_SIZE_LIMIT
    assert decode(body)["a"]
    with pytest.raises(PayloadError, match="larger"):
        decode(body + b" ")


def test_body_of_nobody_is_refused() -> None:
    with pytest.raises(PayloadError, match="no notification"):
        kind_of({"hello": "world"})


def test_tokens_and_signatures_are_in_no_repr() -> None:
    status = parse_transaction(CARD)
    assert status.saved_token == CARD["saved_token_id"]
    assert CARD["saved_token_id"] not in repr(status)
    assert CARD["signature_key"] not in repr(status)
    account = parse_account(
        {
            **samples.read("pay_account_gopay_enabled.json"),
            "metadata": {"payment_options": [{"name": "GOPAY_WALLET", "token": "wallet-token-0001"}]},
        }
    )
    assert account.wallet_token == "wallet-token-0001"
    assert "wallet-token-0001" not in repr(account)


def test_body_is_kept_without_what_charges_or_signs() -> None:
    body = samples.read("subscription_charge_gopay_settlement.json")
    kept = masked({**body, "list": [CARD]})
    text = json.dumps(kept)
    assert body["subscription"]["token"] not in text
    assert CARD["saved_token_id"] not in text
    assert CARD["signature_key"] not in text
    assert kept["list"][0]["order_id"] == CARD["order_id"]
    assert kept["list"][0]["saved_token_id"].endswith("1114")


def test_account_is_read() -> None:
    account = parse_account(samples.read("pay_account_gopay_enabled.json"))
    assert (account.status, account.status_code, account.payment_type) == ("ENABLED", "200", "gopay")
    with pytest.raises(PayloadError, match="account_id"):
        parse_account({"account_status": "ENABLED", "status_code": "200"})


@pytest.mark.parametrize(
    ("status_code", "bank_code", "kind"),
    [
        ("202", "51", Decline.SOFT),
        ("202", "05", Decline.SOFT),
        ("202", "", Decline.SOFT),
        ("202", "900", Decline.SOFT),
        ("503", "", Decline.SOFT),
        ("202", "54", Decline.HARD),
        ("202", "4", Decline.HARD),
        ("202", "43", Decline.HARD),
        ("411", "", Decline.HARD),
        ("410", "", Decline.HARD),
        ("402", "", Decline.HARD),
    ],
)
def test_only_soft_declines_are_worth_another_try(status_code: str, bank_code: str, kind: Decline) -> None:
    assert kind_of_decline(status_code, bank_code) is kind
