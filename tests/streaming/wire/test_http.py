"""Requests on raw sockets against the production stack: trailers, and bounds of bodies."""

import asyncio
import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from streaming.wire.http import BODY_MAX_SIZE, DROP_MAX_SIZE, BodyBound, BoundedHttpProtocol
from tests.support.door import Door, open_door

HEAD = b"POST /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
TRAILERS = [
    ("X-Forwarded-For", "198.51.100.9"),
    ("X-Forwarded-Proto", "https"),
    ("Authorization", "Bearer stolen"),
    ("Host", "evil.example"),
    ("Cookie", "sessionid=1"),
    ("Content-Type", "application/json"),
    ("Expect", "100-continue"),
    ("Origin", "https://evil.example"),
]


@pytest.fixture(scope="module")
def open_one() -> Iterator[Door]:
    with open_door() as door:
        yield door


@pytest.fixture
def door(open_one: Door) -> Door:
    open_one.scopes.clear()
    return open_one


def chunked(body: bytes, trailers: list[tuple[str, str]], size: int = 4) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    lines = "".join(f"{name}: {value}\r\n" for name, value in trailers)
    return chunks + b"0\r\n" + lines.encode() + b"\r\n"


def headers_of(door: Door) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in door.scopes[-1]["headers"]]


def some_trailers(seed: int) -> list[tuple[str, str]]:
    """Known names and made-up ones, in any case and number."""
    source = random.Random(seed)
    names = [*(name for name, _ in TRAILERS), "x-" + "".join(source.choices("abcdefgh", k=6)), "X_Forwarded_For", "Via"]
    chosen = source.choices(names, k=source.randint(1, 12))
    return [(source.choice((name, name.lower(), name.upper())), f"told-{source.randint(0, 9)}") for name in chosen]


@pytest.mark.parametrize("trailers", [[one] for one in TRAILERS] + [TRAILERS] + [some_trailers(n) for n in range(25)])
async def test_request_with_trailers_is_seen_without_them(door: Door, trailers: list[tuple[str, str]]) -> None:
    # In one write, in two between body and trailers, and byte by byte through the trailers.
    body = chunked(b"0123456789", trailers)
    cut = body.index(b"0\r\n", body.index(b"89")) + 3
    for pieces in ([body], [body[:cut], body[cut:]], [body[:cut], *(bytes([one]) for one in body[cut:])]):
        answer = await door.ask(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *pieces)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert headers_of(door) == [("host", "localhost"), ("connection", "close"), ("transfer-encoding", "chunked")]
        assert (door.scopes[-1]["client"][0], door.scopes[-1]["scheme"]) == ("127.0.0.1", "http")


@pytest.mark.parametrize("name", ["Content-Length", "Transfer-Encoding"])
async def test_trailer_that_speaks_of_the_body_changes_nothing_of_it(door: Door, name: str) -> None:
    value = "5" if name == "Content-Length" else "identity"
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    await door.ask(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"abc", [(name, value)]) + smuggled)
    assert all(one["path"] == "/x" and name.lower() not in dict(headers_of(door)).values() for one in door.scopes)
    assert all(door.header(name.lower(), at) in ([], ["chunked"]) for at in range(len(door.scopes)))


async def test_next_request_of_a_connection_has_its_own_headers_again(door: Door) -> None:
    first = b"POST /x HTTP/1.1\r\nHost: one\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"abc", TRAILERS)
    second = b"GET /y HTTP/1.1\r\nHost: two\r\nX-Own: yes\r\nConnection: close\r\n\r\n"
    assert (await door.ask(first + second)).count(b"HTTP/1.1 200") == 2
    assert headers_of(door) == [("host", "two"), ("x-own", "yes"), ("connection", "close")]


async def test_upgrade_with_a_body_and_trailers_becomes_no_connection_with_their_identity(door: Door) -> None:
    head = (
        b"GET /ws/mt5 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    assert (await door.ask(head + b"\r\n")).startswith(b"HTTP/1.1 403")
    for trailers in ([], TRAILERS):
        await door.ask(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"abc", trailers))
    assert all(not door.header("authorization", at) for at in range(len(door.scopes)))
    assert all(scope["client"][0] == "127.0.0.1" for scope in door.scopes)


@pytest.mark.parametrize("endless", [b"X-Long: " + b"y" * 200_000, b"X-Many: y\r\n" * 20_000])
async def test_endless_trailers_end_the_request(door: Door, endless: bytes) -> None:
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    answer = await door.ask(head, *(endless[at : at + 8_192] for at in range(0, len(endless), 8_192)))
    # At once when the parser has told of the end of the body before they came, else when the time for a body is over.
    assert answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400", b"HTTP/1.1 408")), answer
    assert door.scopes == []


# --- Bodies -----------------------------------------------------------------------------------------------------------

BOUNDS = {"/a": BodyBound(100, is_trimmed=True), "/b/c": BodyBound(200_000, is_trimmed=True), "/d": BodyBound(5_000)}
SMALL, LARGE = BODY_MAX_SIZE, BODY_MAX_SIZE + DROP_MAX_SIZE


def request(path: str, size: int, *, is_chunked: bool) -> tuple[bytes, ...]:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode()
    body = b"x" * size
    if is_chunked:
        return head + b"Transfer-Encoding: chunked\r\n\r\n", chunked(body, [], size=65_536)
    return head + f"Content-Length: {size}\r\n\r\n".encode(), body


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize(
    ("path", "bound"),
    [*BOUNDS.items(), ("/a/?q=1", BOUNDS["/a"]), ("/elsewhere", BodyBound()), ("/b", BodyBound())],
)
async def test_each_path_takes_a_body_up_to_its_own_bound(
    door: Door, monkeypatch: pytest.MonkeyPatch, path: str, bound: BodyBound, is_chunked: bool
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "body_bounds", BOUNDS)
    for size in (0, 1, bound.size - 1, bound.size):
        answer = await door.ask(*request(path, size, is_chunked=is_chunked))
        assert json.loads(answer.rpartition(b"\r\n")[2]) == {"size": size}
    above = await door.ask(*request(path, bound.size + 1, is_chunked=is_chunked))
    if bound.is_trimmed:
        # The application has what it needs to say so in its own words.
        assert json.loads(above.rpartition(b"\r\n")[2]) == {"size": bound.size}
    else:
        assert above.startswith(b"HTTP/1.1 413 ")
        assert f"at most {bound.size} bytes".encode() in above


@pytest.mark.parametrize(("path", "size"), [("/elsewhere", 3 * BODY_MAX_SIZE), ("/b/c", 8 * BODY_MAX_SIZE)])
async def test_sender_of_much_too_much_still_reads_the_answer(
    door: Door, monkeypatch: pytest.MonkeyPatch, path: str, size: int
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "body_bounds", BOUNDS)
    answer = await door.ask(*request(path, size, is_chunked=False))
    assert answer.startswith(b"HTTP/1.1 200" if path in BOUNDS else b"HTTP/1.1 413 "), answer[:200]


async def test_what_is_read_and_dropped_has_an_end(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "body_bounds", BOUNDS)
    monkeypatch.setattr("streaming.wire.http.DROP_MAX_SIZE", 300_000)
    monkeypatch.setattr("streaming.wire.http._LINGER", 0.1)
    before = BoundedHttpProtocol.cut[413]
    head = b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"
    try:
        answer = await door.ask(head, *itertools.repeat(b"x" * 65_536, 200))
    except ConnectionError:
        answer = b"HTTP/1.1 413 "
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert BoundedHttpProtocol.cut[413] == before + 1
    assert door.scopes == []


def test_server_knows_the_bound_of_each_page_that_has_a_limit_of_its_own() -> None:
    from gateway_project.bodies import body_bounds

    bounds: dict[str, Any] = body_bounds()
    assert set(bounds) == {
        "/admin/tenants/mt5account/import",
        "/api/v1/tokens",
        "/billing/midtrans/notifications",
        "/billing/events",
    }


# --- Between requests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", [b"\r\n", b"\n", b"\r\n" * 5_000])
async def test_empty_lines_keep_no_connection_that_has_nothing_to_ask(blank: bytes) -> None:
    with open_door(timeout_keep_alive=1) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = asyncio.create_task(reader.read())
        async with asyncio.timeout(5):
            while not answer.done():
                writer.write(blank)
                await asyncio.sleep(0.1)
        writer.close()
        assert len(door.scopes) == 1


async def test_empty_lines_before_a_request_are_none_of_it(door: Door) -> None:
    one = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n\r\n\r\n"
    last = b"GET /y HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    for pieces in (
        [b"\r\n", one, b"\r\n", b"\n\r", one, b"\r\n\r\n" + last],
        [b"\r\n" + one + b"\r\n" + one + b"\r\n" + last],
    ):
        door.scopes.clear()
        answer = await door.ask(*pieces)
        assert [scope["path"] for scope in door.scopes] == ["/x", "/x", "/y"]
        assert answer.count(b'{"size": 4}') == 2
