"""How a broker's symbol is written, and how people write several of them. Room: tenants.

Symbols are the broker server's own names, case and all: EURUSD.m and EURUSDM are two. What is typed is therefore never
changed; what cannot be meant is refused in words.
"""

import re
from collections.abc import Collection

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

SYMBOL_LIMIT = 32
# A symbol with spaces stands in quotation marks.
_WRITTEN = re.compile(r'"([^"]*)"|([^\s,;"]+)')
_FORM = re.compile(r"[A-Za-z0-9 ._#+\-&!/()\[\]^$@%*=]+")
_FIRST = re.compile(r"[A-Za-z0-9]")
# Two pairs of currencies or metals in one, as EURUSD+GBPUSD: no broker has that.
_CURRENCY = (
    "(?:AUD|CAD|CHF|CNH|CZK|DKK|EUR|GBP|HKD|HUF|IDR|JPY|MXN|NOK|NZD|PLN|SEK|SGD|THB|TRY|USD|XAG|XAU|XPD|XPT|ZAR)"
)
_JOINED = re.compile(rf"{_CURRENCY}{{2}}[ &+\-/!._*=]+{_CURRENCY}{{2}}(?![A-Za-z0-9])", re.IGNORECASE)


def symbols_of(text: str) -> list[str]:
    """Each once, in the order written; commas, semicolons, spaces and line ends stand between them."""
    found = (quoted or plain for quoted, plain in _WRITTEN.findall(text))
    return list(dict.fromkeys(symbol.strip() for symbol in found if symbol.strip()))


def written(symbols: Collection[str]) -> str:
    """As ``symbols_of`` reads them."""
    return ", ".join(f'"{symbol}"' if " " in symbol else symbol for symbol in symbols)


def check_symbol(symbol: str) -> None:
    """Raises ValidationError, in words, for what no broker server calls a symbol."""
    if len(symbol) > SYMBOL_LIMIT:
        text = _("“%(symbol)s…” is too long for a symbol: separate symbols with commas")
        raise ValidationError(text % {"symbol": symbol[:SYMBOL_LIMIT]})
    first = _FIRST.search(symbol)
    if first is None or not _FORM.fullmatch(symbol) or symbol != symbol.strip():
        text = _("“%(symbol)s” is no symbol: symbols have letters, digits and . _ - + # & ! / as EURUSD.m or #AAPL")
        raise ValidationError(text % {"symbol": symbol})
    if _JOINED.match(symbol):
        raise ValidationError(
            _("“%(symbol)s” is more than one symbol: separate symbols with commas") % {"symbol": symbol}
        )
    if first[0].islower():
        text = _("“%(symbol)s” begins in lower case: write it as the broker server does, for instance %(upper)s")
        raise ValidationError(text % {"symbol": symbol, "upper": _capitalised(symbol)})


def check_symbols(symbols: Collection[str], held: Collection[str] = ()) -> None:
    """Raises ValidationError for the first one that is none, or is the same as another one but for its case.

    ``held``: what is active already, whatever its form.
    """
    spelt = {symbol.upper(): symbol for symbol in held}
    for symbol in symbols:
        if symbol in held:
            continue
        check_symbol(symbol)
        other = spelt.setdefault(symbol.upper(), symbol)
        if other != symbol:
            text = _("“%(one)s” and “%(other)s” differ in case only: keep the one that the broker server has")
            raise ValidationError(text % {"one": other, "other": symbol})


def _capitalised(symbol: str) -> str:
    """What was most likely meant: six letters are two currencies, what follows is the broker's."""
    return symbol[:6].upper() + symbol[6:] if symbol[:6].isalpha() else symbol.upper()
