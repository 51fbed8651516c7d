"""RFC 6455, as the 301 cases of the Autobahn test suite without compression see the product's echo server."""

import asyncio
import datetime
import ipaddress
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.children import start_child, stop_child
from tests.support.gateway import ROOT, clean_environment, until
from tests.support.ports import free_port, is_listening
from tests.support.raw_client import TEXT, RawClient

CASES = 301
_LIFTED = {"GATEWAY_FRAGMENT_LIMIT": "1000000", "GATEWAY_CONTROL_FRAME_RATE_LIMIT": "100000"}
# Text that is invalid in the middle of a frame is refused at the frame's end, which the suite calls non-strict.
_NON_STRICT = {"6.4.3", "6.4.4"}


@contextmanager
def echo_server(directory: Path, *arguments: str, **settings: str) -> Iterator[int]:
    """Its port."""
    port = free_port()
    command = [sys.executable, str(ROOT / "manage.py"), "echo_server", "--port", str(port), *arguments]
    log = directory / "echo.log"
    server = start_child(command, log, clean_environment(directory / "state", **settings))
    try:
        until(lambda: is_listening(port), 30, f"an echo server: {log.read_text()}")
        yield port
        assert "Traceback" not in log.read_text(), log.read_text()[-3000:]
    finally:
        stop_child(server)


def verdicts(directory: Path, port: int) -> dict[str, dict[str, object]]:
    """Case to what the suite says of it."""
    command = [str(Path(sys.executable).parent / "kosoku"), "-p", "8", "-x", "12.*", "-x", "13.*"]
    command += ["-o", str(directory / "report"), f"ws://127.0.0.1:{port}"]
    # Its status is 1 as soon as one case fails; the report says which.
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    index = directory / "report" / "index.json"
    assert index.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    (cases,) = json.loads(index.read_text()).values()
    assert len(cases) == CASES
    return dict(cases)


def failed(cases: dict[str, dict[str, object]]) -> dict[str, object]:
    """Case to the close code that the suite got."""
    fine = {"OK", "INFORMATIONAL"}
    return {
        name: case["remoteCloseCode"]
        for name, case in cases.items()
        if not ((case["behavior"] in fine or name in _NON_STRICT) and case["behaviorClose"] in fine)
    }


def test_every_case_passes_with_the_limits_lifted(tmp_path: Path) -> None:
    with echo_server(tmp_path, "--max-size", "33554432", **_LIFTED) as port:
        assert failed(verdicts(tmp_path, port)) == {}


def test_every_case_passes_over_tls(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    tls = ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)]
    with (
        echo_server(tmp_path, "--max-size", "33554432", *tls, **_LIFTED) as port,
        tls_tunnel(port, certificate) as plain,
    ):
        assert failed(verdicts(tmp_path, plain)) == {}


def test_production_limits_refuse_what_is_too_large_and_nothing_else(tmp_path: Path) -> None:
    with echo_server(tmp_path) as port:
        cases = failed(verdicts(tmp_path, port))
    # 9.x are the cases with messages of up to 16 MiB; 65,536 bytes pass.
    assert len(cases) == 40
    assert {name.split(".")[0] for name in cases} == {"9"}
    assert set(cases.values()) == {1009}


def self_signed(directory: Path) -> tuple[Path, Path]:
    """Certificate and key of 127.0.0.1 as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@contextmanager
def tls_tunnel(port: int, certificate: Path) -> Iterator[int]:
    """A local port whose plain bytes go to ``port`` over TLS: the suite itself speaks no TLS."""
    context = ssl.create_default_context(cafile=str(certificate))
    listening = free_port()
    loop = asyncio.new_event_loop()

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    async def serve() -> None:
        async with await asyncio.start_server(carry, "127.0.0.1", listening) as server:
            await server.serve_forever()

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(serving)
        except asyncio.CancelledError:
            pass

    serving = loop.create_task(serve())
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        until(lambda: is_listening(listening), 10, "the tunnel")
        yield listening
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join(5)


@pytest.mark.parametrize("extension", ["permessage-deflate", "permessage-deflate; client_max_window_bits"])
def test_compression_is_declined_and_the_connection_works(tmp_path: Path, extension: str) -> None:
    with echo_server(tmp_path) as port:
        client = RawClient(port)
        assert client.open("", subprotocol="", path="/", headers=[f"Sec-WebSocket-Extensions: {extension}"]) == 101
        assert "sec-websocket-extensions" not in client.head.lower()
        client.send(TEXT, b"hello")
        answer = client.read()
        assert answer is not None
        assert answer.payload == b"hello"
        client.close()
