"""Midtrans' ``GET status`` and nothing else: answers what a test has written for an order or a transaction id."""

import http.server
import json
import threading
import time
from typing import Any


class StatusServer:
    """``answers``: by order id or transaction id, the body of the answer; what is missing is 404, as at Midtrans."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any]] = {}
        # References in the order in which they were asked for.
        self.asked: list[str] = []
        # 0: answers as it should; else this HTTP code, to all.
        self.failure = 0
        # Seconds before each answer.
        self.delay = 0.0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                reference = self.path.split("/")[2]
                server.asked.append(reference)
                time.sleep(server.delay)
                missing = {"status_code": "404", "status_message": "Transaction doesn't exist."}
                failed = {"status_code": str(server.failure), "status_message": "It did not work."}
                answer = failed if server.failure else server.answers.get(reference, missing)
                body = json.dumps(answer).encode()
                self.send_response(server.failure or 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def say(self, body: dict[str, Any]) -> None:
        """What it says of this order and this transaction from now on."""
        self.answers[body["order_id"]] = self.answers[body["transaction_id"]] = body

    def reset(self) -> None:
        self.answers.clear()
        self.asked.clear()
        self.failure, self.delay = 0, 0.0

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
