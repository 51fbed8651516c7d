"""A client stops over its token only when the gateway itself has said that no other will come."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from trading_gateway_client import TokenUnavailable, api_key_token, fixed_token


class Answering(HTTPServer):
    """Answers each exchange with what the test has put there."""

    status = 201
    headers: dict[str, str]
    body = b""
    requests: list[tuple[str, bytes]]


class Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, body))
        self.send_response(self.server.status)
        for name, value in {**self.server.headers, "Content-Length": str(len(self.server.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[Answering]:
    server = Answering(("127.0.0.1", 0), Handler)
    server.headers, server.requests = {}, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def ask(server: Answering) -> str:
    return await api_key_token(f"http://127.0.0.1:{server.server_port}", "gwk_x")()


async def test_key_is_exchanged_for_a_token(server: Answering) -> None:
    server.body = b'{"token": "t.o.k"}'
    assert await ask(server) == "t.o.k"
    assert server.requests == [("/api/v1/tokens", b'{"api_key": "gwk_x"}')]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "api_key_invalid"),
        (402, "payment_required"),
        (403, "scope_missing"),
        (403, "user_disabled"),
        (403, "company_suspended"),
    ],
)
async def test_final_word_of_the_gateway_is_final(server: Answering, status: int, code: str) -> None:
    server.status, server.headers = status, {"Content-Type": "application/problem+json; charset=utf-8"}
    server.body = json.dumps({"code": code, "detail": "ask your admin"}).encode()
    with pytest.raises(TokenUnavailable, match="ask your admin") as raised:
        await ask(server)
    assert (raised.value.retryable, raised.value.code, raised.value.status) == (False, code, status)


@pytest.mark.parametrize("status", [200, 400, 401, 402, 403, 404, 405, 408, 413, 421, 425, 429, 500, 502, 503, 504])
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html", b"<h1>of a proxy</h1>"),
        ("application/json", b'{"code": "user_disabled", "detail": "of another service"}'),
        ("application/problem+json", b'{"code": "of_tomorrow", "detail": "?"}'),
        ("application/problem+json", b"{"),
        ("application/problem+json", b"[]"),
    ],
)
async def test_everything_else_is_tried_again(server: Answering, status: int, content_type: str, body: bytes) -> None:
    server.status, server.body = status, body
    server.headers = {"Content-Type": content_type, "Retry-After": "7"}
    with pytest.raises(TokenUnavailable) as raised:
        await ask(server)
    assert raised.value.retryable
    assert raised.value.retry_after == (0.0 if status == 200 else 7.0)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirect_is_tried_again_and_the_key_goes_nowhere_else(server: Answering, status: int) -> None:
    server.status, server.headers = status, {"Location": "/elsewhere"}
    with pytest.raises(TokenUnavailable) as raised:
        await ask(server)
    assert raised.value.retryable
    assert [path for path, _ in server.requests] == ["/api/v1/tokens"]


async def test_nobody_there_is_tried_again() -> None:
    with pytest.raises(TokenUnavailable) as raised:
        await api_key_token("http://127.0.0.1:9", "gwk_x")()
    assert (raised.value.status, raised.value.retryable) == (0, True)


async def test_fixed_token_is_always_the_same() -> None:
    source = fixed_token("t")
    assert [await source(), await source()] == ["t", "t"]
