"""Every sequence gets one answer that is true: told when it is settled, told again to whoever has not heard it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.gateway.v1 import control_pb2, payloads_pb2
from streaming.core.codes import ACTIONS, KEPT_REFUSALS, NackAction, NackCode
from streaming.core.errors import MessageRefused
from streaming.core.replies import JSON
from streaming.core.stream import SEQUENCE_LIMIT, StreamPosition
from tests.streaming.core.cast import NOW_US, Terminal, signal, ticks

Nack = tuple[int, str, str, bool]


def answers(bob: Terminal) -> list[Nack]:
    """Sequence, code, action and whether it is settled, of each nack."""
    names = control_pb2.NackAction.Name
    return [
        (nack.sequence, nack.code, names(nack.action).removeprefix("NACK_ACTION_"), nack.settled)
        for nack in bob.heard("gateway.nack")
    ]


def refusals(bob: Terminal) -> list[tuple[int, int, str]]:
    """As the welcome tells them."""
    bob.session.welcome(NOW_US)
    return [(run.first, run.last, run.code) for run in bob.heard("gateway.welcome")[-1].refusals]


def successor(bob: Terminal, **options: Any) -> Terminal:
    """The next connection of the same stream in the same process, which carries it from now on."""
    bob.session.lost()
    options.setdefault("heard", bob.session.heard)
    later = Terminal(position=bob.session.position, **options)
    bob.context.current = lambda _session: later.session
    return later


# --- One flag, one meaning --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", list(NackCode))
def test_nack_says_in_one_way_whether_to_send_again(code: NackCode) -> None:
    bob = Terminal()
    bob.session.nack(5, MessageRefused(code, "why"))
    [nack] = bob.heard("gateway.nack")
    assert nack.action == ACTIONS[code]
    assert nack.retryable == (nack.action == NackAction.RESEND)
    assert nack.settled == (nack.action != NackAction.RESEND)


@pytest.mark.parametrize("spoil", ["rate", "quota", "pair"])
def test_message_refused_at_once_is_settled_at_once(spoil: str) -> None:
    bob = Terminal()
    if spoil == "rate":
        bob.bucket.change(0.001, 0.0)
        bob.send()
    bob.volume.is_exhausted = spoil == "quota"
    bob.send(payload=ticks("BTCUSD" if spoil == "pair" else "EURUSD"), sequence=1)
    assert [settled for *_, settled in answers(bob)] == [True]
    assert bob.acks() == [1]


# --- Refusals that nobody heard ---------------------------------------------------------------------------------------


def test_refusals_that_a_client_has_not_heard_are_told_at_its_next_welcome() -> None:
    bob = Terminal(heard=0)
    bob.send(sequence=1)
    bob.send(payload=ticks("BTCUSD"), sequence=2)
    bob.send(payload=ticks("BTCUSD"), sequence=3)
    bob.send(payload=ticks(account="9"), sequence=4)
    bob.send(sequence=5)
    bob.sink.deliver()
    assert bob.acks()[-1] == 5
    again = successor(bob)
    assert refusals(again) == [(2, 3, "pair_not_active"), (4, 4, "account_unknown")]
    [welcome] = again.heard("gateway.welcome")
    assert (welcome.last_acknowledged_sequence, welcome.refusals_from) == (5, 1)


def test_refusal_that_was_heard_is_not_told_again_and_one_that_was_not_is_answered_again() -> None:
    bob = Terminal(heard=0)
    for sequence in (1, 2, 3):
        bob.send(payload=ticks("BTCUSD"), sequence=sequence)
    again = successor(bob, heard=2)
    assert refusals(again) == [(3, 3, "pair_not_active")]
    for sequence in (3, 2):
        again.send(sequence=sequence)
    assert answers(again) == [(3, "pair_not_active", "FINAL", True), (2, "duplicate", "FINAL", True)]
    assert again.sink.in_flight == 0


def test_ping_that_tells_what_was_heard_lets_the_gateway_forget() -> None:
    bob = Terminal(heard=0)
    for sequence in (1, 2, 3):
        bob.send(payload=ticks("BTCUSD"), sequence=sequence)
    bob.send("gateway.ping", control_pb2.Ping(heard_sequence=2))
    assert list(bob.session.position.refused) == [3]
    assert refusals(successor(bob, heard=0)) == [(3, 3, "pair_not_active")]


def test_json_ping_tells_what_was_heard() -> None:
    bob = Terminal(heard=0, form=JSON)
    bob.frame('{"message_type":"nonsense","sequence":1}')
    bob.sink.deliver()
    bob.frame('{"message_type":"gateway.ping","payload":{"heard_sequence":1}}')
    assert list(bob.session.position.refused) == []


def test_welcome_in_json_tells_refusals_by_plain_names() -> None:
    bob = Terminal(heard=0, form=JSON)
    bob.frame('{"message_type":"tick_data","sequence":1,"ticks":[{"symbol":"BTCUSD","bid":1,"ask":1}]}')
    bob.session.welcome(NOW_US, position_known=True, fence=7)
    payload = json.loads(bob.peer.sent[-1])["payload"]
    assert payload["refusals"] == [{"first": 1, "last": 1, "code": "pair_not_active", "action": "FINAL"}]
    assert (payload["position_known"], payload["refusals_from"], payload["stream_fence"]) == (True, 1, 7)


def test_refusal_settled_after_a_reconnect_is_told_to_the_connection_that_carries_the_stream() -> None:
    bob = Terminal(heard=0)
    bob.send("nonsense", sequence=1)
    again = successor(bob)
    again.send("nonsense", sequence=1)
    assert answers(again) == [], "its answer is on the way"
    bob.sink.deliver()
    assert answers(again) == [(1, "unknown_type", "FINAL", True)]
    again.session.flush_ack()
    assert again.acks() == [1]


# --- Nothing is acknowledged that is nowhere --------------------------------------------------------------------------

BROKEN_BY_A_COMMA = '{"message_type":"tick_data","sequence":2,"ticks":[{"symbol":"EURUSD","bid":1,1}]}'


@pytest.mark.parametrize("frame", [BROKEN_BY_A_COMMA, b"\xff\xff"], ids=["named", "nameless"])
def test_acknowledgement_passes_over_an_unreadable_frame_when_kafka_has_it(frame: bytes | str) -> None:
    bob = Terminal()
    bob.send(sequence=1)
    bob.sink.deliver()
    bob.frame(frame)
    bob.send(payload=ticks("BTCUSD"), sequence=3)
    assert bob.acks() == [1]
    bob.sink.deliver()
    assert bob.acks() == [1, 3]
    assert answers(bob) == [(3, "pair_not_active", "FINAL", True), (2, "malformed", "FINAL", True)]


@pytest.mark.parametrize("frame", [BROKEN_BY_A_COMMA, b"\xff\xff"], ids=["named", "nameless"])
def test_unreadable_frame_that_kafka_did_not_take_is_owed_again(frame: bytes | str) -> None:
    bob = Terminal()
    bob.send(sequence=1)
    bob.sink.deliver()
    bob.frame(frame)
    bob.send(payload=ticks("BTCUSD"), sequence=3)
    bob.sink.fail()
    assert (2, "backend_unavailable", "RESEND", False) in answers(bob)
    assert (bob.acks(), bob.session.position.expected) == ([1], 2)


def test_unreadable_frames_explain_a_gap_when_all_their_records_are_there() -> None:
    bob = Terminal()
    for _ in range(3):
        bob.frame(b"\xff\xff")
    bob.send(sequence=3)
    bob.sink.deliver(2)
    assert (bob.acks(), bob.session.position.unsettled()) == ([], [1, 2, 3])
    bob.sink.deliver()
    assert sorted(answers(bob)) == [
        (0, "malformed", "FINAL", True), (0, "malformed", "FINAL", True), (0, "malformed", "FINAL", True),
        (1, "malformed", "FINAL", True), (2, "malformed", "FINAL", True),
    ]  # fmt: skip
    assert bob.acks()[-1] == 3


@pytest.mark.parametrize("unread", [1, 3])
def test_sequence_that_can_be_read_behind_frames_that_cannot_is_named(unread: int) -> None:
    bob = Terminal(form=JSON)
    for _ in range(unread):
        bob.frame("{")
    bob.frame(f'{{"sequence":{unread + 1},"ticks":[{{"bid":1,1}}]}}')
    bob.sink.deliver()
    said = [json.loads(text) for text in bob.peer.sent]
    named = {one["payload"]["sequence"] for one in said if one["message_type"] == "gateway.nack"}
    assert named - {0} == set(range(1, unread + 2))
    assert bob.session.position.acknowledged == unread + 1


def test_sequence_that_is_not_the_next_one_is_not_believed_of_broken_bytes() -> None:
    bob = Terminal(form=JSON)
    bob.frame("{")
    bob.frame('{"sequence":7,')
    bob.sink.deliver()
    assert (bob.session.position.acknowledged, bob.session.position.unsettled()) == (0, [])


def test_frame_without_a_name_that_is_told_before_its_gap_is_seen_gets_its_number_later() -> None:
    bob = Terminal()
    bob.frame(b"\xff\xff")
    bob.sink.deliver()
    assert answers(bob) == [(0, "malformed", "FINAL", True)]
    bob.send(sequence=2)
    assert answers(bob)[1:] == [(1, "malformed", "FINAL", True)]
    bob.sink.deliver()
    assert bob.acks()[-1] == 2


def test_failed_messages_that_take_nothing_delay_nobody_and_the_client_is_told() -> None:
    bob = Terminal()
    bob.sink.is_ill = True
    bob.sink.takes = lambda topic, key: topic != "failed-messages"  # type: ignore[method-assign]
    bob.send("nonsense", sequence=1)
    bob.frame(b"\xff\xff")
    bob.send(sequence=3)
    bob.sink.deliver()
    assert [(nack.sequence, nack.kept) for nack in bob.heard("gateway.nack")] == [(1, False), (0, False), (2, False)]
    assert (bob.acks()[-1], bob.peer.closed) == (3, None)
    assert bob.context.counts.not_kept == {"unknown_type": 1, "malformed": 1}
    assert bob.context.counts.failed_messages == {}


@pytest.mark.parametrize("frame", [BROKEN_BY_A_COMMA.replace("2", "1", 1), b"\xff\xff"], ids=["named", "nameless"])
def test_record_of_failed_messages_that_kafka_refuses_settles_its_frame_unkept(frame: bytes | str) -> None:
    bob = Terminal()
    bob.frame(frame)
    bob.send(sequence=2)
    [(_, kept), (_, message)] = bob.sink._waiting
    bob.session.not_recorded(kept[1], MessageRefused(NackCode.TOO_LARGE, "too large"))
    bob.session.delivered(message[1], True, 10)
    assert [(nack.sequence, nack.code, nack.kept) for nack in bob.heard("gateway.nack")] == [(1, "malformed", False)]
    assert bob.acks()[-1] == 2
    assert (bob.session.in_flight, bob.context.counts.not_kept) == (0, {"malformed": 1})


def test_message_that_kafka_never_takes_is_settled_and_remembered() -> None:
    bob = Terminal(heard=0)
    bob.send(sequence=1)
    error = MessageRefused(NackCode.BACKEND_UNAVAILABLE, "denied", retry_after_ms=9, action=NackAction.REOFFER)
    bob.session.not_recorded(1, error)
    assert answers(bob) == [(1, "backend_unavailable", "REOFFER", True)]
    assert (bob.acks(), refusals(successor(bob))) == ([1], [(1, 1, "backend_unavailable")])


def test_topic_that_takes_nothing_refuses_its_own_messages_only() -> None:
    bob = Terminal()
    bob.sink.is_ill = True
    bob.sink.takes = lambda topic, key: topic != "trading-signals"  # type: ignore[method-assign]
    bob.send("trading_signal", signal(), sequence=1)
    bob.send(sequence=2)
    bob.sink.deliver()
    [nack] = bob.heard("gateway.nack")
    assert answers(bob) == [(1, "backend_unavailable", "REOFFER", True)]
    assert (nack.retry_after_ms, bob.acks()[-1], bob.peer.closed) == (2_000, 2, None)


def test_harmless_quirk_is_answered_and_neither_kept_nor_held_against_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    bob = Terminal()

    def check(*_: object) -> bytes:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, "an empty batch", harmless=True)

    monkeypatch.setattr(bob.context.routes["tick_data"], "check", check)
    for sequence in range(1, 31):
        bob.send(sequence=sequence)
    assert bob.acks()[-1] == 30
    assert (bob.abusers, bob.sink.in_flight, bob.conduct.errors) == ([], 0, 0)


# --- Where a stream goes on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "heard", "first"), [(40, 40, 41), (40, 38, 41), (40, 52, 53), (0, 52, 53), (0, 0, 1)]
)
def test_client_that_says_what_it_has_heard_goes_on_behind_it(known: int, heard: int, first: int) -> None:
    bob = Terminal(position=StreamPosition(known), heard=heard)
    bob.send(sequence=first + 1)
    assert answers(bob) == [(first + 1, "sequence_gap", "RESEND", False)]
    bob.send(sequence=first)
    bob.sink.deliver()
    assert bob.acks()[-1] == first


def test_client_that_counts_from_one_again_is_told_and_nothing_of_it_is_dropped() -> None:
    bob = Terminal(position=StreamPosition(40, writer=""))
    for sequence in (1, 2):
        bob.send("trading_signal", signal(), sequence=sequence)
    bob.sink.deliver()
    [notice] = bob.heard("gateway.notice")
    assert (notice.code, notice.detail["stream_writer"]) == ("stream_restarted", "~c0ffee")
    assert [(r.sequence, r.stream_writer) for r in bob.records("trading-signals")] == [(1, "~c0ffee"), (2, "~c0ffee")]
    assert (answers(bob), bob.acks()[-1]) == ([], 2)
    assert bob.restarted == [bob.session]


def test_client_that_says_what_it_has_heard_does_not_begin_anew() -> None:
    bob = Terminal(position=StreamPosition(40), heard=0)
    bob.send(sequence=1)
    assert answers(bob) == [(1, "duplicate", "FINAL", True)]
    assert bob.restarted == []


@pytest.mark.parametrize("frame", ['{"message_type":"tick_data","sequence":1,"ticks":[,]}', b"\xff\xff"])
def test_client_that_begins_anew_with_an_unreadable_frame_is_known_as_such(frame: bytes | str) -> None:
    bob = Terminal(position=StreamPosition(40))
    bob.frame(frame)
    bob.send(sequence=2)
    bob.sink.deliver()
    assert [r.stream_writer for r in bob.records("tick-data")] == ["~c0ffee"]
    assert (answers(bob), bob.acks()[-1]) == ([(1, "malformed", "FINAL", True)], 2)


@pytest.mark.parametrize("settled", ["recorded", "refused"])
def test_client_that_goes_on_is_not_taken_for_one_that_begins_anew(settled: str) -> None:
    """What it sends again is settled while it is on the way: when it was welcomed, nothing was."""
    first = Terminal()
    for sequence in (1, 2, 3):
        first.send("trading_signal", signal(), sequence=sequence)
    bob = successor(first, heard=None)
    if settled == "recorded":
        first.sink.deliver(2)
    else:
        for sequence in (1, 2):
            first.session.not_recorded(sequence, MessageRefused(NackCode.TOO_LARGE, "too large"))
    for sequence in (1, 2, 3):
        bob.send("trading_signal", signal(), sequence=sequence)
    assert (bob.heard("gateway.notice"), bob.restarted, bob.sink.in_flight) == ([], [], 0)
    code = "duplicate" if settled == "recorded" else "too_large"
    assert answers(bob)[-2:] == [(1, code, "FINAL", True), (2, code, "FINAL", True)]
    bob.send("trading_signal", signal(), sequence=4)
    first.sink.deliver()
    bob.sink.deliver()
    assert bob.acks()[-1] == 4


@pytest.mark.parametrize("unread", [1, 2, 5])
def test_unreadable_frames_before_a_jump_are_refused_under_their_numbers(unread: int) -> None:
    """As of a client that goes on where the gateway has lost its record of the stream."""
    bob = Terminal()
    for _ in range(unread):
        bob.frame(b"\xff\xff")
    bob.send(sequence=20)
    bob.sink.deliver()
    told = [answer for answer in answers(bob) if answer[0]]
    assert told == [(number, "malformed", "FINAL", True) for number in range(20 - unread, 20)]
    assert bob.acks()[-1] == 20
    [notice] = bob.heard("gateway.notice")
    assert (notice.code, f"up to {19 - unread} " in notice.reason) == ("sequence_jump", True)
    assert refusals(successor(bob, heard=19 - unread)) == [(20 - unread, 19, "malformed")]


def test_jump_behind_unreadable_frames_is_not_passed_over_before_kafka_has_them() -> None:
    bob = Terminal()
    bob.frame(b"\xff\xff")
    bob.send(sequence=9)
    assert bob.session.position.unsettled() == [8, 9]
    bob.sink.fail()
    assert bob.acks() == [7], "8 and 9 are nowhere"


def test_client_that_jumps_is_told_and_what_is_in_flight_is_waited_for() -> None:
    first = Terminal()
    for sequence in range(1, 6):
        first.send(sequence=sequence)
    bob = successor(first)
    bob.send(sequence=9)
    bob.sink.deliver()
    [notice] = bob.heard("gateway.notice")
    assert (notice.code, dict(notice.detail)) == ("sequence_jump", {"expected": "6", "sequence": "9"})
    assert bob.acks() == []
    first.sink.fail()
    assert first.session.position.acknowledged == 0
    again = successor(bob)
    assert refusals(again) == []
    assert again.session.position.acknowledged == 0, "1 to 5 are nowhere"


@pytest.mark.parametrize("given", ["", "eve"])
def test_records_carry_the_writer_that_the_gateway_knows(given: str) -> None:
    bob = Terminal(position=StreamPosition(writer="journal-7"))
    bob.send(sequence=1, stream_writer=given)
    bob.sink.deliver()
    assert [record.stream_writer for record in bob.records("tick-data")] == ["journal-7"]


# --- Order ------------------------------------------------------------------------------------------------------------


def spent(bob: Terminal, *, left: float = 1.0) -> None:
    """``left`` messages are in the bucket, and one more comes after ten seconds."""
    bob.bucket.change(0.1, left)


def test_ordered_messages_behind_a_refused_one_wait_until_the_client_has_heard() -> None:
    bob = Terminal(heard=0)
    spent(bob)
    bob.send("trading_signal", signal(), sequence=1)
    bob.send("trading_signal", signal(), sequence=2)
    bob.now += 100.0
    bob.send("trading_signal", signal(), sequence=3)
    bob.send("user_event", payloads_pb2.UserEvent(event_type="x"), sequence=4)
    assert answers(bob) == [(s, "rate_limited", "REOFFER", True) for s in (2, 3, 4)]
    bob.sink.deliver()
    bob.send("gateway.ping", control_pb2.Ping(heard_sequence=3))
    bob.send("trading_signal", signal(), sequence=5)
    assert answers(bob)[3:] == [(5, "rate_limited", "REOFFER", True)], "4 was refused and not heard of"
    bob.send("gateway.ping", control_pb2.Ping(heard_sequence=5))
    bob.send("trading_signal", signal(), sequence=6)
    bob.sink.deliver()
    assert [record.sequence for record in bob.records("trading-signals")] == [1, 6]
    assert bob.acks()[-1] == 6


def test_messages_that_are_held_back_cost_no_rate() -> None:
    bob = Terminal(heard=0)
    spent(bob)
    for sequence in range(1, 12):
        bob.send("trading_signal", signal(), sequence=sequence)
    bob.now += 10.0
    bob.send("gateway.ping", control_pb2.Ping(heard_sequence=11))
    bob.send("trading_signal", signal(), sequence=12)
    bob.sink.deliver()
    assert [record.sequence for record in bob.records("trading-signals")] == [1, 12]


def test_ticks_are_not_held_back_and_hold_nothing_back() -> None:
    bob = Terminal(heard=0)
    spent(bob)
    bob.send(sequence=1)
    bob.send(sequence=2)
    bob.now += 20.0
    bob.send("trading_signal", signal(), sequence=3)
    bob.send("trading_signal", signal(), sequence=4)
    bob.now += 20.0
    bob.send(sequence=5)
    assert [sequence for sequence, *_ in answers(bob)] == [2, 4]


def test_client_that_does_not_say_what_it_has_heard_is_never_held_back() -> None:
    bob = Terminal()
    spent(bob)
    for sequence in (1, 2):
        bob.send("trading_signal", signal(), sequence=sequence)
    bob.now += 10.0
    bob.send("trading_signal", signal(), sequence=3)
    assert [sequence for sequence, *_ in answers(bob)] == [2]


def test_connection_begins_held_back_while_a_refusal_was_not_heard_that_comes_again() -> None:
    bob = Terminal(heard=0)
    spent(bob)
    for sequence in (1, 2):
        bob.send("trading_signal", signal(), sequence=sequence)
    bob.sink.deliver()
    for heard, refused in ((1, [3]), (2, [])):
        # A copy, as another process reads it.
        position = StreamPosition.from_text(bob.session.position.to_text())
        again = Terminal(heard=heard, position=position)
        again.send("trading_signal", signal(), sequence=3)
        assert [sequence for sequence, *_ in answers(again)] == refused
        again.send("gateway.ping", control_pb2.Ping(heard_sequence=3))
        again.send("trading_signal", signal(), sequence=4)
        again.sink.deliver()
        assert [record.sequence for record in again.records("trading-signals")][-1] == 4


def test_final_refusal_holds_nothing_back() -> None:
    bob = Terminal(heard=0)
    bob.send("trading_signal", signal("BTCUSD"), sequence=1)
    bob.send("trading_signal", signal(), sequence=2)
    assert [sequence for sequence, *_ in answers(bob)] == [1]


@given(
    kinds=st.lists(st.sampled_from(["trading_signal", "tick_data"]), min_size=1, max_size=25),
    pauses=st.lists(st.sampled_from([0.0, 0.0, 1.0]), min_size=25, max_size=25),
    burst=st.integers(1, 4),
)
def test_client_that_offers_what_was_refused_anew_keeps_the_order(
    kinds: list[str], pauses: list[float], burst: int
) -> None:
    """Whatever is refused meanwhile: the signals come to Kafka in the order in which they were first sent."""
    bob = Terminal(heard=0)
    bob.bucket.change(1.0, float(burst))
    content: dict[int, str] = {}
    waiting = [(kind, f"{number}") for number, kind in enumerate(kinds)]
    sequence = told = 0
    for _ in range(200):
        if not waiting:
            break
        for kind, name in waiting:
            bob.now += pauses[sequence % 25]
            sequence += 1
            content[sequence] = name
            payload = signal(signal_id=name) if kind == "trading_signal" else ticks()
            bob.send(kind, payload, sequence=sequence)
        bob.sink.deliver()
        kind_of = {f"{number}": kind for number, kind in enumerate(kinds)}
        refused = [content[s] for s, *_ in answers(bob)[told:]]
        told += len(refused)
        waiting = [(kind_of[name], name) for name in refused]
        bob.now += 1.0
        bob.send("gateway.ping", control_pb2.Ping(heard_sequence=sequence))
    assert waiting == []
    names = [payloads_pb2.TradingSignal.FromString(r.payload).signal_id for r in bob.records("trading-signals")]
    assert names == [f"{number}" for number, kind in enumerate(kinds) if kind == "trading_signal"]


@pytest.mark.parametrize("count", [1, 7, 50, 160])
def test_client_that_waits_for_the_longest_hint_needs_one_round_for_each_burst(count: int) -> None:
    """However little it spreads what it sends: a hint for one message alone would have all the others refused again."""
    bob = Terminal(heard=0)
    bob.bucket.change(50.0, 50.0)
    for _ in range(50):
        bob.send("tick_data", ticks())
    waiting, sequence, rounds = count, 0, 0
    while waiting:
        known = len(bob.heard("gateway.nack"))
        for _ in range(waiting):
            sequence += 1
            bob.send("trading_signal", signal(), sequence=sequence)
        bob.sink.deliver()
        hints = [nack.retry_after_ms for nack in bob.heard("gateway.nack")[known:]]
        waiting, rounds = len(hints), rounds + 1
        bob.now += max(hints, default=0) / 1000
        bob.send("gateway.ping", control_pb2.Ping(heard_sequence=sequence))
    assert len(bob.records("trading-signals")) == count
    # The first one found the bucket empty.
    assert rounds == 1 + -(-count // 50)


# --- What costs nothing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message_type", "at_once", "seconds"), [("gateway.ping", 20, 0.2), ("gateway.refresh", 3, 5.0)]
)
def test_control_messages_cost_no_rate_of_the_plan_and_have_a_bound_of_their_own(
    message_type: str, at_once: int, seconds: float
) -> None:
    bob = Terminal()
    spent(bob, left=2.0)
    payload = control_pb2.Refresh(token="good") if message_type == "gateway.refresh" else control_pb2.Ping()
    for _ in range(at_once):
        bob.send(message_type, payload)
    assert answers(bob) == []
    bob.send(message_type, payload)
    [nack] = bob.heard("gateway.nack")
    assert (nack.sequence, nack.code, nack.retry_after_ms) == (0, "rate_limited", pytest.approx(seconds * 1000, abs=2))
    bob.now += seconds + 0.01
    bob.send(message_type, payload)
    assert len(bob.heard("gateway.nack")) == 1
    bob.send(sequence=1)
    assert bob.sink.in_flight == 1


def test_message_that_is_sent_again_costs_no_rate() -> None:
    bob = Terminal()
    spent(bob, left=2.0)
    bob.send(sequence=1)
    for _ in range(50):
        bob.send(sequence=1)
    bob.send(sequence=2)
    bob.sink.deliver()
    assert [record.sequence for record in bob.records("tick-data")] == [1, 2]


@pytest.mark.parametrize("text", ["a", "é", "漢"])
def test_volume_is_the_bytes_that_came_once_and_only_of_what_was_delivered(text: str) -> None:
    bob = Terminal(form=JSON)
    payload = {"event_type": "x", "attributes": {"note": text * 10}}

    def frame(sequence: int) -> str:
        message = {"message_type": "user_event", "sequence": sequence, "payload": payload}
        return json.dumps(message, ensure_ascii=False)

    bob.frame(frame(1))
    assert (bob.volume.messages, bob.volume.size) == (0, 0)
    bob.sink.fail()
    again = Terminal(form=JSON, position=bob.session.position)
    again.frame(frame(1))
    again.sink.deliver()
    assert (bob.volume.messages, bob.volume.size) == (0, 0)
    assert (again.volume.messages, again.volume.size) == (1, len(frame(1).encode()))
    assert again.context.counts.bytes_received == len(frame(1).encode())


def test_refused_and_kept_frames_use_no_volume() -> None:
    bob = Terminal()
    bob.send("nonsense", sequence=1)
    bob.send(payload=ticks("BTCUSD"), sequence=2)
    bob.frame(b"\xff")
    bob.sink.deliver()
    assert (bob.volume.messages, bob.volume.size) == (0, 0)


# --- All of it together -----------------------------------------------------------------------------------------------

DEEDS = st.sampled_from(
    ["good", "pair", "type", "broken", "nameless", "signal", "deliver", "deliver all", "fail", "reset"]
)


@given(deeds=st.lists(DEEDS, max_size=40))
def test_after_any_history_every_sequence_is_in_kafka_or_known_as_refused(deeds: list[str]) -> None:
    """Of a client that hears nothing but welcomes, and sends again what they do not speak of."""
    bob = Terminal(heard=0)
    sent: list[tuple[str, int]] = []
    records: set[int] = set()

    def give(kind: str, sequence: int) -> None:
        if kind == "pair":
            bob.send(payload=ticks("BTCUSD"), sequence=sequence)
        elif kind == "type":
            bob.send("nonsense", sequence=sequence)
        elif kind == "broken":
            bob.frame(f'{{"message_type":"tick_data","sequence":{sequence},"ticks":[1,]')
        elif kind == "nameless":
            bob.frame(b"\xff\xff")
        elif kind == "signal":
            bob.send("trading_signal", signal(), sequence=sequence)
        else:
            bob.send(sequence=sequence)

    def reconnect() -> None:
        nonlocal bob
        position = StreamPosition.from_text(bob.session.position.to_text())
        position.rewind()
        bob = Terminal(heard=0, position=position)
        bob.bucket.change(1e6, 1e6)
        for kind, sequence in sent[position.acknowledged :]:
            if sequence not in position.refused:
                give(kind, sequence)

    bob.bucket.change(1e6, 1e6)
    for deed in [*deeds, "reset", "deliver all"]:
        if deed.startswith("deliver"):
            bob.sink.deliver(None if deed == "deliver all" else 1)
            records |= {r.sequence for topic in ("tick-data", "trading-signals") for r in bob.records(topic)}
        elif deed == "fail":
            bob.sink.fail()
            if bob.session.closed:
                reconnect()
        elif deed == "reset":
            bob.sink.deliver(0)
            reconnect()
        else:
            sent.append((deed, len(sent) + 1))
            give(deed, len(sent))
    # One more, so that a nameless frame at the end is seen to be missing.
    sent.append(("good", len(sent) + 1))
    give("good", len(sent))
    bob.sink.deliver()
    records |= {r.sequence for topic in ("tick-data", "trading-signals") for r in bob.records(topic)}
    position = bob.session.position
    assert position.acknowledged == len(sent)
    for kind, sequence in sent:
        is_good = kind in ("good", "signal")
        assert (sequence in records) == is_good, (kind, sequence)
        assert (sequence in position.refused) != is_good, (kind, sequence)
        if not is_good:
            refusal = position.refused.get(sequence)
            assert refusal is not None and refusal.kept == (refusal.code in KEPT_REFUSALS)


def test_largest_sequence_of_a_resumed_stream_is_exact() -> None:
    bob = Terminal(heard=SEQUENCE_LIMIT - 1)
    bob.send(sequence=SEQUENCE_LIMIT)
    bob.sink.deliver()
    assert bob.acks() == [SEQUENCE_LIMIT]
