"""nginx in front: valid, believed for what it says itself, and with bounds that leave the last word to the gateway."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.urls import reverse

from billing.midtrans.payload import BODY_SIZE_LIMIT
from tests.deploy.conftest import DEPLOY
from tests.support.deployment import Nginx, render
from tests.support.tools import judge, python_tool, system_tool

_SCRIPTS = ("nginx/render", "rolling-restart", "backup")
# What the import of MT5 accounts takes.
_CSV_FILE_SIZE = 1_048_576
_UNITS = {"": 1, "k": 1_024, "m": 1_024**2}
_BLOCK = re.compile(r"location (?:= |~ )?(\S+) \{(.*?)\n        \}", re.DOTALL)


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    server = Nginx(tmp_path, static=tmp_path, upstreams=[8001, 8002])
    yield server
    server.stop()


@pytest.fixture
def text(nginx: Nginx) -> str:
    return nginx.config.read_text()


def locations(text: str) -> dict[str, str]:
    """Path -> what is said of it, in the server of the public name."""
    return {match[1]: match[2] for match in _BLOCK.finditer(text)}


def size(text: str, name: str) -> int:
    match = re.search(rf"{name} (?:\d+ )?(\d+)([km]?);", text)
    assert match is not None, f"no {name}"
    return int(match[1]) * _UNITS[match[2]]


def seconds(text: str, name: str) -> int:
    match = re.search(rf"{name} (\d+)s;", text)
    assert match is not None, f"no {name}"
    return int(match[1])


def test_nginx_and_its_linter_find_the_configuration_good(nginx: Nginx) -> None:
    judge(system_tool("nginx", "nginx"), "-t", "-c", str(nginx.config))
    judge(python_tool("gixy"), str(nginx.config))


def test_every_name_is_filled_in_and_nginx_keeps_its_own(text: str) -> None:
    assert "${" not in text
    assert "$remote_addr" in text
    assert "$connection_header" in text


def test_host_without_a_name_is_told_what_is_missing() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        render({})
    assert "SITE_NAME" in failed.value.stderr


@pytest.mark.parametrize(
    ("given", "folder"),
    [({}, "/etc/letsencrypt/live/one.example"), ({"SITE_TLS": "/etc/tls"}, "/etc/tls"), ({"SITE_TLS": ""}, None)],
)
def test_certificate_comes_from_the_folder_of_the_settings(given: dict[str, str], folder: str | None) -> None:
    folder = folder or "/etc/letsencrypt/live/one.example"
    text = render({"SITE_NAME": "one.example", **given})
    assert f"{folder}/fullchain.pem;" in text and f"{folder}/privkey.pem;" in text


def test_what_a_client_says_of_proxies_is_replaced_in_every_location(text: str) -> None:
    for header in ("X-Forwarded-For $remote_addr", "X-Forwarded-Proto $scheme", "Forwarded ''", "X-Real-IP ''"):
        assert f"proxy_set_header {header};" in text
    assert "$proxy_add_x_forwarded_for" not in text
    # One header in a location, and those of the top are not sent any more.
    assert not any("proxy_set_header" in body for body in locations(text).values())


def test_silent_terminal_is_ended_by_the_gateway_and_not_by_nginx(text: str) -> None:
    longest_silence = settings.GATEWAY_PING_INTERVAL * 3 + settings.GATEWAY_PONG_TIMEOUT
    for path in ("/ws/", "/admin/live/"):
        assert seconds(locations(text)[path], "proxy_read_timeout") >= longest_silence
        assert "proxy_buffering off;" in locations(text)[path]


def test_request_that_is_too_large_is_refused_in_the_words_of_the_gateway(text: str) -> None:
    for path, limit in (("/api/", 4_096), ("/billing/", BODY_SIZE_LIMIT), ("/admin/", 2 * _CSV_FILE_SIZE)):
        assert size(locations(text)[path], "client_max_body_size") > limit, path
    # A file of any size is told the limit of files.
    body = locations(text)[reverse("admin:tenants_mt5account_import")]
    assert size(body, "client_max_body_size") >= 8 * _CSV_FILE_SIZE and "proxy_pass" in body
    assert size(text, "large_client_header_buffers") * 4 == settings.GATEWAY_HANDSHAKE_MAX_SIZE
    assert seconds(text, "client_header_timeout") == settings.GATEWAY_HANDSHAKE_TIMEOUT


def test_what_is_for_the_inside_is_not_reached_from_outside(text: str) -> None:
    for path in ("/metrics", "/livez", "/readyz"):
        assert "return 404;" in locations(text)[path]


def test_shell_scripts_are_good() -> None:
    for name in _SCRIPTS:
        judge(python_tool("shellcheck"), str(DEPLOY / name))
