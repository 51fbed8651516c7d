"""Harmless quirks of terminals are taken or answered, and nobody is let go for them, however often they come."""

import json
from collections.abc import Callable

import pytest

from proto.gateway.v1 import payloads_pb2
from streaming.core.replies import JSON, PROTOBUF
from tests.streaming.core.cast import NOW_US, Terminal, ticks

REPEATS = 50
_TICK = '{"symbol":"EURUSD","bid":1.1,"ask":1.2}'


def _batch(sequence: int, ticks_json: str = _TICK, more: str = "") -> str:
    return f'{{"message_type":"tick_data","sequence":{sequence},"ticks":[{ticks_json}]{more}}}'


# What a terminal may send without meaning harm, by its sequence -> the record that comes of it is the same as ever.
TAKEN: dict[str, Callable[[int], str]] = {
    "a NUL at the end": lambda n: _batch(n) + "\0",
    "several NULs": lambda n: _batch(n) + "\0\0\0",
    "white space around": lambda n: f" \r\n\t{_batch(n)}\r\n ",
    "a line end and a NUL": lambda n: f"{_batch(n)}\r\n\0",
    "a byte order mark": lambda n: "\ufeff" + _batch(n),
    "account as a number": lambda n: _batch(n, more=',"account":1001'),
    "account as a double": lambda n: _batch(n, more=',"account":1001.0'),
    "account as a double with an exponent": lambda n: _batch(n, more=',"account":1.001e3'),
    "account in spaces": lambda n: _batch(n, more=',"account":" 1001 "'),
    "no account at all, of one": lambda n: _batch(n),
    "an account of null": lambda n: _batch(n, more=',"account":null'),
    "prices as integers": lambda n: _batch(n, '{"symbol":"EURUSD","bid":1,"ask":2,"volume":1}'),
    "symbol in spaces": lambda n: _batch(n, '{"symbol":" EURUSD ","bid":1.1,"ask":1.2}'),
    "a volume of null": lambda n: _batch(n, '{"symbol":"EURUSD","bid":1.1,"ask":1.2,"volume":null}'),
    "a payload of null": lambda n: _batch(n, more=',"payload":null'),
    "fields that the gateway sets": lambda n: _batch(n, more=',"user_id":"1","company_id":2,"session_id":null'),
    "a tick without a price among others": lambda n: _batch(n, f'{_TICK},{{"symbol":"XAUUSD","bid":0,"ask":0}}'),
}
# Nothing comes of these, and the answer says why.
ANSWERED: dict[str, tuple[Callable[[int], str], str]] = {
    "an empty batch": (lambda n: _batch(n, ""), "payload_mismatch"),
    "no ticks at all": (lambda n: f'{{"message_type":"tick_data","sequence":{n}}}', "payload_mismatch"),
    "an empty batch in payload": (
        lambda n: f'{{"message_type":"tick_data","sequence":{n},"payload":{{"ticks":[]}}}}',
        "payload_mismatch",
    ),
    "no tick with a price": (lambda n: _batch(n, '{"symbol":"EURUSD","bid":0,"ask":0}'), "payload_mismatch"),
    "an account that is not registered": (lambda n: _batch(n, more=',"account":77'), "account_unknown"),
    "an account that no number is": (lambda n: _batch(n, more=',"account":1001.5'), "account_unknown"),
    "a pair that is not active": (lambda n: _batch(n, '{"symbol":"X","bid":1,"ask":1}'), "pair_not_active"),
}
EMPTY = ["", " ", "\r\n", "\0", "\ufeff"]


def _repeat(frame: Callable[[int], str]) -> Terminal:
    bob = Terminal(form=JSON)
    for number in range(1, REPEATS + 1):
        # Below the plan's rate, so that each one is looked into.
        bob.session.receive(frame(number), number / 25, NOW_US)
        bob.sink.deliver()
    return bob


def _codes(bob: Terminal) -> list[tuple[int, str]]:
    said = [json.loads(text) for text in bob.peer.sent]
    return [(s["payload"]["sequence"], s["payload"]["code"]) for s in said if s["message_type"] == "gateway.nack"]


@pytest.mark.parametrize("quirk", TAKEN)
def test_quirk_is_taken_as_the_message_that_it_is(quirk: str) -> None:
    bob = _repeat(TAKEN[quirk])
    assert _codes(bob) == []
    records = bob.records("tick-data")
    assert [envelope.sequence for envelope in records] == list(range(1, REPEATS + 1))
    for envelope in records:
        batch = payloads_pb2.BatchTickData.FromString(envelope.payload)
        assert (batch.account, [tick.symbol for tick in batch.ticks]) == ("1001", ["EURUSD"])
    assert (bob.conduct.errors, bob.abusers) == (0, [])


@pytest.mark.parametrize("quirk", ANSWERED)
def test_quirk_that_says_nothing_is_answered_and_settled_and_never_an_error(quirk: str) -> None:
    frame, code = ANSWERED[quirk]
    bob = _repeat(frame)
    assert _codes(bob) == [(number, code) for number in range(1, REPEATS + 1)]
    assert bob.session.position.acknowledged == REPEATS
    assert bob.sink.records == [], "nothing is kept that holds nothing"
    assert (bob.conduct.errors, bob.abusers) == (0, [])


@pytest.mark.parametrize("text", EMPTY, ids=repr)
def test_empty_frame_is_answered_and_never_an_error(text: str) -> None:
    bob = _repeat(lambda _: text)
    assert _codes(bob) == [(0, "malformed")] * REPEATS
    assert (bob.sink.records, bob.conduct.errors, bob.abusers) == ([], 0, [])


def test_empty_binary_frame_is_answered_and_never_an_error() -> None:
    bob = Terminal(form=PROTOBUF)
    for number in range(REPEATS):
        bob.now = number / 25
        bob.frame(b"")
    bob.sink.deliver()
    assert bob.nacks() == [(0, "malformed")] * REPEATS
    assert (bob.sink.records, bob.conduct.errors, bob.abusers) == ([], 0, [])


def test_empty_batch_in_protobuf_is_no_error_either() -> None:
    bob = Terminal(form=PROTOBUF)
    for sequence in range(1, REPEATS + 1):
        bob.now = sequence / 25
        bob.send(payload=payloads_pb2.BatchTickData(account="1001"), sequence=sequence)
    assert {code for _, code in bob.nacks()} == {"payload_mismatch"}
    assert (bob.acks()[-1], bob.sink.records, bob.conduct.errors, bob.abusers) == (REPEATS, [], 0, [])


def test_broken_messages_among_quirks_are_still_errors() -> None:
    bob = Terminal(form=JSON)
    for number in range(1, REPEATS + 1):
        bob.session.receive("{" if number % 5 else _batch(number, ""), number / 25, NOW_US)
    assert bob.conduct.errors == REPEATS * 4 // 5 and bob.abusers


def test_account_of_a_message_goes_into_its_record_stripped() -> None:
    bob = Terminal()
    bob.send(payload=ticks(account=" 1001"), sequence=1)
    bob.sink.deliver()
    assert payloads_pb2.BatchTickData.FromString(bob.records("tick-data")[0].payload).account == "1001"
