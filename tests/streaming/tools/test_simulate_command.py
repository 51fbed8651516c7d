"""``manage.py simulate_mt5`` finds the gateway, or says where it looked and ends with an error."""

import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import OutputWrapper

from streaming.management.commands import simulate_mt5
from tests.streaming.shell_cast import token_of
from tests.support.ports import free_port

LOAD = ["--clients", "2", "--duration", "0.3", "--settle", "0", "--json"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_mt5, "_PATIENCE", {"load": 0.2, "demo": 0.2})


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(token_of("bob") + "\n")
    return file


class Refusing:
    """A server that answers every request in one way."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                client.settimeout(2)
                try:
                    if client.recv(65_536):
                        client.sendall(self._answer)
                except OSError:
                    continue

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(params=[401, 503])
def refusing(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """Port and status."""
    answer = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % request.param
    server = Refusing(answer)
    yield server.port, request.param
    server.close()


def simulate(*arguments: str) -> str:
    out = io.StringIO()
    call_command("simulate_mt5", *arguments, stdout=OutputWrapper(out))
    return out.getvalue()


def test_person_is_told_that_there_is_no_gateway_and_where(tokens: Path) -> None:
    url = f"ws://127.0.0.1:{free_port()}/ws/mt5"
    began = time.monotonic()
    with pytest.raises(CommandError) as refusal:
        simulate("--url", url, "--token-file", str(tokens), "--clients", "2", "--duration", "60")
    assert url in str(refusal.value) and "--url or GATEWAY_PORT" in str(refusal.value)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "ws://", "127.0.0.1:8000", "ws://host:port/", "ws://h:99999/"])
def test_person_is_told_that_an_address_is_none(tokens: Path, url: str) -> None:
    with pytest.raises(CommandError, match="no address of a gateway"):
        simulate("--url", url, "--token-file", str(tokens), *LOAD)


def test_person_is_told_why_nobody_got_in(
    tokens: Path, refusing: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    port, status = refusing
    url = f"ws://127.0.0.1:{port}/ws/mt5"
    with pytest.raises(CommandError) as refusal:
        call_command("simulate_mt5", "--url", url, "--token-file", str(tokens), *LOAD)
    assert f"none of 2 terminals got in at {url}" in str(refusal.value)
    assert str(status) in str(refusal.value)
    # What is counted is there as well, for whoever reads it by a program.
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["connected"], report["sent"]) == (0, 0)


def test_simulator_looks_where_the_running_gateway_is(
    tokens: Path, settings: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django.conf.settings.RUNNING_GATEWAY_PORT", port := free_port())
    with pytest.raises(CommandError, match=f"ws://127.0.0.1:{port}/ws/mt5"):
        simulate("--token-file", str(tokens), *LOAD)
