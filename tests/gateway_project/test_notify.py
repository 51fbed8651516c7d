"""systemd hears how far a gateway is (gateway_project: notify)."""

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway_project.notify import READY, tell_service_manager


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(5)
        yield listener


def test_service_manager_hears_of_the_state(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    assert tell_service_manager(READY)
    assert manager.recv(100) == b"READY=1"


def test_service_manager_is_found_in_the_abstract_namespace(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"gateway-{secrets.token_hex(8)}"
    manager.bind(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    assert tell_service_manager(READY)
    assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "vsock:2:1", "/nowhere/at/all"])
def test_gateway_goes_on_where_nobody_listens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not tell_service_manager(READY)
