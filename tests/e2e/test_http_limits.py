"""What a request may cost before anybody has proved who they are, and that whoever meets a bound is told of it."""

import html
import json
import random
import re
import socket
import string

from billing.midtrans.payload import BODY_SIZE_LIMIT
from streaming.wire.http import BODY_MAX_SIZE
from tenants.bodies import CSV_SIZE_LIMIT, EXCHANGE_SIZE_LIMIT
from tests.support.browser import Browser
from tests.support.gateway import Gateway

IMPORT = "/admin/tenants/mt5account/import/"
HEADER = b"login,broker_server,owner,active,note\n"
TOO_LARGE = "The file is larger than 1 MB: split it."


def post(gateway: Gateway, path: str, body: bytes, *, is_chunked: bool) -> tuple[int, str]:
    """Status and text of the answer to a body of JSON."""
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(body)}"
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", "Content-Type: application/json", length]
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=15) as client:
        client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        client.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if is_chunked else body)
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    head, _, text = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), text.decode()


def json_of(size: int) -> bytes:
    """An object that is well formed and of exactly this size."""
    return b'{"api_key":"' + b"k" * (size - 14) + b'"}'


def accounts(size: int) -> bytes:
    """A file of exactly this size, with one account that is not there yet."""
    head = HEADER + b"424242,Broker-X,merapi-admin,yes,"
    return head + b"n" * (size - len(head) - 1) + b"\n"


def test_each_endpoint_and_page_says_in_its_own_words_what_is_too_large(gateway: Gateway) -> None:
    paths = {
        "/api/v1/tokens": EXCHANGE_SIZE_LIMIT,
        "/billing/midtrans/notifications/": BODY_SIZE_LIMIT,
        "/billing/midtrans/notifications": BODY_SIZE_LIMIT,
        "/billing/events/": BODY_SIZE_LIMIT,
        "/billing/events": BODY_SIZE_LIMIT,
    }
    for is_chunked in (False, True):
        for path, limit in paths.items():
            status, _ = post(gateway, path, json_of(limit), is_chunked=is_chunked)
            assert status in (400, 401, 403, 404), (path, status)
            for size in (limit + 1, limit + 2, 10 * limit, BODY_MAX_SIZE + 1, 3 * BODY_MAX_SIZE):
                status, text = post(gateway, path, json_of(size), is_chunked=is_chunked)
                assert (status, json.loads(text)["code"]) == (413, "too_large"), (path, size, text)
                assert f"at most {limit} bytes" in text
        # Where no page has a limit of its own.
        for path in ("/admin/login/", "/version", "/password-reset/", "/nothing/there/"):
            assert post(gateway, path, b"x" * BODY_MAX_SIZE, is_chunked=is_chunked)[0] in (403, 404, 405), path
            status, text = post(gateway, path, b"x" * (BODY_MAX_SIZE + 1), is_chunked=is_chunked)
            assert status == 413, path
            assert f"at most {BODY_MAX_SIZE} bytes" in text
    assert gateway.http("/livez")[0] == 200


def test_admin_imports_a_file_up_to_the_limit_and_is_told_of_a_larger_one(gateway: Gateway) -> None:
    browser = Browser(gateway)
    people = json.loads((gateway.state_dir / "demo.json").read_text())
    browser.sign_in("rinjani-admin", people["rinjani-admin"]["password"])
    for size in (CSV_SIZE_LIMIT + 1, CSV_SIZE_LIMIT + 4_096, 2 * CSV_SIZE_LIMIT, 8 * CSV_SIZE_LIMIT):
        status, page = browser.upload(IMPORT, "file", accounts(size))
        assert (status, TOO_LARGE in html.unescape(page)) == (200, True), size
    for size in (CSV_SIZE_LIMIT - 1, CSV_SIZE_LIMIT):
        status, page = browser.upload(IMPORT, "file", accounts(size))
        assert (status, 'name="preview"' in page) == (200, False), "the owner is of another company"

    # What was previewed comes back signed, which makes a file that does not compress larger than it was.
    source = random.Random(1)
    rows = [b"424242,Broker-X,rinjani-sari,yes\n"]
    rows += [f"{n},B,{''.join(source.choices(string.printable[:62], k=505))},yes\n".encode() for n in range(1_999)]
    content = HEADER.replace(b",note", b"") + b"".join(rows)
    assert CSV_SIZE_LIMIT * 0.95 < len(content) <= CSV_SIZE_LIMIT
    status, page = browser.upload(IMPORT, "file", content)
    preview = re.search(r'name="preview" value="([^"]+)"', page)
    assert status == 200 and preview is not None
    status, _ = browser.post(IMPORT, {"preview": html.unescape(preview[1])})
    assert status == 302
    assert "424242" in browser.get("/admin/tenants/mt5account/")[1]


def test_endless_headers_are_refused(gateway: Gateway) -> None:
    head = "GET /livez HTTP/1.1\r\n" + "X-Filler: " + "y" * 40_000
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(head.encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 431")
