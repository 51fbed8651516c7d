"""Typed readers of the environment. Room: gateway_project (composition).

Grammar of our own settings: ``*_LIMIT`` is a count or bytes, ``*_RATE_LIMIT`` is a second, durations carry their unit
in the value ("20ms", "10s", "5m", "12h", "7d").
"""

import os
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_DECIMAL = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,2})?")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})


class Env:
    """Reads settings and remembers each name it was asked for, so that a misspelt one can be reported.

    Every reader raises ImproperlyConfigured, naming the variable and the form it should have.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self.known: set[str] = set()

    def text(self, name: str, default: str = "") -> str:
        """The value, or the content of the file that ``NAME_FILE`` points at (for secrets kept in files)."""
        self.known.update((name, f"{name}_FILE"))
        path = self._environ.get(f"{name}_FILE", "")
        if path:
            try:
                return Path(path).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ImproperlyConfigured(f"{name}_FILE names a file that cannot be read: {error.strerror}") from error
        return self._environ.get(name, "").strip() or default

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.text(name).lower()
        if not value:
            return default
        if value in _TRUE or value in _FALSE:
            return value in _TRUE
        raise ImproperlyConfigured(f"{name}={value!r} is not a yes or no: use 1 or 0")

    def count(self, name: str, default: int, *, minimum: int = 0) -> int:
        value = self.text(name)
        if not value:
            return default
        if not value.isdecimal() or int(value) < minimum:
            raise ImproperlyConfigured(f"{name}={value!r} is not a whole number of at least {minimum}")
        return int(value)

    def rate(self, name: str, default: float) -> float:
        """Events a second, above 0."""
        value = self.text(name)
        if not value:
            return default
        try:
            rate = float(value)
        except ValueError:
            rate = 0.0
        if not 0 < rate < float("inf"):
            raise ImproperlyConfigured(f"{name}={value!r} is not a rate a second: use a number above 0")
        return rate

    def decimal(self, name: str, default: str) -> Decimal:
        """At least 0, written with a point: what is to be exact, as a tax rate."""
        value = self.text(name, default)
        if not _DECIMAL.fullmatch(value):
            raise ImproperlyConfigured(f"{name}={value!r} is not a number of at least 0: write it as in {default}")
        return Decimal(value)

    def duration(self, name: str, default: str) -> float:
        """Seconds."""
        value = self.text(name, default)
        match = _DURATION.fullmatch(value)
        if match is None:
            raise ImproperlyConfigured(
                f"{name}={value!r} is not a duration: use a number and ms, s, m, h or d, as in {default}"
            )
        return float(match[1]) * _UNITS[match[2]]

    def items(self, name: str, default: str = "") -> list[str]:
        """A comma-separated list without its empty parts."""
        return [part for part in (item.strip() for item in self.text(name, default).split(",")) if part]

    def table(self, name: str, default: str) -> dict[str, str]:
        """``key=value`` pairs separated by commas."""
        pairs: dict[str, str] = {}
        for item in self.items(name, default):
            key, separator, value = item.partition("=")
            if not separator or not key.strip() or not value.strip():
                raise ImproperlyConfigured(f"{name} holds {item!r}: use key=value pairs separated by commas")
            pairs[key.strip()] = value.strip()
        return pairs

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise ImproperlyConfigured(f"{name}={value!r} is not one of {', '.join(choices)}")
        return value

    def unknown(self, prefix: str = "GATEWAY_") -> list[str]:
        """Names with our prefix that nothing has asked for: most likely misspelt."""
        return sorted(name for name in self._environ if name.startswith(prefix) and name not in self.known)


def email_settings(url: str) -> dict[str, Any]:
    """Django's EMAIL_* for ``smtp+tls://user:password@host:587``, ``smtp+ssl://…:465`` or ``consolemail://``.

    The address is kept nowhere as a whole: it holds the password.
    """
    try:
        return dict(environ.Env.email_url_config(url))
    except (KeyError, ValueError) as error:
        raise ImproperlyConfigured(
            "GATEWAY_EMAIL_URL is not a mail server: use smtp+tls://user:password@host:587"
        ) from error
