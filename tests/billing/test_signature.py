"""Who a notification is from: samples, published vectors, and everything that must not pass."""

import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.midtrans.signature import (
    Keys,
    SignatureRefused,
    account_signature,
    notification_signature,
    sign_event,
    verify_account,
    verify_event,
    verify_notification,
)
from tests.billing import samples

KEYS = Keys.of([samples.SERVER_KEY])
EVENT = samples.vector("channel_hmac_sha512_standard_webhooks_layout")
SECRETS = Keys.of([EVENT["secret"]])
NOW = float(EVENT["webhook_timestamp"])


def check(body: dict[str, Any], keys: Keys = KEYS) -> None:
    verify_notification(
        order_id=body["order_id"],
        status_code=body["status_code"],
        gross_amount=body["gross_amount"],
        signature_key=body.get("signature_key"),
        keys=keys,
    )


def check_event(**changes: Any) -> None:
    arguments: dict[str, Any] = {
        "event_id": EVENT["webhook_id"],
        "timestamp": EVENT["webhook_timestamp"],
        "signature": f"v1a512,{EVENT['signature_base64']}",
        "body": EVENT["raw_body"].encode(),
        "secrets": SECRETS,
        "now": NOW,
        **changes,
    }
    verify_event(**arguments)


def refusal(body: dict[str, Any], keys: Keys = KEYS) -> str:
    with pytest.raises(SignatureRefused) as caught:
        check(body, keys)
    return caught.value.code


def event_refusal(**changes: Any) -> str:
    with pytest.raises(SignatureRefused) as caught:
        check_event(**changes)
    return caught.value.code


@pytest.mark.parametrize("entry", samples.TRANSACTIONS, ids=lambda entry: entry["file"])
def test_sample_is_verified_as_its_manifest_says(entry: dict[str, Any]) -> None:
    body = samples.read(entry["file"])
    said = entry["signature"]
    if said.lower().startswith("valid"):
        check(body)
    else:
        assert refusal(body) == {"INVALID": "mismatch", "MISSING": "missing"}[said]


def test_manifest_has_both_kinds() -> None:
    assert len(samples.GENUINE) >= 25
    assert len(samples.TRANSACTIONS) - len(samples.GENUINE) == 5


def test_published_vector_is_reproduced() -> None:
    vector = samples.vector("transaction_signature_key")
    made = notification_signature(
        vector["order_id"], vector["status_code"], vector["gross_amount"], vector["server_key"]
    )
    assert made == vector["signature_key"]


def test_account_sample_is_verified_by_its_own_formula() -> None:
    body = samples.read("pay_account_gopay_enabled.json")
    fields = {name: body[name] for name in ("account_id", "account_status", "status_code", "signature_key")}
    verify_account(**fields, keys=KEYS)
    with pytest.raises(SignatureRefused):
        verify_account(**{**fields, "account_status": "DISABLED"}, keys=KEYS)
    with pytest.raises(SignatureRefused):
        verify_account(**{**fields, "status_code": "20"}, keys=KEYS)
    assert account_signature("a", "b", "c", "d") != account_signature("a", "b", "c", "e")


def test_either_key_is_accepted_while_keys_rotate_and_a_retired_one_is_not() -> None:
    body = samples.read("gopay_settlement.json")
    check(body, Keys.of(["new", samples.SERVER_KEY]))
    check(body, Keys.of([samples.SERVER_KEY, "new"]))
    assert refusal(body, Keys.of(["new"])) == "mismatch"


@pytest.mark.parametrize("values", [[], [""], ["good", " "]])
def test_empty_key_is_no_key(values: list[str]) -> None:
    with pytest.raises(ValueError, match="none may be empty"):
        Keys.of(values)


@pytest.mark.parametrize("field", ["order_id", "status_code", "gross_amount"])
def test_changed_field_is_refused(field: str) -> None:
    body = samples.read("gopay_settlement.json")
    body[field] = {"order_id": "gw-inv-20261123-0031", "status_code": "201", "gross_amount": "199000.0"}[field]
    assert refusal(body) == "mismatch"


def test_moved_border_between_fields_is_refused_where_the_form_tells() -> None:
    """``A|200|20150000.00`` and ``A200|201|50000.00`` sign alike; a border inside the code does not pass."""
    key = notification_signature("A", "200", "20150000.00", samples.SERVER_KEY)
    assert key == notification_signature("A200", "201", "50000.00", samples.SERVER_KEY)
    for order_id, code, amount in (
        ("A2", "00", "20150000.00"),
        ("A", "2002", "0150000.00"),
        ("A", "20", "020150000.00"),
    ):
        body = {"order_id": order_id, "status_code": code, "gross_amount": amount, "signature_key": key}
        assert refusal(body) == "malformed"


@pytest.mark.parametrize("order_id", ["", "..", ".", "a/b", "a b", "a#1", "é", "a" * 51])
def test_order_id_that_midtrans_does_not_allow_is_refused(order_id: str) -> None:
    key = notification_signature(order_id, "200", "1.00", samples.SERVER_KEY)
    body = {"order_id": order_id, "status_code": "200", "gross_amount": "1.00", "signature_key": key}
    assert refusal(body) == "malformed"


@pytest.mark.parametrize("given", ["0", "é" * 128, "g" * 128, "0" * 127, "0" * 129])
def test_signature_that_is_no_digest_is_refused(given: str) -> None:
    assert refusal({**samples.read("gopay_settlement.json"), "signature_key": given}) == "malformed"


def test_digest_in_capitals_is_the_same_digest() -> None:
    body = samples.read("gopay_settlement.json")
    check({**body, "signature_key": body["signature_key"].upper()})


def test_every_key_is_compared_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bool] = []
    true_compare = hmac.compare_digest

    def recording(left: Any, right: Any) -> bool:
        compared.append(true_compare(left, right))
        return compared[-1]

    monkeypatch.setattr(hmac, "compare_digest", recording)
    check(samples.read("gopay_settlement.json"), Keys.of([samples.SERVER_KEY, "second", "third"]))
    assert compared == [True, False, False]


def test_no_key_and_no_signature_is_shown() -> None:
    assert samples.SERVER_KEY not in repr(KEYS)
    for wrong in ({"signature_key": "0" * 128}, {"order_id": "other"}):
        with pytest.raises(SignatureRefused) as caught:
            check({**samples.read("gopay_settlement.json"), **wrong})
        shown = repr(caught.value) + str(caught.value)
        assert samples.SERVER_KEY not in shown
        assert samples.read("gopay_settlement.json")["signature_key"] not in shown


# --- Events of our own channel ----------------------------------------------------------------------------------------


def test_published_event_is_verified() -> None:
    check_event()


@pytest.mark.parametrize(
    "changes",
    [{"body": b"{}"}, {"event_id": "evt_other"}, {"timestamp": "1795402801"}, {"secrets": Keys.of(["other"])}],
)
def test_changed_event_is_refused(changes: dict[str, Any]) -> None:
    assert event_refusal(**changes) == "mismatch"


@pytest.mark.parametrize("name", ["event_id", "timestamp", "signature"])
@pytest.mark.parametrize("value", [None, ""])
def test_event_without_a_header_is_refused(name: str, value: str | None) -> None:
    assert event_refusal(**{name: value}) == "missing"


@pytest.mark.parametrize(
    "changes",
    [
        *({"timestamp": value} for value in ("soon", "-1", "1.5", "１", "01795402800", "9" * 13)),
        *({"event_id": value} for value in ("a b", "a\nb", "x" * 129)),
        *({"signature": value} for value in ("v1,abc", "abc", "v1a512", "v1a512,é", "v1a512,a " * 9)),
    ],
)
def test_malformed_header_is_refused(changes: dict[str, Any]) -> None:
    assert event_refusal(**changes) == "malformed"


@pytest.mark.parametrize("distance", [-301, 301])
def test_event_out_of_its_time_is_refused(distance: int) -> None:
    assert event_refusal(now=NOW + distance) == "expired"


@pytest.mark.parametrize("distance", [-300, 300])
def test_event_at_the_edge_of_its_time_is_accepted(distance: int) -> None:
    check_event(now=NOW + distance)


def test_forger_does_not_learn_our_clock() -> None:
    assert event_refusal(now=NOW + 10_000, secrets=Keys.of(["other"])) == "mismatch"


def test_event_signed_with_two_secrets_is_accepted_by_either() -> None:
    body = EVENT["raw_body"].encode()
    old, new = (sign_event(EVENT["webhook_id"], int(NOW), body, secret) for secret in ("old", "new"))
    for accepted in (["old"], ["new"], ["other", "new"]):
        check_event(signature=f"v1,{EVENT['signature_base64']} {old} {new}", secrets=Keys.of(accepted))
    assert event_refusal(signature=f"{old} {new}", secrets=Keys.of(["other"])) == "mismatch"


@given(st.binary(max_size=200), st.integers(0, 10**12 - 1), st.text(min_size=1, max_size=40).filter(str.strip))
def test_whatever_is_signed_verifies_and_one_byte_more_does_not(body: bytes, timestamp: int, secret: str) -> None:
    try:
        secret.encode()
    except UnicodeEncodeError:
        return
    signature = sign_event("evt_1", timestamp, body, secret)
    arguments: dict[str, Any] = {"event_id": "evt_1", "timestamp": str(timestamp), "signature": signature}
    arguments |= {"secrets": Keys.of([secret]), "now": float(timestamp)}
    verify_event(body=body, **arguments)
    with pytest.raises(SignatureRefused):
        verify_event(body=body + b"\0", **arguments)
