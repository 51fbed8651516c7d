"""Forwarding headers are believed of trusted proxies and of nobody else, over HTTP and WebSocket."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from gateway_project.server import server_config
from streaming.wire.forwarded import ForwardedHeaders, networks
from tests.support.door import open_door
from tests.support.gateway import ROOT
from tests.support.production import production_environment

Event = dict[str, Any]
TRUSTED = ["10.0.0.1", "10.7.0.0/16", "2001:db8:1::/48", "fd00::7"]
PROXIES = ["10.0.0.1", "10.7.3.9", "::ffff:10.0.0.1", "2001:db8:1::9", "fd00:0:0:0::7"]
STRANGERS = ["10.0.0.2", "10.8.0.1", "203.0.113.7", "2001:db8:2::9", "fd00::8", "::ffff:10.0.0.2", "", "proxy.example"]
CLIENT = "198.51.100.4"
# What is told, and the client that is to be believed when a trusted proxy tells it ("" for: the proxy itself).
CHAINS: list[tuple[list[tuple[bytes, bytes]], str]] = [
    ([], ""),
    ([(b"x-forwarded-for", CLIENT.encode())], CLIENT),
    ([(b"X-Forwarded-For", CLIENT.encode())], CLIENT),
    ([(b"x-forwarded-for", b"1.2.3.4, 198.51.100.4")], CLIENT),
    ([(b"x-forwarded-for", b"1.2.3.4"), (b"x-forwarded-for", b"198.51.100.4")], CLIENT),
    ([(b"x-forwarded-for", b"1.2.3.4,198.51.100.4 , 10.7.0.9")], CLIENT),
    ([(b"x-forwarded-for", b"198.51.100.4:4711")], CLIENT),
    ([(b"x-forwarded-for", b"198.51.100.4:99999")], CLIENT),
    ([(b"x-forwarded-for", b"fe80::1%eth0")], "fe80::1"),
    ([(b"x-forwarded-for", b"fe80::1%<b>any text</b>")], "fe80::1"),
    ([(b"x-forwarded-for", b"198.51.100.4, ::ffff:10.0.0.1%eth0")], CLIENT),
    ([(b"x-forwarded-for", b"::ffff:198.51.100.4")], CLIENT),
    ([(b"x-forwarded-for", b"[2001:db8:2::5]:443")], "2001:db8:2::5"),
    ([(b"x-forwarded-for", b"1.2.3.4, 2001:DB8:2::5")], "2001:db8:2::5"),
    ([(b"x-forwarded-for", b"10.7.0.8, 10.0.0.1")], "10.7.0.8"),
    ([(b"x-forwarded-for", b"1.2.3.4, nonsense, 10.7.0.8")], "10.7.0.8"),
    ([(b"x-forwarded-for", b"1.2.3.4, unknown")], ""),
    ([(b"x-forwarded-for", b"")], ""),
    ([(b"x-forwarded-for", b" , ,")], ""),
    ([(b"x_forwarded_for", CLIENT.encode())], ""),
    ([(b"x-forwarded_for", CLIENT.encode())], ""),
    ([(b"x-real-ip", CLIENT.encode()), (b"forwarded", b"for=198.51.100.4;proto=https")], ""),
    ([(b"x-forwarded-for", "198.51.100.4\u00b2".encode("latin-1"))], ""),
]
SCHEMES: list[tuple[list[tuple[bytes, bytes]], bool | None]] = [
    ([], None),
    ([(b"x-forwarded-proto", b"https")], True),
    ([(b"X-Forwarded-Proto", b"HTTPS")], True),
    ([(b"x-forwarded-proto", b"wss")], True),
    ([(b"x-forwarded-proto", b"http")], False),
    ([(b"x-forwarded-proto", b"ws")], False),
    ([(b"x-forwarded-proto", b"https"), (b"x-forwarded-proto", b"http")], False),
    ([(b"x-forwarded-proto", b"https, http")], False),
    ([(b"x-forwarded-proto", b"http, https")], True),
    ([(b"x-forwarded-proto", b"ftp")], None),
    ([(b"x-forwarded-proto", b"")], None),
    ([(b"x_forwarded_proto", b"https")], None),
    ([(b"x-forwarded-ssl", b"on"), (b"x-forwarded-port", b"443"), (b"x-forwarded-host", b"evil.example")], None),
]
OWN = [(b"host", b"localhost"), (b"x-forward", b"kept"), (b"origin", b"https://localhost")]


async def seen(peer: str, told: list[tuple[bytes, bytes]], kind: str, *, secure: bool = False) -> Event:
    """The scope as the application gets it."""
    scopes: list[Event] = []

    async def application(scope: Event, _receive: Any, _send: Any) -> None:
        scopes.append(scope)

    plain, safe = ("ws", "wss") if kind == "websocket" else ("http", "https")
    scope = {"type": kind, "client": (peer, 55_555), "scheme": safe if secure else plain, "headers": [*OWN, *told]}
    await ForwardedHeaders(application, networks(TRUSTED))(scope, None, None)  # type: ignore[arg-type]
    return scopes[0]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("secure", [False, True])
async def test_client_and_scheme_are_what_a_trusted_proxy_says(kind: str, secure: bool) -> None:
    names = {"http": ("http", "https"), "websocket": ("ws", "wss")}[kind]
    for (chain, client), (schemes, is_safe), peer in itertools.product(CHAINS, SCHEMES, PROXIES):
        told = [*chain, *schemes]
        scope = await seen(peer, told, kind, secure=secure)
        assert scope["client"][0] == (client or peer), (peer, told)
        assert scope["scheme"] == names[secure if is_safe is None else is_safe], (peer, told)
        assert scope["headers"] == OWN


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_stranger_is_seen_as_it_came_whatever_it_tells(kind: str) -> None:
    for (chain, _), (schemes, _), peer in itertools.product(CHAINS, SCHEMES, STRANGERS):
        scope = await seen(peer, [*chain, *schemes], kind)
        assert scope["client"] == (peer, 55_555)
        assert scope["scheme"] in ("http", "ws")
        # Nobody further in can believe it either.
        assert scope["headers"] == OWN


async def test_server_on_a_unix_socket_believes_nobody() -> None:
    scopes: list[Event] = []

    async def application(scope: Event, _receive: Any, _send: Any) -> None:
        scopes.append(scope)

    scope = {"type": "http", "client": None, "scheme": "http", "headers": [(b"x-forwarded-for", b"1.2.3.4")]}
    await ForwardedHeaders(application, networks(["*"]))(scope, None, None)  # type: ignore[arg-type]
    assert (scopes[0]["client"], scopes[0]["headers"]) == (None, [])


@pytest.mark.parametrize("wrong", ["proxy.example", "10.0.0.0/33", "10.0.0", "", "10.0.0.1:80"])
def test_proxy_that_is_no_address_is_named(wrong: str) -> None:
    with pytest.raises(ValueError, match="neither an address nor a network"):
        networks(["10.0.0.1", wrong])


def test_network_may_be_written_by_any_of_its_addresses() -> None:
    assert networks(["10.7.3.9/16"]) == networks(["10.7.0.0/16"])


@pytest.mark.parametrize(("trusted", "address"), [(["127.0.0.1"], "198.51.100.4"), (["10.9.9.9"], "127.0.0.1")])
async def test_running_server_goes_by_its_setting(settings: Settings, trusted: list[str], address: str) -> None:
    settings.GATEWAY_TRUSTED_PROXIES = trusted
    told = b"X-Forwarded-For: 198.51.100.4\r\nX-Forwarded-Proto: https\r\nX_Forwarded_Proto: https\r\n"
    upgrade = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    with open_door() as door:
        await door.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + told + b"\r\n")
        await door.ask(b"GET /ws/mt5 HTTP/1.1\r\nHost: localhost\r\n" + upgrade + told + b"\r\n")
    is_believed = address == "198.51.100.4"
    assert [(one["client"][0], one["scheme"]) for one in door.scopes] == [
        (address, "https" if is_believed else "http"),
        (address, "wss" if is_believed else "ws"),
    ]


_ASK_IN_PRODUCTION = """
import asyncio, json, os
os.environ["DJANGO_SETTINGS_MODULE"] = "gateway_project.settings"
from gateway_project.asgi import django_application
from gateway_project.server import server_config

async def status(peer, headers):
    config = server_config(django_application, message_size_limit=65_536)
    config.load()
    sent, events = [], [{"type": "http.request", "body": b"", "more_body": False}]
    async def receive():
        return events.pop() if events else await asyncio.Event().wait()
    async def send(event):
        sent.append(event)
    scope = {"type": "http", "method": "GET", "path": "/version", "raw_path": b"/version", "query_string": b"",
             "client": (peer, 1), "server": ("127.0.0.1", 8000), "scheme": "http", "http_version": "1.1",
             "headers": [(b"host", b"gateway.example"), *[(n.encode(), v.encode()) for n, v in headers]]}
    await config.loaded_app(scope, receive, send)
    return sent[0]["status"]

async def main():
    print(json.dumps([await status(peer, headers) for peer, headers in json.loads(os.environ["ASKED"])]))

asyncio.run(main())
"""


def test_stranger_does_not_get_past_the_redirect_to_tls_in_production(tmp_path: Path) -> None:
    proto = ["X-Forwarded-Proto", "https"]
    asked = [
        ("10.9.9.9", [proto]),
        ("10.9.9.9", []),
        ("127.0.0.1", [proto]),
        ("127.0.0.1", [["x_forwarded_proto", "https"], proto, proto]),
        ("203.0.113.7", [["X-Forwarded-Proto", "https"], ["X-Forwarded-For", "10.9.9.9"]]),
    ]
    environment = production_environment(tmp_path, GATEWAY_TRUSTED_PROXIES="10.9.9.9", ASKED=json.dumps(asked))
    command = [sys.executable, "-c", _ASK_IN_PRODUCTION]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert json.loads(done.stdout) == [200, 301, 301, 301, 301]


def test_production_leaves_no_second_reader_of_the_headers(settings: Settings) -> None:
    config = server_config(lambda *_: None, message_size_limit=65_536)
    assert config.proxy_headers is False
    assert settings.SECURE_PROXY_SSL_HEADER is None
    assert not (settings.USE_X_FORWARDED_HOST or settings.USE_X_FORWARDED_PORT)
