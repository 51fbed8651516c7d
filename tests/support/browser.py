"""A person in the admin of a running gateway: cookies, forms with their token, and streams of events."""

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

from tests.support.gateway import Gateway

_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')


class Browser:
    """Follows no redirects; every wait is bounded."""

    def __init__(self, gateway: Gateway) -> None:
        self._port = gateway.port
        self._cookies: dict[str, str] = {}

    def sign_in(self, username: str, password: str) -> None:
        status, _ = self.post("/admin/login/", {"username": username, "password": password})
        assert status == 302, f"{username} was not signed in: {status}"

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Status and text."""
        return self._ask("GET", path, None, headers or {})

    def post(self, path: str, fields: Mapping[str, str]) -> tuple[int, str]:
        """Fills in the form of this page."""
        token = _TOKEN.search(self.get(path)[1])
        assert token is not None, f"no form at {path}"
        body = urlencode({"csrfmiddlewaretoken": token[1], **fields})
        return self._ask("POST", path, body, {"Content-Type": "application/x-www-form-urlencoded"})

    def upload(self, path: str, field: str, content: bytes) -> tuple[int, str]:
        """Gives a file to the form of this page."""
        token = _TOKEN.search(self.get(path)[1])
        assert token is not None, f"no form at {path}"
        parts = [
            f'name="csrfmiddlewaretoken"\r\n\r\n{token[1]}'.encode(),
            f'name="{field}"; filename="list.csv"\r\nContent-Type: text/csv\r\n\r\n'.encode() + content,
        ]
        lines = [b"--limit\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts]
        body = b"".join(lines) + b"--limit--\r\n"
        return self._ask("POST", path, body, {"Content-Type": "multipart/form-data; boundary=limit"})

    @contextmanager
    def events(self, path: str, timeout: float = 15.0) -> Iterator["Events"]:
        """A stream of server-sent events; leaving it closes the connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        try:
            connection.request("GET", path, headers=self._headers())
            answer = connection.getresponse()
            assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
            yield Events(answer)
        finally:
            connection.close()

    def _ask(self, method: str, path: str, body: str | bytes | None, headers: Mapping[str, str]) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            connection.request(method, path, body, {**self._headers(), **headers})
            answer = connection.getresponse()
            for line in answer.headers.get_all("Set-Cookie") or []:
                self._cookies.update({name: morsel.value for name, morsel in SimpleCookie(line).items()})
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}


class Events:
    """Reads one event after the other."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self._answer = answer

    def next(self) -> tuple[str, Any]:
        """Name and data; ("", None) when the stream has ended. Comments are skipped."""
        name = ""
        while line := self._answer.readline().decode():
            if line.startswith("event: "):
                name = line.removeprefix("event: ").strip()
            elif line.startswith("data: "):
                return name, json.loads(line.removeprefix("data: "))
        return "", None

    def until(self, name: str) -> Any:
        """The data of the next event of this name; what comes before is dropped."""
        while True:
            found, data = self.next()
            if found == name:
                return data
            assert found, f"the stream ended before {name}"
