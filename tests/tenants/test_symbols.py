"""What is typed for a pair: one symbol of a known form, several split, no doubles by case."""

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from tenants.demo_symbols import DEMO_SYMBOLS
from tenants.symbols import check_symbol, check_symbols, symbols_of, written

_SYMBOL = st.from_regex(r"[A-Z0-9#][A-Za-z0-9._#+\-&!/]{0,20}", fullmatch=True)


@pytest.mark.parametrize(
    "text",
    ["GBPUSD, USDJPY", "GBPUSD,USDJPY", "GBPUSD USDJPY", "GBPUSD\nUSDJPY", "GBPUSD\r\n\r\nUSDJPY", "GBPUSD;USDJPY",
     " GBPUSD ,; USDJPY,GBPUSD ", "GBPUSD\tUSDJPY", '"GBPUSD" USDJPY'],
)  # fmt: skip
def test_several_symbols_are_split_however_they_are_written(text: str) -> None:
    assert symbols_of(text) == ["GBPUSD", "USDJPY"]


@given(st.lists(st.one_of(_SYMBOL, st.just("Volatility 75 Index")), unique=True, max_size=5))
def test_symbols_are_read_back_as_they_are_written(symbols: list[str]) -> None:
    assert symbols_of(written(symbols)) == symbols


@pytest.mark.parametrize(
    "symbol",
    [*DEMO_SYMBOLS, "EURUSD.m", "EURUSDm", "#AAPL", "US30.cash", "BTCUSD_i", "EURUSD+", "EURUSD-ECN", "AAPL.US",
     "[SP500]", "XAU/USD", "S&P500", ".DE40Cash", "1INCHUSD", "Volatility 75 Index", "A", "A" * 32,
     "EURUSD-", "EUR-USD", "EURUSD.USD", "BTCUSD-PERPETUAL"],
)  # fmt: skip
def test_symbols_of_brokers_are_taken(symbol: str) -> None:
    check_symbol(symbol)


@pytest.mark.parametrize(
    ("symbol", "words"),
    [
        ("GBPUSD, USDJPY", "is no symbol"),
        ("GBP,USD", "is no symbol"),
        ("EUR€", "is no symbol"),
        ("EURUSD\n", "is no symbol"),
        (" EURUSD", "is no symbol"),
        ("---", "is no symbol"),
        ("", "is no symbol"),
        ("eurusd", "for instance EURUSD"),
        ("eurusd.m", "for instance EURUSD.m"),
        ("#aapl", "for instance #AAPL"),
        ("A" * 33, "too long"),
        ("EURUSD+GBPUSD", "more than one"),
        ("EURUSD/GBPUSD", "more than one"),
        ("eurusd&gbpusd.m", "more than one"),
        ("XAUUSD - EURUSD", "more than one"),
        ("EURUSD GBPUSD", "more than one"),
        ("EURUSD-GBPUSD-USDJPY", "more than one"),
    ],
)
def test_what_is_no_symbol_is_refused_in_words(symbol: str, words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        check_symbol(symbol)
    assert words in str(refused.value.messages)


def test_spellings_of_one_symbol_are_refused_and_an_old_double_stops_nothing() -> None:
    with pytest.raises(ValidationError, match=r"EURUSD\.m.*EURUSD\.M.*differ in case only"):
        check_symbols(["EURUSD.m", "EURUSD.M"])
    with pytest.raises(ValidationError, match="differ in case only"):
        check_symbols(["EURUSD.M"], held=["EURUSD.m"])
    check_symbols(["EURUSD", "eurusd", "GBPUSD"], held=["EURUSD", "eurusd"])
