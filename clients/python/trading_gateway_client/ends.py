"""What follows from the end of a connection, or from one that did not come about. Pure."""

import logging

from trading_gateway_client.backoff import Backoff
from trading_gateway_client.errors import ConnectionEnded, HandshakeRefused, TokenUnavailable
from trading_gateway_client.pb import control_pb2

_SESSION_REPLACED = 4006
_LONGEST_HINT_MS = 3_600_000


class Ends:
    """Seconds until the next connect; raises what ends this client for good.

    Final is what the protocol names so: close codes 4500 to 4999, a gateway.disconnect with a code of its own that says
    not to reconnect, and the refusals of ``errors.is_final_refusal``.
    """

    def __init__(self, *, has_one_token: bool, backoff: Backoff | None = None, replaced: Backoff | None = None) -> None:
        """``has_one_token``: the source gives the same token always."""
        self._has_one_token = has_one_token
        self._backoff = backoff or Backoff()
        # Two clients with one stream take it from each other: ever more rarely, until one of them is stopped.
        self._replaced = replaced or Backoff(base=4.0, cap=300.0, stable_after=600.0, least=0.5)
        self._fresh_token_tried = False

    def connected_for(self, seconds: float) -> None:
        """Call it at the end of a connection that was welcomed."""
        self._fresh_token_tried = False
        self._backoff.connected_for(seconds)
        self._replaced.connected_for(seconds)

    def after_connection(self, end: ConnectionEnded, told: control_pb2.Disconnect | None) -> float:
        """``told``: the gateway's last message, if there was one."""
        if 4500 <= end.code < 5000 or (told is not None and not told.reconnect and told.code >= 4000):
            raise end
        delay = 0.0
        if told is not None and (told.retry_after_ms or told.jitter_ms):
            retry_after_ms, jitter_ms = (min(ms, _LONGEST_HINT_MS) for ms in (told.retry_after_ms, told.jitter_ms))
            delay = self._backoff.after_hint(retry_after_ms, jitter_ms)
        if end.code == _SESSION_REPLACED:
            return max(delay, self._replaced.after_failure())
        return delay or self._backoff.after_failure()

    def after_refusal(self, refused: HandshakeRefused | TokenUnavailable) -> float:
        if isinstance(refused, HandshakeRefused) and refused.status == 401:
            # The token may have run out or been replaced while this client was away: a new one is worth a try.
            is_final = not refused.retryable or (refused.code == "token_expired" and self._has_one_token)
            if is_final and self._fresh_token_tried:
                raise refused
            # One that is not final, of a proxy or of a token that has run out, says nothing of the fresh one.
            self._fresh_token_tried = self._fresh_token_tried or is_final
        elif not refused.retryable:
            raise refused
        return refused.retry_after + self._backoff.after_failure()

    def after_failure(self) -> float:
        """Nobody was there, or nobody who could be understood."""
        return self._backoff.after_failure()


def level_of(reason: Exception) -> int:
    """How loudly it is logged that there is no connection: where a person may have to act, as a warning."""
    if isinstance(reason, ConnectionEnded):
        # Most likely a second program has the same stream_id, or a copy of the journal.
        return logging.WARNING if reason.code == _SESSION_REPLACED else logging.INFO
    return logging.WARNING if isinstance(reason, HandshakeRefused | TokenUnavailable) else logging.INFO
