"""Whose messages are mostly invalid, or who floods, is let go; nobody else ever is (streaming.core.breaker)."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.core.breaker import (
    BAN_BASE,
    BAN_LIMIT,
    FLOOD_FACTOR,
    MINIMUM_VOLUME,
    PATIENCE,
    WINDOW,
    Conduct,
    Verdict,
    ban_seconds,
)
from tests.streaming.core.cast import Terminal, ticks

RATE = 50.0


class Sender:
    """Sends into a conduct as a session counts it, and looks once a second."""

    def __init__(self) -> None:
        self.conduct = Conduct(0.0)
        self.now = 0.0
        # Seconds at which it was found certain at once, and what each look said.
        self.certain: list[float] = []
        self.verdicts: list[tuple[float, Verdict]] = []

    def message(self, *, bad: bool = False, over: bool = False) -> bool:
        self.conduct.messages += 1
        if over:
            self.conduct.over_rate += 1
        elif bad and self.conduct.error():
            self.certain.append(self.now)
            return True
        return False

    def second(self, messages: Iterator[bool], number: int) -> None:
        for _ in range(number):
            self.message(bad=next(messages))
        self.look()

    def look(self, rate: float = RATE) -> Verdict | None:
        self.now += 1.0
        verdict = self.conduct.look(self.now, rate)
        if verdict is not None:
            self.verdicts.append((self.now, verdict))
        return verdict

    @property
    def is_let_go(self) -> bool:
        return bool(self.certain or self.verdicts)


def mixture(percent: int) -> Iterator[bool]:
    """Bad messages spread evenly among the good ones: the n-th is bad when the share would fall behind without it."""
    return ((n + 1) * percent // 100 > n * percent // 100 for n in count())


# --- Errors -----------------------------------------------------------------------------------------------------------


def test_user_who_sends_nothing_valid_is_let_go_at_the_twentieth_message() -> None:
    sender = Sender()
    assert [sender.message(bad=True) for _ in range(MINIMUM_VOLUME)] == [False] * (MINIMUM_VOLUME - 1) + [True]


@pytest.mark.parametrize(("number", "is_let_go"), [(MINIMUM_VOLUME - 1, False), (MINIMUM_VOLUME, True)])
def test_too_few_messages_prove_nothing_however_long_nobody_sends_more(number: int, is_let_go: bool) -> None:
    sender = Sender()
    for _ in range(number):
        sender.message(bad=True)
    for _ in range(120):
        sender.look()
    assert sender.is_let_go == is_let_go


def test_one_bad_message_of_one_lets_nobody_go() -> None:
    sender = Sender()
    assert not sender.message(bad=True)
    for _ in range(120):
        sender.look()
    assert not sender.is_let_go


def test_slightly_more_than_half_is_let_go_after_the_patience_and_not_before() -> None:
    sender, messages = Sender(), mixture(51)
    above_since = 0.0
    while not sender.verdicts:
        sender.second(messages, 20)
        total, errors, _ = sender.conduct.window()
        if not above_since and errors * 2 > total:
            above_since = sender.now
        assert sender.now < 2 * WINDOW
    [(at, verdict)] = sender.verdicts
    assert verdict is Verdict.ERRORS
    assert at - above_since == PATIENCE
    # Never for certain: 51 % is what a fair coin gives now and then.
    assert not sender.certain


@pytest.mark.parametrize("percent", [0, 1, 25, 49, 50])
@pytest.mark.parametrize("rate", [1, 7, 20, 50])
def test_half_or_less_evenly_mixed_is_never_let_go(percent: int, rate: int) -> None:
    sender, messages = Sender(), mixture(percent)
    for _ in range(300):
        sender.second(messages, rate)
    assert not sender.is_let_go


@given(
    seconds=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=130).map(
        lambda rows: [(good, min(bad, good)) for good, bad in rows]
    )
)
def test_nobody_whose_bad_messages_follow_as_many_good_ones_is_ever_let_go(seconds: list[tuple[int, int]]) -> None:
    sender = Sender()
    for good, bad in seconds:
        for _ in range(good):
            sender.message()
        for _ in range(bad):
            sender.message(bad=True)
        sender.look()
    assert not sender.is_let_go


@given(rate=st.integers(3, 60), percent=st.integers(90, 100))
def test_nearly_all_bad_is_let_go_within_a_window_at_any_rate(rate: int, percent: int) -> None:
    sender, messages = Sender(), mixture(percent)
    while not sender.is_let_go:
        sender.second(messages, rate)
        assert sender.now <= WINDOW


def test_messages_over_the_rate_are_neither_good_nor_bad() -> None:
    sender = Sender()
    # They neither hide the bad ones ...
    for _ in range(200):
        sender.message(over=True)
    assert [sender.message(bad=True) for _ in range(MINIMUM_VOLUME)][-1]
    # ... nor make up the volume that proves something.
    other = Sender()
    for _ in range(MINIMUM_VOLUME - 1):
        other.message(bad=True)
    for _ in range(200):
        other.message(over=True)
    for _ in range(120):
        other.look()
    assert not other.is_let_go


def test_messages_of_more_than_a_minute_ago_count_no_more() -> None:
    sender = Sender()
    for _ in range(MINIMUM_VOLUME - 1):
        sender.message(bad=True)
    for _ in range(int(WINDOW)):
        sender.look()
    assert sender.conduct.window() == (MINIMUM_VOLUME - 1, MINIMUM_VOLUME - 1, 0)
    sender.look()
    assert sender.conduct.window() == (0, 0, 0)
    assert sender.conduct.is_quiet
    assert [sender.message(bad=True) for _ in range(MINIMUM_VOLUME)].index(True) == MINIMUM_VOLUME - 1


def test_hour_of_good_messages_does_not_hide_a_bad_minute() -> None:
    sender = Sender()
    for _ in range(3600):
        sender.second(mixture(0), 10)
    bad = mixture(100)
    for _ in range(int(WINDOW)):
        sender.second(bad, 10)
    assert sender.is_let_go


def test_user_who_falls_back_to_half_is_given_the_whole_patience_again() -> None:
    sender = Sender()
    for _ in range(30):
        sender.message()
    for _ in range(31):
        sender.message(bad=True)
    for _ in range(int(PATIENCE)):
        assert sender.look() is None
    sender.message()
    assert sender.look() is None
    sender.message(bad=True)
    for _ in range(int(PATIENCE)):
        assert sender.look() is None
    assert sender.look() is Verdict.ERRORS


def test_forgiven_user_begins_anew() -> None:
    sender = Sender()
    for _ in range(MINIMUM_VOLUME):
        sender.message(bad=True)
    sender.conduct.forgive(sender.now)
    assert sender.conduct.window() == (0, 0, 0)
    assert sender.conduct.is_quiet
    for _ in range(MINIMUM_VOLUME - 1):
        assert not sender.message(bad=True)
    assert sender.message(bad=True)


def test_user_is_quiet_only_when_a_look_would_find_nothing_new() -> None:
    sender = Sender()
    quiet = [sender.conduct.is_quiet]
    sender.message()
    quiet.append(sender.conduct.is_quiet)
    for _ in range(int(WINDOW) + 1):
        sender.look()
        quiet.append(sender.conduct.is_quiet)
    assert quiet == [True, False] + [False] * int(WINDOW) + [True]


def test_memory_of_a_user_does_not_grow_with_time() -> None:
    sender = Sender()
    for _ in range(1_000):
        sender.second(mixture(0), 1)
    assert len(sender.conduct._snapshots) <= WINDOW + 1


# --- Flooding ---------------------------------------------------------------------------------------------------------


def flood(sender: Sender, factor: float, seconds: int, rate: float = RATE) -> None:
    """``factor`` times the rate for so long; what is above the rate is refused."""
    for _ in range(seconds):
        for _ in range(round(rate)):
            sender.message()
        for _ in range(round(rate * (factor - 1))):
            sender.message(over=True)
        sender.look(rate)


@pytest.mark.parametrize(
    ("factor", "seconds", "verdicts"),
    # Exactly nine minutes' worth beyond the allowance is not above it.
    [(10.02, 59, []), (10.0, 60, []), (10.02, 60, [(60.0, Verdict.FLOODING)])],
)
def test_more_than_ten_times_the_rate_is_flooding_after_a_minute_and_not_before(
    factor: float, seconds: int, verdicts: list[tuple[float, Verdict]]
) -> None:
    sender = Sender()
    flood(sender, factor, seconds)
    assert sender.verdicts == verdicts


@pytest.mark.parametrize("factor", [1.0, 1.5, 5.0, 9.9])
def test_less_than_ten_times_the_rate_is_never_flooding(factor: float) -> None:
    sender = Sender()
    flood(sender, factor, 300)
    assert not sender.verdicts


def test_burst_of_a_backlog_is_no_flooding() -> None:
    sender = Sender()
    for _ in range(int(FLOOD_FACTOR * RATE * WINDOW)):
        sender.message(over=True)
    for _ in range(120):
        sender.look()
    assert not sender.verdicts


def test_rate_that_fell_meanwhile_does_not_make_a_flood_of_what_was_sent_before() -> None:
    sender = Sender()
    flood(sender, 2.0, 30)
    for _ in range(29):
        assert sender.look(0.0) is None


# --- What a session counts --------------------------------------------------------------------------------------------


def test_session_reports_abuse_at_the_twentieth_invalid_message_and_goes_on_answering() -> None:
    terminal = Terminal()
    for number in range(1, 20):
        terminal.send("nonsense", sequence=number)
    assert terminal.abusers == []
    terminal.frame(b"\xff")
    assert terminal.abusers == [terminal.session]
    terminal.sink.deliver()
    assert len(terminal.nacks()) == 20


@pytest.mark.parametrize(
    "act",
    [
        lambda terminal, n: terminal.send(sequence=n),
        lambda terminal, n: terminal.frame(b"\xff"),
        lambda terminal, n: terminal.frame("{"),
        lambda terminal, n: terminal.send("nonsense"),
    ],
    ids=["message", "binary", "text", "unknown"],
)
def test_whatever_comes_over_the_rate_counts_as_over_the_rate_and_as_no_error(
    act: Callable[[Terminal, int], None],
) -> None:
    terminal = Terminal()
    terminal.bucket.change(0.001, 1.0)
    terminal.send(sequence=1)
    terminal.sink.deliver()
    for number in range(2, 42):
        act(terminal, number)
    assert terminal.conduct.window() == (41, 0, 40)
    assert terminal.abusers == []


@pytest.mark.parametrize(
    ("act", "free"),
    [
        # What a connection may ask at once.
        (lambda terminal: terminal.send("gateway.ping", b""), 20),
        # What a client may have on its way twice, as after a reconnect.
        (lambda terminal: terminal.send(sequence=1), 2 * 256),
    ],
    ids=["ping", "repetition"],
)
def test_what_costs_no_rate_counts_as_over_the_rate_above_its_own_bound(
    act: Callable[[Terminal], None], free: int
) -> None:
    terminal = Terminal()
    terminal.bucket.change(0.001, 1.0)
    terminal.send(sequence=1)
    terminal.sink.deliver()
    for _ in range(free):
        act(terminal)
    assert terminal.conduct.window() == (1 + free, 0, 0)
    for _ in range(7):
        act(terminal)
    assert terminal.conduct.window() == (8 + free, 0, 7)


def test_messages_refused_for_the_plan_are_no_errors() -> None:
    terminal = Terminal()
    for number in range(1, 41):
        terminal.send(payload=ticks("GBPUSD"), sequence=number)
    assert {code for _, code in terminal.nacks()} == {"pair_not_active"}
    assert terminal.conduct.window() == (40, 0, 0)


# --- Bans -------------------------------------------------------------------------------------------------------------


def test_each_ban_is_twice_as_long_as_the_one_before_up_to_an_hour() -> None:
    lengths = [ban_seconds(repeat, 0.5) for repeat in range(1, 10)]
    assert lengths == [30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0]


@given(repeat=st.integers(-5, 10_000), chance=st.floats(0.0, 1.0))
def test_ban_ends_within_a_fifth_of_its_length_and_never_later_than_an_hour(repeat: int, chance: float) -> None:
    seconds = ban_seconds(repeat, chance)
    middle = min(BAN_BASE * 2.0 ** min(max(0, repeat - 1), 16), BAN_LIMIT * 2)
    assert min(BAN_LIMIT, 0.8 * middle) - 1e-6 <= seconds <= min(BAN_LIMIT, 1.2 * middle) + 1e-6


@given(repeat=st.integers(1, 40), chance=st.floats(0.0, 1.0))
def test_next_ban_is_never_shorter_by_the_same_chance(repeat: int, chance: float) -> None:
    assert ban_seconds(repeat + 1, chance) >= ban_seconds(repeat, chance)


def test_bans_of_many_at_once_end_apart() -> None:
    assert (ban_seconds(1, 0.0), ban_seconds(1, 1.0)) == pytest.approx((24.0, 36.0))
