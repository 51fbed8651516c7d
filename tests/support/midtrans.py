"""The stand-in for Midtrans as a process, and a server that gets its notifications."""

import http.server
import json
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from billing.midtrans.client import MidtransClient
from tests.support.children import start_child, stop_child
from tests.support.gateway import ROOT, clean_environment
from tests.support.ports import free_port, is_listening

SERVER_KEY = "SB-Mid-server-tests"
_READY_TIMEOUT = 40.0
_WAIT = 15.0


class Receiver:
    """Takes notifications on loopback and remembers them; answers ``codes`` one by one, then 200."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.codes: list[int] = []
        # Where 307 and 302 point.
        self.location = ""
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                code = receiver.codes.pop(0) if receiver.codes else 200
                receiver.headers.append(dict(self.headers))
                receiver.bodies.append(body)
                self.send_response(code)
                if 300 <= code < 400:
                    self.send_header("Location", receiver.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/billing/midtrans/notifications/"

    def statuses(self, order_id: str) -> list[str]:
        """What came for an order, in the order of arrival."""
        return [body["transaction_status"] for body in [*self.bodies] if body.get("order_id") == order_id]

    def wait_for(self, order_id: str, *statuses: str) -> list[dict[str, Any]]:
        """Until exactly these have come, in this order."""
        wait_until(lambda: self.statuses(order_id) == [*statuses], lambda: f"{order_id}: {self.statuses(order_id)}")
        return [body for body in [*self.bodies] if body.get("order_id") == order_id]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class StandIn:
    """One process of ``manage.py midtrans_sandbox``."""

    def __init__(self, folder: Path, notification_url: str, *, time_factor: float = 600.0) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "midtrans_sandbox.log"
        command = [sys.executable, str(ROOT / "manage.py"), "midtrans_sandbox", "--port", str(self.port)]
        command += ["--notification-url", notification_url, "--time-factor", str(time_factor)]
        environment = clean_environment(folder, MIDTRANS_SERVER_KEY=SERVER_KEY)
        self.process = start_child(command, self.log, environment)

    def wait_ready(self) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT
        while not is_listening(self.port):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def stop(self) -> int:
        return stop_child(self.process)

    def client(self, **changes: Any) -> MidtransClient:
        return MidtransClient(**{"server_key": SERVER_KEY, "base_url": self.url, **changes})

    def control(self, path: str, data: Any = None, *, method: str = "") -> Any:
        """GET, or POST where there is ``data``; the answer. Raises urllib.error.HTTPError."""
        request = urllib.request.Request(
            f"{self.url}/sandbox/{path}",
            data=None if data is None else json.dumps(data).encode(),
            headers={"Content-Type": "application/json"},
            method=method or ("GET" if data is None else "POST"),
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def fault(self, **fields: Any) -> None:
        self.control("faults", fields)

    def choose(self, order_id: str, method: str) -> None:
        self.control(f"orders/{order_id}/choose", {"method": method})

    def act(self, order_id: str, action: str) -> str:
        """The state after it."""
        state: str = self.control(f"orders/{order_id}/act", {"action": action})["state"]
        return state

    def notifications(self, order_id: str) -> list[dict[str, Any]]:
        found = self.control("log")["notifications"]
        return [delivery for delivery in found if delivery["order_id"] == order_id]


def wait_until(is_so: Callable[[], bool], describe: Callable[[], str], *, timeout: float = _WAIT) -> None:
    deadline = time.monotonic() + timeout
    while not is_so():
        assert time.monotonic() < deadline, describe()
        time.sleep(0.02)


def press(url: str, **fields: str) -> str:
    """Presses a button of a page as a browser does; the page after it."""
    data = urllib.parse.urlencode(fields).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=10) as response:
        text: str = response.read().decode()
    return text
