"""Each message is for an MT5 account of the user's: its own, the connection's, or the only one there is."""

import dataclasses
from typing import Any

import pytest
from google.protobuf.message import Message

from proto.gateway.v1 import payloads_pb2
from tests.streaming.core.cast import BOB, Terminal, signal, ticks

TWO = dataclasses.replace(BOB, accounts=frozenset({"1001", "1002"}))
NONE = dataclasses.replace(BOB, accounts=frozenset())
MESSAGES: dict[str, tuple[Any, str]] = {
    "tick_data": (lambda account: ticks(account=account), "tick-data"),
    "trading_signal": (lambda account: signal(account=account), "trading-signals"),
    "user_event": (lambda account: payloads_pb2.UserEvent(event_type="x", account=account), "user-events"),
    "notification": (lambda account: payloads_pb2.Notification(title="x", account=account), "notifications"),
}


def send(bob: Terminal, message_type: str, account: str, sequence: int = 1) -> str:
    """The account in the record, "" when there is none."""
    make, topic = MESSAGES[message_type]
    payload: Message = make(account)
    bob.send(message_type, payload, sequence=sequence)
    bob.sink.deliver()
    records = bob.records(topic)
    return type(payload).FromString(records[-1].payload).account if records else ""  # type: ignore[attr-defined]


@pytest.mark.parametrize("message_type", MESSAGES)
def test_message_without_an_account_is_refused_with_the_ways_to_name_it(message_type: str) -> None:
    bob = Terminal(TWO)
    assert send(bob, message_type, "") == ""
    [nack] = bob.heard("gateway.nack")
    assert (nack.sequence, nack.code) == (1, "account_unknown")
    for way in ("API key", "?account=", '"account" in each message'):
        assert way in nack.reason
    assert bob.acks() == [1] and bob.conduct.errors == 0


@pytest.mark.parametrize("message_type", MESSAGES)
@pytest.mark.parametrize("account", ["", "1001"])
def test_user_without_a_registered_account_is_told_how_to_get_one(message_type: str, account: str) -> None:
    bob = Terminal(NONE)
    send(bob, message_type, account)
    [nack] = bob.heard("gateway.nack")
    assert nack.code == "account_unknown" and "console" in nack.reason and "admin" in nack.reason


@pytest.mark.parametrize("message_type", MESSAGES)
def test_only_account_of_a_user_is_meant_where_none_is_named(message_type: str) -> None:
    bob = Terminal(BOB)
    assert send(bob, message_type, "") == "1001"
    assert bob.nacks() == [] and bob.session.accounts == {"1001"}


@pytest.mark.parametrize("message_type", MESSAGES)
def test_account_of_the_connection_is_meant_where_none_is_named(message_type: str) -> None:
    bob = Terminal(TWO, account="1002")
    assert send(bob, message_type, "") == "1002"
    # A connection that is bound to none may carry another one of the user's.
    assert send(bob, message_type, "1001", sequence=2) == "1001"
    assert bob.session.accounts == {"1001", "1002"}


@pytest.mark.parametrize("message_type", MESSAGES)
def test_bound_connection_takes_messages_of_no_other_account(message_type: str) -> None:
    bob = Terminal(dataclasses.replace(TWO, accounts=frozenset({"1002"})), account="1002", is_bound=True)
    assert send(bob, message_type, "") == send(bob, message_type, "1002", sequence=2) == "1002"
    send(bob, message_type, "1001", sequence=3)
    [nack] = bob.heard("gateway.nack")
    assert (nack.sequence, nack.code) == (3, "account_unknown") and "1002" in nack.reason
    assert bob.session.accounts == {"1002"}


def test_second_account_leaves_those_that_run_with_what_they_began_with() -> None:
    bob = Terminal(BOB)
    bob.session.apply_policy(dataclasses.replace(TWO, version=9))
    assert send(bob, "tick_data", "") == "1001"
    # The first one goes: the other is the only one now.
    bob.session.apply_policy(dataclasses.replace(BOB, version=10, accounts=frozenset({"1002"})))
    assert send(bob, "tick_data", "", sequence=2) == "1002"
    assert bob.session.accounts == {"1002"}
    bob.session.apply_policy(dataclasses.replace(NONE, version=11))
    send(bob, "tick_data", "", sequence=3)
    assert bob.nacks() == [(3, "account_unknown")]


def test_frame_that_is_kept_says_which_account_its_connection_was_for() -> None:
    bob = Terminal(TWO, account="1002")
    bob.frame("{")
    bob.sink.deliver()
    [record] = bob.sink.records
    assert dict(record.headers or ())["account"] == b"1002"
