"""What can go wrong, as exceptions that carry what the gateway said."""

_LONGEST_WAIT = 3600.0


def seconds_of(retry_after: str) -> float:
    """Seconds of a Retry-After header, an hour at most; 0.0 when it is absent, a date or nonsense."""
    return min(float(retry_after), _LONGEST_WAIT) if retry_after.isascii() and retry_after.isdecimal() else 0.0


class GatewayClientError(Exception):
    """Base of all errors of this library."""

    retryable = False


class ConnectionEnded(GatewayClientError):
    """The gateway ended the connection and asks the client not to come back; ``code`` is its close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the gateway ended the connection: {code} {reason}")
        self.code = code
        self.reason = reason


class HandshakeRefused(GatewayClientError):
    """The gateway answered the connect with an HTTP status; ``code`` is the stable name of the reason."""

    def __init__(self, status: int, code: str, detail: str, retry_after: float = 0.0) -> None:
        super().__init__(f"connect refused: {status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        # Seconds; 0 when the answer gave none.
        self.retry_after = retry_after

    @property
    def retryable(self) -> bool:  # type: ignore[override]  # depends on the answer
        return self.status in (429, 500, 502, 503, 504)


class JournalCorrupt(GatewayClientError):
    """A line in the middle of a journal file cannot be read; the file is left as it was."""


class JournalFull(GatewayClientError):
    """As many messages wait for their acknowledgement as the journal holds; ``send`` waits instead."""

    retryable = True


class JournalInUse(GatewayClientError):
    """Another client, of this program or another one, has the journal file open."""


class MessageTooLarge(GatewayClientError):
    """The message is larger than the gateway takes; it was not queued."""


class TokenUnavailable(GatewayClientError):
    """No token could be had; ``status`` is the HTTP status of the refusal, 0 when nobody answered."""

    def __init__(self, status: int, detail: str, retry_after: float = 0.0) -> None:
        super().__init__(f"no token: {detail}")
        self.status = status
        self.retry_after = retry_after

    @property
    def retryable(self) -> bool:  # type: ignore[override]  # depends on the answer
        return self.status == 0 or self.status in (429, 500, 502, 503, 504)


class UnreadableAnswer(GatewayClientError):
    """Something came from the other side that is no answer of a gateway."""
