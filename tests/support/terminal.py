"""A terminal in the JSON form, for tests that look at single answers."""

import json
from typing import Any
from urllib.parse import urlencode

from tests.support.gateway import Gateway
from tests.support.proxy import SilencingProxy
from tests.support.raw_client import CLOSE, PING, PONG, TEXT, RawClient

Answer = tuple[str, dict[str, Any]]


class Terminal:
    """Connected and welcomed when it is made; every wait is bounded by the socket's timeout."""

    def __init__(
        self,
        gateway: Gateway | SilencingProxy,
        token: str,
        *,
        stream: str = "",
        account: str = "",
        heard: int | None = None,
        writer: str = "",
    ) -> None:
        self._client = RawClient(gateway.port, timeout=60)
        said = "" if heard is None else str(heard)
        named = {"stream": stream, "account": account, "heard": said, "writer": writer}
        path = f"/ws/mt5?{urlencode({name: value for name, value in named.items() if value})}"
        status = self._client.open(token, path=path)
        assert status == 101, status
        self.close_code = 0
        kind, self.welcome = self.hear()
        assert kind == "gateway.welcome"

    def say(self, message_type: str, **fields: Any) -> None:
        self._client.send(TEXT, json.dumps({"message_type": message_type, **fields}).encode())

    def send(self, text: str) -> None:
        """Any text as one message."""
        self._client.send(TEXT, text.encode())

    def tick(self, sequence: int, symbol: str = "EURUSD", account: str = "") -> None:
        self.say("tick_data", sequence=sequence, account=account, ticks=[{"symbol": symbol, "bid": 1.1, "ask": 1.2}])

    def hear(self) -> Answer:
        """The next answer; ``("", {})`` when the connection has ended, its code then in ``close_code``."""
        while True:
            received = self._client.read()
            if received is None or received.opcode == CLOSE:
                self.close_code = 1006 if received is None else received.close_code
                return "", {}
            if received.opcode == PING:
                self._client.send(PONG, b"")
                continue
            body = json.loads(received.payload)
            return body["message_type"], body["payload"]

    def hear_until(self, message_type: str) -> dict[str, Any]:
        """The next answer of this type; what comes before is dropped."""
        while True:
            kind, payload = self.hear()
            if kind == message_type:
                return payload
            assert kind, f"the connection ended with {self.close_code} before {message_type}"

    def wait_for_ack(self, sequence: int) -> None:
        while self.hear_until("gateway.ack")["sequence"] < sequence:
            pass

    def close(self) -> None:
        self._client.close()
