"""A terminal that streams in a thread of its own, by the client library, until its block ends."""

import asyncio
import ssl
import threading

from tests.support.gateway import until
from trading_gateway_client import GatewayClient, Outcomes, Tick, api_key_token


class Streamer:
    """Ticks of one account, ten a second. After the block ``is_settled`` says whether every message is."""

    def __init__(self, url: str, gateway: str, key: str, account: str, *, tls: ssl.SSLContext | None = None) -> None:
        self._url, self._gateway, self._key, self._account, self._tls = url, gateway, key, account, tls
        self._stopping = threading.Event()
        self.outcomes = Outcomes()
        self.is_settled = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._stream()), daemon=True)

    def __enter__(self) -> "Streamer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(40)

    def wait_for_more(self, count: int) -> None:
        """Until Kafka has so many more of its messages."""
        enough = self.outcomes.acknowledged + count
        until(lambda: self.outcomes.acknowledged >= enough, 20, "messages that Kafka has")

    async def _stream(self) -> None:
        client = GatewayClient(self._url, api_key_token(self._gateway, self._key, tls=self._tls), tls=self._tls)
        self.outcomes = client.outcomes
        try:
            await client.start()
            while not self._stopping.is_set():
                await client.send_ticks([Tick(symbol="EURUSD", bid=1.1, ask=1.2)], self._account)
                await asyncio.sleep(0.1)
        finally:
            self.is_settled = await client.close(30)
