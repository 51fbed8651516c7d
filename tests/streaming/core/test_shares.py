"""How the rate of a user is divided among the processes that serve the user (streaming.core.shares)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.core.shares import share_of

NAMES = ["a", "b", "c", "d", "e", "f"]
limits = st.floats(0.1, 1_000.0)
demands = st.lists(st.floats(0.0, 10_000.0), min_size=1, max_size=6).map(
    lambda values: dict(zip(NAMES, values, strict=False))
)


def parts_of(limit: float, asked: dict[str, float]) -> dict[str, float]:
    return {name: share_of(limit, asked, name) for name in asked}


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        ({"a": 100.0, "b": 100.0}, {"a": 25.0, "b": 25.0}),
        ({"a": 10.0, "b": 100.0}, {"a": 10.0, "b": 40.0}),
        ({"a": 10.0, "b": 20.0}, {"a": 20.0, "b": 30.0}),
        ({"a": 0.0, "b": 0.0}, {"a": 25.0, "b": 25.0}),
        ({"a": 0.0, "b": 50.0}, {"a": 0.0, "b": 50.0}),
        ({"a": 5.0, "b": 20.0, "c": 100.0}, {"a": 5.0, "b": 20.0, "c": 25.0}),
        ({"a": 5.0, "b": 100.0, "c": 100.0}, {"a": 5.0, "b": 22.5, "c": 22.5}),
    ],
)
def test_rate_of_fifty_is_divided_by_demand(asked: dict[str, float], parts: dict[str, float]) -> None:
    assert parts_of(50.0, asked) == pytest.approx(parts)


def test_process_that_is_alone_or_unknown_has_the_whole_limit() -> None:
    assert share_of(50.0, {}, "a") == 50.0
    assert share_of(50.0, {"a": 7.0}, "a") == 50.0
    assert share_of(50.0, {"b": 7.0, "c": 7.0}, "a") == 50.0


@given(limit=limits, asked=demands)
def test_all_parts_together_are_the_limit_and_none_is_negative(limit: float, asked: dict[str, float]) -> None:
    parts = parts_of(limit, asked)
    assert sum(parts.values()) == pytest.approx(limit)
    assert min(parts.values()) >= 0.0


@given(limit=limits, asked=demands)
def test_whoever_asks_for_less_than_an_equal_part_gets_it(limit: float, asked: dict[str, float]) -> None:
    for name, part in parts_of(limit, asked).items():
        assert part >= min(asked[name], limit / len(asked)) * (1 - 1e-9)


@given(limit=limits, asked=demands)
def test_nobody_gets_less_than_asked_for_while_another_has_more(limit: float, asked: dict[str, float]) -> None:
    parts = parts_of(limit, asked)
    for name, part in parts.items():
        if part < asked[name] * (1 - 1e-9):
            assert part >= max(parts.values()) * (1 - 1e-9)


@given(limit=limits, asked=demands, more=st.floats(0.0, 10_000.0))
def test_whoever_asks_for_more_never_gets_less_and_takes_from_no_smaller_part(
    limit: float, asked: dict[str, float], more: float
) -> None:
    before = parts_of(limit, asked)
    after = parts_of(limit, {**asked, "a": asked["a"] + more})
    assert after["a"] >= before["a"] - 1e-6 * limit
    for name in asked:
        if name != "a":
            assert after[name] <= before[name] + 1e-6 * limit


@given(low=limits, more=st.floats(0.0, 1_000.0), asked=demands)
def test_larger_limit_gives_nobody_less(low: float, more: float, asked: dict[str, float]) -> None:
    before, after = parts_of(low, asked), parts_of(low + more, asked)
    assert all(after[name] >= before[name] - 1e-6 * (low + more) for name in asked)


@given(limit=limits, asked=demands)
def test_order_in_which_the_reports_came_changes_nothing(limit: float, asked: dict[str, float]) -> None:
    assert parts_of(limit, dict(reversed(asked.items()))) == pytest.approx(parts_of(limit, asked))
