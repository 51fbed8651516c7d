"""What a request may cost before anybody has proved who they are."""

import socket

from streaming.wire.http import BODY_MAX_SIZE
from tests.support.gateway import Gateway


def answer_to(gateway: Gateway, head: str, body_size: int) -> bytes:
    """The status line of the answer to a POST with a body of this size, or the part of it that could be sent."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(head.encode())
        try:
            for _ in range(0, body_size, 65_536):
                client.sendall(b"x" * 65_536)
        except OSError:
            pass
        try:
            return client.recv(4096).partition(b"\r\n")[0]
        except ConnectionError:
            return b""


def test_body_at_the_limit_is_read_and_a_larger_one_is_cut_off(gateway: Gateway) -> None:
    head = "POST /api/v1/tokens HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n"
    # The endpoint saw it: it wants JSON.
    assert b" 415 " in answer_to(gateway, head.format(BODY_MAX_SIZE), BODY_MAX_SIZE)
    assert answer_to(gateway, head.format(100 * BODY_MAX_SIZE), 100 * BODY_MAX_SIZE) in (
        b"HTTP/1.1 413 Content Too Large",
        b"",
    )
    assert gateway.http("/livez")[0] == 200


def test_endless_headers_are_refused(gateway: Gateway) -> None:
    head = "GET /livez HTTP/1.1\r\n" + "X-Filler: " + "y" * 40_000
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(head.encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 431")
