"""The JSON form says the same as protobuf, wherever its fields stand; what it says wrongly is named."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from proto.gateway.v1 import envelope_pb2, payloads_pb2
from streaming.core import json_form
from streaming.core.codes import NackCode
from streaming.core.errors import MessageRefused
from streaming.core.json_schema import ENVELOPE_TYPES, KINDS, MESSAGES, OVERWRITTEN

_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
_NUMBER = st.floats(allow_nan=False, allow_infinity=False)
_INT64 = st.integers(-(2**63), 2**63 - 1)
_ACTIONS = ("BUY", "SELL", "CLOSE", "MODIFY", "CANCEL")
_TICK = st.fixed_dictionaries(
    {"symbol": _TEXT, "bid": _NUMBER, "ask": _NUMBER},
    optional={"time_msc": _INT64, "volume": _NUMBER, "last": _NUMBER},
)
_ABOUT = {"account": st.text("0123456789", max_size=9), "time_msc": _INT64}
# message_type -> fields as JSON has them; enums by number, as protobuf takes them.
_PAYLOADS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "tick_data": st.fixed_dictionaries({"ticks": st.lists(_TICK, max_size=3)}, optional={"account": _TEXT}),
    "trading_signal": st.fixed_dictionaries(
        {"symbol": _TEXT, "action": st.integers(1, 5)},
        optional={**_ABOUT, "signal_id": _TEXT, "price": _NUMBER, "magic": _INT64, "comment": _TEXT},
    ),
    "user_event": st.fixed_dictionaries(
        {"event_type": _TEXT}, optional={**_ABOUT, "attributes": st.dictionaries(_TEXT, _TEXT, max_size=3)}
    ),
    "notification": st.fixed_dictionaries({"title": _TEXT, "severity": st.integers(1, 3)}, optional={**_ABOUT}),
    "gateway.ping": st.fixed_dictionaries(
        {"client_time_ms": _INT64}, optional={"heard_sequence": st.integers(0, 2**53 - 1)}
    ),
    "gateway.refresh": st.fixed_dictionaries({"token": _TEXT}),
}
_TYPED = st.sampled_from(sorted(_PAYLOADS)).flatmap(lambda kind: st.tuples(st.just(kind), _PAYLOADS[kind]))


def read(frame: dict[str, Any] | str) -> envelope_pb2.MessageEnvelope:
    return json_form.read_json(frame if isinstance(frame, str) else json.dumps(frame))


def problem(frame: dict[str, Any] | str) -> tuple[int, str, str]:
    """Sequence, code and reason of a frame whose envelope is readable."""
    with pytest.raises(json_form.PayloadProblem) as caught:
        read(frame)
    return caught.value.envelope.sequence, caught.value.refusal.code, caught.value.refusal.reason


def ticks(*given: Any) -> dict[str, Any]:
    return {"message_type": "tick_data", "sequence": 7, "ticks": list(given)}


def signal(**fields: Any) -> dict[str, Any]:
    return {"message_type": "trading_signal", "sequence": 7, "symbol": "EURUSD", "action": "BUY", **fields}


# --- Both places, both forms ------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(_TYPED)
def test_both_json_forms_become_what_protobuf_says(typed: tuple[str, dict[str, Any]]) -> None:
    message_type, fields = typed
    head = {"message_type": message_type, "sequence": 5, "stream_id": "s", "timestamp": 9}
    beside, inside = read({**head, **fields}), read({**head, "payload": fields})
    assert beside == inside
    assert (beside.message_type, beside.sequence, beside.stream_id, beside.timestamp) == (message_type, 5, "s", 9)
    expected = dict(fields)
    if message_type == "tick_data":
        expected["ticks"] = [payloads_pb2.Tick(**tick) for tick in fields["ticks"]]
    kind = MESSAGES[message_type]
    assert kind.FromString(beside.payload) == kind(**expected)


def test_each_field_of_the_schema_is_one_of_the_json_form_and_none_is_twofold() -> None:
    for kind in KINDS.values():
        names: Iterable[str] = (field.name for field in kind.message.DESCRIPTOR.fields)
        assert set(kind.payload.__struct_fields__) == set(names)
        assert not set(kind.fields) & {"payload", "message_type", *ENVELOPE_TYPES, *OVERWRITTEN}
    assert {*ENVELOPE_TYPES, *OVERWRITTEN, "message_type", "payload"} == {
        field.name for field in envelope_pb2.MessageEnvelope.DESCRIPTOR.fields
    }


def test_presence_of_a_price_survives_also_of_zero() -> None:
    batch = payloads_pb2.BatchTickData.FromString(
        read(ticks({"symbol": "A", "bid": 0, "ask": None}, {"symbol": "B", "last": 1})).payload
    )
    presence = [[tick.HasField(name) for name in ("bid", "ask", "last")] for tick in batch.ticks]
    assert presence == [[True, False, False], [False, False, True]]


@pytest.mark.parametrize("name", ["BUY", "buy", "Buy", "TRADE_ACTION_BUY", "trade_action_buy", " BUY ", 1])
@pytest.mark.parametrize("place", ["beside", "payload"])
def test_enum_is_taken_by_short_name_long_name_and_number(name: Any, place: str) -> None:
    fields = {"symbol": "EURUSD", "action": name}
    frame = {"message_type": "trading_signal", **(fields if place == "beside" else {"payload": fields})}
    assert payloads_pb2.TradingSignal.FromString(read(frame).payload).action == payloads_pb2.TRADE_ACTION_BUY


@pytest.mark.parametrize("name", ["HOLD", "", "TRADE_ACTION_", "1"])
def test_unknown_enum_value_is_refused_with_those_that_there_are(name: str) -> None:
    sequence, code, reason = problem(signal(action=name))
    assert (sequence, code) == (7, NackCode.PAYLOAD_MISMATCH)
    assert ", ".join(_ACTIONS) in reason and repr(name) in reason and "UNSPECIFIED" not in reason


def test_identity_of_a_client_is_read_over_as_in_protobuf() -> None:
    envelope = read({**ticks({"symbol": "A"}), **dict.fromkeys(OVERWRITTEN, "forged")})
    assert [getattr(envelope, name) for name in OVERWRITTEN] == ["", "", 0, "", ""]


def test_account_may_be_a_number() -> None:
    assert payloads_pb2.BatchTickData.FromString(read({**ticks(), "account": 12345}).payload).account == "12345"
    assert payloads_pb2.TradingSignal.FromString(read(signal(account=12345)).payload).account == "12345"


def test_envelope_of_unknown_type_is_read_for_its_sequence() -> None:
    envelope = read({"message_type": "news", "sequence": 4, "payload": [[]], "anything": 1})
    assert (envelope.message_type, envelope.sequence, envelope.payload) == ("news", 4, b"")


# --- What is refused, and in which words ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (ticks({"symbol": "A", "bid": 1, "aks": 2}), ["ticks[0]", "'aks'", "did you mean ask?", "bid, ask"]),
        (ticks({"symbol": "A", "bid": 1, "ask": 2}, {"symbl": "B"}), ["ticks[1]", "'symbl'", "mean symbol?"]),
        (ticks({"symbol": "A", "Bid": 1}), ["ticks[0]", "'Bid'", "mean bid?"]),
        (ticks({"symbol": "A", "time": 1}), ["'time'", "mean time_msc?"]),
        (ticks({"symbol": "A", "zzz": 1}), ["'zzz'", "symbol, bid, ask, time_msc, volume, last"]),
        ({**ticks(), "acount": "1"}, ["a tick_data message", "'acount'", "mean account?", "ticks, account"]),
        ({**ticks(), "timestmp": 1}, ["'timestmp'", "mean timestamp?"]),
        ({**ticks(), "symbol": "A"}, ["a tick_data message", "'symbol'", "ticks, account"]),
        (signal(stoploss=1), ["a trading_signal message", "'stoploss'", "mean stop_loss?", "take_profit"]),
        (
            {"message_type": "user_event", "sequence": 7, "payload": {"event": "x"}},
            ["payload has no field 'event'", "mean event_type?", "attributes"],
        ),
        ({"message_type": "gateway.ping", "sequence": 7, "client_time": 1}, ["'client_time'", "mean client_time_ms?"]),
        ({**ticks({"symbol": "A"}), "payload": {}}, ["ticks beside payload", "one of the two places"]),
        (signal(payload={"symbol": "EURUSD"}), ["symbol, action beside payload", "trading_signal"]),
        (ticks({"symbol": "A", "bid": "1.1"}), ["ticks[0].bid", "float", "str"]),
        (ticks(["A"]), ["ticks[0] is an object", "symbol, bid"]),
        (ticks({"symbol": "A", "time_msc": 1.5}), ["ticks[0].time_msc", "int"]),
        (signal(price="1"), ["price", "float"]),
        ({"message_type": "trading_signal", "sequence": 7, "payload": []}, ["payload is an object", "symbol, action"]),
        ({"message_type": "trading_signal", "sequence": 7, "payload": {"price": "1"}}, ["payload.price", "float"]),
        (signal(action=99999999999), ["action"]),
        ({"message_type": "notification", "sequence": 7, "severity": "BAD"}, ["INFO, WARNING, CRITICAL", "'BAD'"]),
    ],
)
def test_wrong_field_is_named_with_its_place_and_what_is_allowed(frame: dict[str, Any], words: list[str]) -> None:
    sequence, code, reason = problem(frame)
    assert (sequence, code) == (7, NackCode.PAYLOAD_MISMATCH)
    assert [word for word in words if word not in reason] == [], reason


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"timestamp": "now"}, "timestamp"),
        ({"enable_tracing": "yes"}, "enable_tracing"),
        ({"message_type": None}, "message_type is missing"),
        ({"message_type": ""}, "tick_data, trading_signal"),
    ],
)
def test_wrong_field_of_the_envelope_is_refused_under_the_sequence_of_its_own(
    fields: dict[str, Any], word: str
) -> None:
    sequence, code, reason = problem({**ticks({"symbol": "A"}), **fields})
    assert (sequence, code) == (7, NackCode.MALFORMED)
    assert word in reason


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "1",
        "null",
        '"tick_data"',
        "{}x",
        '{"message_type":1}',
        '{"message_type":"x","sequence":-1}',
        "[" * 9999,
    ],
)
def test_what_is_no_message_is_malformed(text: str) -> None:
    with pytest.raises((MessageRefused, json_form.PayloadProblem)) as caught:
        read(text)
    error = caught.value
    refusal = error if isinstance(error, MessageRefused) else error.refusal
    assert (refusal.code, refusal.harmless) == (NackCode.MALFORMED, False)


@settings(deadline=None)
@given(_TYPED, st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
def test_any_unknown_name_is_refused_in_both_places(typed: tuple[str, dict[str, Any]], name: str) -> None:
    message_type, fields = typed
    known = {"message_type", "payload", *KINDS[message_type].fields, *ENVELOPE_TYPES, *OVERWRITTEN}
    if name in known:
        return
    head = {"message_type": message_type, "sequence": 5}
    for frame in ({**head, **fields, name: 1}, {**head, "payload": {**fields, name: 1}}):
        sequence, code, reason = problem(frame)
        assert (sequence, code) == (5, NackCode.PAYLOAD_MISMATCH)
        assert repr(name[:40]) in reason


def test_refusal_of_a_huge_frame_stays_small() -> None:
    for frame in (ticks({"x" * 60_000: 1}), signal(action="x" * 60_000), signal(**{"y" * 60_000: 1})):
        assert len(problem(frame)[2]) < 400


def test_message_kinds_are_all_covered() -> None:
    assert set(_PAYLOADS) == set(MESSAGES)
    assert all(issubclass(kind, Message) for kind in MESSAGES.values())
