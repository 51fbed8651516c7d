"""No price is invented: a tick has bid and ask, or last; 0 is none, and what is below or crossed is one."""

import dataclasses
import math
from typing import Any

import pytest

from proto.gateway.v1 import payloads_pb2
from tests.streaming.core.cast import BOB, Terminal

GOOD = {"symbol": "EURUSD", "bid": 1.1, "ask": 1.2}


def batch(*ticks: dict[str, Any]) -> payloads_pb2.BatchTickData:
    made = [payloads_pb2.Tick(**{"symbol": "EURUSD", **tick}) for tick in ticks]
    return payloads_pb2.BatchTickData(account="1001", ticks=made)


def sent(*ticks: dict[str, Any]) -> Terminal:
    bob = Terminal()
    bob.send(payload=batch(*ticks), sequence=1)
    bob.sink.deliver()
    return bob


def recorded(bob: Terminal) -> list[payloads_pb2.Tick]:
    [envelope] = bob.records("tick-data")
    return list(payloads_pb2.BatchTickData.FromString(envelope.payload).ticks)


@pytest.mark.parametrize(
    ("tick", "missing"),
    [
        ({}, "bid and ask missing"),
        ({"bid": 1.1}, "ask missing"),
        ({"ask": 1.1}, "bid missing"),
        ({"bid": 0.0}, "ask missing"),
        ({"ask": 0.0, "volume": 3.0}, "bid missing"),
        ({"bid": 1.1, "last": 0.0}, "ask missing"),
        ({"symbol": "BTCUSD"}, "bid and ask missing"),
    ],
)
@pytest.mark.parametrize("place", [0, 2])
def test_tick_without_a_price_is_refused_by_its_place_and_what_is_missing(
    tick: dict[str, Any], missing: str, place: int
) -> None:
    bob = sent(*[GOOD] * place, tick, GOOD)
    [nack] = bob.heard("gateway.nack")
    assert (nack.sequence, nack.code) == (1, "payload_mismatch")
    assert f"ticks[{place}]" in nack.reason and missing in nack.reason
    assert bob.records("tick-data") == []


@pytest.mark.parametrize(
    "tick",
    [
        {"bid": 1.1, "ask": 1.2},
        {"bid": 1.2, "ask": 1.1},
        {"bid": -37.6, "ask": -37.5},
        {"bid": 0.0, "ask": 0.1},
        {"bid": -0.1, "ask": 0.0},
        {"last": 5.0},
        {"last": -5.0},
        {"bid": 0.0, "ask": 0.0, "last": 5.0},
        {"bid": 1.1, "last": 1.15},
        {"bid": 5e-324, "ask": 1.7e308},
    ],
)
def test_price_that_exists_passes_as_it_is(tick: dict[str, Any]) -> None:
    bob = sent(tick)
    assert bob.nacks() == []
    assert recorded(bob) == [payloads_pb2.Tick(**{"symbol": "EURUSD", **tick})]


@pytest.mark.parametrize("tick", [{"bid": 0.0, "ask": 0.0}, {"bid": -0.0, "ask": 0.0}, {"last": 0.0}])
def test_tick_of_zeros_is_taken_out_with_one_notice_a_pair(tick: dict[str, Any]) -> None:
    bob = Terminal()
    for sequence in (1, 2):
        bob.send(payload=batch(GOOD, {"symbol": "XAUUSD", **tick}), sequence=sequence)
    bob.sink.deliver()
    assert bob.nacks() == []
    [notice] = bob.heard("gateway.notice")
    assert (notice.code, dict(notice.detail)) == ("no_price", {"symbols": "XAUUSD"})
    for envelope in bob.records("tick-data"):
        kept = payloads_pb2.BatchTickData.FromString(envelope.payload)
        assert ([one.symbol for one in kept.ticks], kept.account) == (["EURUSD"], "1001")


def test_inactive_pairs_and_pairs_without_a_price_are_told_apart() -> None:
    bob = sent(GOOD, {"symbol": "BTCUSD", "bid": 0.0, "ask": 0.0}, {"symbol": "XAUUSD", "bid": 0.0, "ask": 0.0})
    told = {notice.code: dict(notice.detail)["symbols"] for notice in bob.heard("gateway.notice")}
    assert told == {"pair_not_active": "BTCUSD", "no_price": "XAUUSD"}
    # The same pair is told of for another reason once more.
    bob.session.apply_policy(dataclasses.replace(BOB, version=9, active_pairs=frozenset({"EURUSD"})))
    bob.send(payload=batch(GOOD, {"symbol": "XAUUSD", "bid": 0.0, "ask": 0.0}), sequence=2)
    assert bob.heard("gateway.notice")[-1].code == "pair_not_active"


@pytest.mark.parametrize("field", ["bid", "ask", "volume", "last"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused_in_every_field(field: str, value: float) -> None:
    bob = sent(GOOD, {**GOOD, field: value})
    assert bob.nacks() == [(1, "payload_mismatch")]
    assert bob.records("tick-data") == []


def test_tick_without_a_symbol_is_refused_by_its_place() -> None:
    bob = sent(GOOD, {**GOOD, "symbol": ""})
    [nack] = bob.heard("gateway.nack")
    assert "ticks[1]" in nack.reason
