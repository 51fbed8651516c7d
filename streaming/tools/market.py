"""Prices that move as a market's do, for simulated terminals. Room: streaming.tools."""

import random
import time
from collections.abc import Mapping

from trading_gateway_client import Tick, TradingSignal

_ACTIONS = ("BUY", "SELL", "CLOSE")


class Market:
    """A random walk for each symbol, relative steps of a few hundredths of a basis point a tick."""

    def __init__(self, symbols: Mapping[str, tuple[float, int]], seed: int) -> None:
        """``symbols``: name to first price in the quote currency and digits after the point."""
        self._random = random.Random(seed)
        self._symbols = list(symbols)
        self._digits = {name: digits for name, (_, digits) in symbols.items()}
        self._prices = {name: price for name, (price, _) in symbols.items()}
        self._turn = seed % max(1, len(self._symbols))

    def tick(self) -> Tick:
        """The next one of the next symbol, in turn."""
        symbol = self._next_symbol()
        digits = self._digits[symbol]
        price = self._prices[symbol] * (1 + self._random.gauss(0, 2e-6))
        self._prices[symbol] = price
        point: float = 10.0**-digits
        bid = round(price, digits)
        ask = round(bid + point * self._random.randint(1, 20), digits)
        return Tick(symbol=symbol, bid=bid, ask=ask, time_msc=time.time_ns() // 1_000_000, volume=1.0)

    def signal(self, number: int, account: str = "") -> TradingSignal:
        symbol = self._next_symbol()
        price = round(self._prices[symbol], self._digits[symbol])
        return TradingSignal(
            signal_id=f"sim-{number}",
            symbol=symbol,
            action=f"TRADE_ACTION_{self._random.choice(_ACTIONS)}",
            price=price,
            volume=0.1,
            account=account,
            time_msc=time.time_ns() // 1_000_000,
        )

    def _next_symbol(self) -> str:
        self._turn = (self._turn + 1) % len(self._symbols)
        return self._symbols[self._turn]
