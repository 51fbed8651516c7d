"""The stand-in's own rules, without a process."""

from datetime import timedelta
from typing import Any

import pytest

from billing.midtrans.payload import parse_transaction
from billing.midtrans.signature import Keys, SignatureRefused, verify_notification
from billing.sandbox.faults import Faults
from billing.sandbox.notifier import repetitions
from billing.sandbox.transaction import ACTIONS, Impossible, Transaction
from billing.transitions import Effect, PaymentState, judge_payment
from tests.billing import samples

KEY = "SB-Mid-server-rules"


def make(payment_type: str = "gopay") -> Transaction:
    return Transaction("gw-inv-1", 100_000, payment_type, timedelta(minutes=15))


def body_of(transaction: Transaction, **options: Any) -> dict[str, Any]:
    return transaction.body(KEY, message="midtrans payment notification", **options)


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        *((code, 0) for code in (200, 201, 204, 301, 302, 303)),
        (500, 1),
        (503, 4),
        *((code, 2) for code in (400, 404)),
        *((code, 5) for code in (0, 401, 403, 409, 422, 429, 502, 504)),
    ],
)
def test_answer_is_repeated_as_midtrans_documents(answer: int, count: int) -> None:
    assert repetitions(answer) == count


def walk(transaction: Transaction, seen: set[str], state: PaymentState) -> None:
    """Every way through the stand-in's states is one that our table follows."""
    for action in transaction.possible():
        copy = make(transaction.payment_type)
        for step in seen_path(transaction):
            copy.act(step)
        copy.act(action)
        copy.extra = {"path": [*seen_path(transaction), action]}
        status = parse_transaction(body_of(copy))
        verdict = judge_payment(
            state,
            transaction_status=status.transaction_status,
            fraud_status=status.fraud_status,
            status_code=status.status_code,
        )
        is_repeated = action in ("partial_refund", "partial_chargeback") and copy.state == transaction.state
        assert verdict.effect is (Effect.UNCHANGED if is_repeated else Effect.CHANGED), copy.history
        if copy.state not in seen:
            walk(copy, seen | {copy.state}, verdict.state)


def seen_path(transaction: Transaction) -> list[str]:
    path: list[str] = transaction.extra.get("path", [])
    return path


@pytest.mark.parametrize("payment_type", ["credit_card", "bank_transfer", "gopay", "qris"])
def test_whatever_the_stand_in_does_our_table_follows(payment_type: str) -> None:
    walk(make(payment_type), {"pending"}, PaymentState.PENDING)


@pytest.mark.parametrize("payment_type", ["credit_card", "gopay"])
def test_impossible_act_changes_nothing(payment_type: str) -> None:
    transaction = make(payment_type)
    transaction.act("cancel")
    for action in ACTIONS:
        with pytest.raises(Impossible) as caught:
            transaction.act(action)
        assert caught.value.code == "412"
    assert transaction.history == ["pending", "cancel"]


def test_body_is_signed_as_the_samples_are() -> None:
    transaction = make()
    transaction.act("pay")
    body = body_of(transaction)
    sample = samples.read("gopay_settlement.json")
    assert set(sample) - set(body) == {"payment_option_type"}
    fields = {name: body[name] for name in ("order_id", "status_code", "gross_amount", "signature_key")}
    verify_notification(**fields, keys=Keys.of([KEY]))
    with pytest.raises(SignatureRefused):
        verify_notification(**fields, keys=Keys.of([samples.SERVER_KEY]))


def test_expired_payment_has_one_code_in_notifications_and_another_in_answers() -> None:
    transaction = make()
    transaction.act("expire")
    assert body_of(transaction)["status_code"] == "202"
    assert body_of(transaction, expire_code="407")["status_code"] == "407"


def test_refund_is_whole_when_its_parts_are() -> None:
    transaction = make()
    transaction.act("pay")
    transaction.refund(40_000, "a", "part")
    assert transaction.status == "partial_refund"
    transaction.refund(60_000, "b", "rest")
    assert (transaction.status, transaction.refunded) == ("refund", 100_000)
    with pytest.raises(Impossible):
        transaction.refund(1, "c", "more")
    assert transaction.refund(60_000, "b", "rest")["refund_chargeback_id"] == 2


def test_fault_is_used_up_and_meets_only_its_order() -> None:
    faults = Faults()
    faults.add({"call": "status", "effect": "error", "order_id": "one", "count": 2})
    assert faults.take("status", "other") is None
    assert faults.take("charge", "one") is None
    assert faults.take("status", "one") is not None
    assert faults.take("status", "one") is not None
    assert faults.take("status", "one") is None
    assert faults.listed() == []


def test_fault_of_any_call_is_none_of_notifications() -> None:
    faults = Faults()
    faults.add({"call": "*", "effect": "broken"})
    assert faults.take("notification", "one") is None
    assert faults.take("cancel", "one") is not None


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"call": "status"},
        {"call": "unknown", "effect": "error"},
        {"call": "status", "effect": "lose"},
        {"call": "notification", "effect": "error"},
        {"call": "status", "effect": "error", "extra": 1},
        {"call": "status", "effect": "error", "status": 404},
        {"call": "status", "effect": "error", "count": 0},
        {"call": "status", "effect": "error", "count": "1"},
        {"call": "status", "effect": "error", "count": True},
        {"call": "status", "effect": "timeout", "seconds": 61},
        {"call": "snap", "effect": "wrong_amount"},
    ],
)
def test_fault_that_is_none_is_refused(data: dict[str, Any]) -> None:
    faults = Faults()
    with pytest.raises(ValueError, match=r"\w"):
        faults.add(data)
    assert faults.listed() == []
