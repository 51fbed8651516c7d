"""The endpoints as they are served: past the middleware, and with no more of a body than is needed."""

import asyncio
import json
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler

from billing.asgi import bounded, with_endpoints
from billing.midtrans.payload import BODY_SIZE_LIMIT
from tests.billing.notified import EVENTS, NOTIFICATIONS


async def other(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


class Peer:
    """Sends a body in pieces and hears the answer."""

    def __init__(self, path: str, pieces: list[bytes], **headers: str) -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "client": ("192.0.2.7", 4711),
            "server": ("testserver", 80),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
        self._pieces = pieces
        self.taken = 0
        self.leaves = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    async def receive(self) -> dict[str, Any]:
        if self.taken == len(self._pieces):
            if not self.leaves:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}
        # Others get a turn, as between two packets.
        await asyncio.sleep(0)
        self.taken += 1
        return {
            "type": "http.request",
            "body": self._pieces[self.taken - 1],
            "more_body": self.taken < len(self._pieces),
        }

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")

    async def ask(self) -> "Peer":
        await with_endpoints(other)(self.scope, self.receive, self.send)
        return self


@pytest.mark.parametrize("path", [NOTIFICATIONS, EVENTS, NOTIFICATIONS.rstrip("/"), EVENTS.rstrip("/")])
async def test_endpoint_answers_without_any_redirect_cookie_or_page(path: str) -> None:
    peer = await Peer(path, [b"{}"], content_type="text/plain").ask()
    assert (peer.status, json.loads(peer.body)["code"]) == (415, "unsupported_media_type")
    assert peer.headers["content-length"] == str(len(peer.body))
    assert "set-cookie" not in peer.headers


@pytest.mark.parametrize("path", ["/", "/billing/", "/admin/billing/events/", f"{NOTIFICATIONS}x", "/billing/events//"])
async def test_everything_else_goes_its_way(path: str) -> None:
    peer = await Peer(path, [b""]).ask()
    assert (peer.status, peer.body) == (299, path.encode())


async def test_body_that_is_too_large_is_refused_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    real = ASGIHandler.read_body

    async def read_body(self: ASGIHandler, receive: Any) -> Any:
        file = await real(self, receive)
        kept.append(file.seek(0, 2))
        file.seek(0)
        return file

    monkeypatch.setattr(ASGIHandler, "read_body", read_body)
    pieces = [b"x" * 10_000] * 1_000
    peer = await Peer(NOTIFICATIONS, pieces, content_type="application/json").ask()
    assert (peer.status, kept) == (413, [BODY_SIZE_LIMIT + 1])


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        (10, [(b"abcd", True), (b"efgh", True), (b"ij", False)]),
        (5, [(b"abcd", True), (b"e", True), (b"", False)]),
        (4, [(b"abcd", True), (b"", True), (b"", False)]),
    ],
)
async def test_body_is_bounded_and_waited_for_to_its_end(size: int, wanted: list[tuple[bytes, bool]]) -> None:
    peer = Peer("/", [b"abcd", b"efgh", b"ij"])
    receive = bounded(peer.receive, size)
    found = []
    for _ in wanted:
        message = await receive()
        found.append((message["body"], message["more_body"]))
    assert found == wanted
    peer.leaves = True
    assert (await receive())["type"] == "http.disconnect"
