"""What can be wrong with one message. Room: streaming.core (pure)."""

from streaming.core.codes import NackCode


class MessageRefused(Exception):
    """One message that does not go on, with the answer its sender gets.

    ``reason`` is shown to the client: it names what to do and never holds another user's data.
    """

    def __init__(self, code: NackCode, reason: str, *, retry_after_ms: int = 0) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.retry_after_ms = retry_after_ms

    @property
    def retryable(self) -> bool:
        """Whether the same content may succeed when it is sent again later."""
        return self.code in (NackCode.RATE_LIMITED, NackCode.BACKEND_UNAVAILABLE, NackCode.SEQUENCE_GAP)


class RefreshRefused(Exception):
    """A token offered by ``gateway.refresh`` that is not taken; ``fatal`` ends the connection."""

    def __init__(self, reason: str, *, fatal: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fatal = fatal
