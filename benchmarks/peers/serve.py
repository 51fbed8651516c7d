"""Runs an ASGI application on the server stack the gateway uses. Room: benchmarks."""

import argparse
from typing import Any
from urllib.parse import parse_qs

import uvicorn


def port_argument() -> int:
    """The ``--port`` of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    return int(parser.parse_args().port)


def serve(app: Any, port: int) -> None:
    """Blocks until SIGTERM."""
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        ws="websockets-sansio",
        loop="uvloop",
        http="httptools",
        ws_per_message_deflate=False,
        ws_max_size=65_536,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=2,
    )


def identity(query_string: bytes) -> tuple[str, str]:
    """User and company of a connection: peers have no tokens, the load generator names both in the URL."""
    query = parse_qs(query_string.decode())
    return query.get("user", [""])[0], query.get("company", [""])[0]


async def answer(send: Any, body: bytes = b"ok") -> None:
    """Sends a plain 200."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
