"""Who the simulated terminals are: of a file, made for load, or the demo's. Room: streaming.tools."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import jwt

from streaming.tools.simulator import Terminal
from trading_gateway_client import api_key_token, fixed_token

_API_KEY_PREFIX = "gwk_"


class TerminalsUnavailable(Exception):
    """The message says what is wrong with the file and what it should hold."""


def http_address(url: str) -> str:
    """The gateway's HTTP address beside a WebSocket URL."""
    parts = urlsplit(url)
    return f"{'https' if parts.scheme == 'wss' else 'http'}://{parts.netloc}"


def from_file(path: Path, count: int, url: str) -> list[Terminal]:
    """``count`` terminals, the credentials of the file in turn.

    A line holds one token or API key; what ``seed_bench --json`` prints will do as well. Raises TerminalsUnavailable.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TerminalsUnavailable(f"{path} cannot be read: {error}") from error
    credentials = _seeded(text) if text.lstrip().startswith("{") else [line.strip() for line in text.splitlines()]
    credentials = [credential for credential in credentials if credential]
    if not credentials:
        raise TerminalsUnavailable(f"{path} holds no token: one token or API key a line")
    return from_credentials([credentials[place % len(credentials)] for place in range(count)], url)


def from_credentials(credentials: list[str], url: str) -> list[Terminal]:
    return [
        Terminal(_subject(credential), api_key_token(http_address(url), credential))
        if credential.startswith(_API_KEY_PREFIX)
        else Terminal(_subject(credential), fixed_token(credential))
        for credential in credentials
    ]


def from_demo(secrets_file: Path, url: str) -> list[Terminal]:
    """One terminal for each demo user that has an API key; raises TerminalsUnavailable."""
    try:
        people = json.loads(secrets_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise TerminalsUnavailable("there are no demo users yet: run manage.py seed_demo first") from None
    return [
        Terminal(name, api_key_token(http_address(url), person["api_key"]))
        for name, person in people.items()
        if person["api_key"]
    ]


def _seeded(text: str) -> list[str]:
    try:
        return [user["token"] for user in json.loads(text)["users"]]
    except (ValueError, KeyError, TypeError):
        raise TerminalsUnavailable("the file is not what seed_bench --json prints") from None


def _subject(credential: str) -> str:
    """The user id in a token; an API key's user is known to the gateway only."""
    try:
        claims = jwt.decode(credential, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return "-"
    return str(claims.get("sub", "-"))
