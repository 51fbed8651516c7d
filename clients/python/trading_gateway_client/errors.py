"""What can go wrong, as exceptions that carry what the gateway said."""

from collections.abc import Mapping

_LONGEST_WAIT = 3600.0
PROBLEM_TYPE = "application/problem+json"
# What the protocol names as final, by the HTTP status and the code of the gateway's own problem document: a person must
# change something first. Whatever else comes (of a proxy, of a newer gateway) is tried again with back-off.
_FINAL: Mapping[int, frozenset[str]] = {
    400: frozenset({"heard_invalid", "query_invalid", "stream_invalid", "writer_invalid"}),
    401: frozenset({"api_key_invalid", "token_invalid", "token_missing", "token_revoked"}),
    402: frozenset({"payment_required"}),
    403: frozenset(
        {"account_not_allowed", "company_suspended", "origin_not_allowed", "scope_missing", "user_disabled"}
    ),
}


def is_final_refusal(status: int, code: str) -> bool:
    """``code``: of a problem document, "" when the answer was none."""
    return code in _FINAL.get(status, ())


def is_problem(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == PROBLEM_TYPE


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

    def __init__(
        self, status: int, code: str, detail: str, retry_after: float = 0.0, *, is_final: bool | None = None
    ) -> None:
        """``is_final``: by default what the protocol says of this status and code."""
        super().__init__(f"connect refused: {status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        # Seconds; 0 when the answer gave none.
        self.retry_after = retry_after
        self.retryable = not (is_final_refusal(status, code) if is_final is None else is_final)


class JournalCorrupt(GatewayClientError):
    """A journal file was spoilt, or a line of it is missing; the file is left as it was."""


class JournalFull(GatewayClientError):
    """As many messages wait for their acknowledgement as the journal holds; ``send`` waits instead."""

    retryable = True


class JournalInUse(GatewayClientError):
    """Another client, of this program or another one, has the journal file open."""


class MessageTooLarge(GatewayClientError):
    """The message is larger than the gateway takes; it was not queued."""


class TokenUnavailable(GatewayClientError):
    """No token could be had; ``status`` is the HTTP status of the refusal, 0 when nobody answered."""

    def __init__(
        self, status: int, detail: str, retry_after: float = 0.0, *, code: str = "", is_final: bool | None = None
    ) -> None:
        """``is_final``: whether asking again is of no use; by default 401, 402 and 403 say so."""
        super().__init__(f"no token: {detail}")
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.retryable = not (status in (401, 402, 403) if is_final is None else is_final)


class UnreadableAnswer(GatewayClientError):
    """Something came from the other side that is no answer of a gateway."""
