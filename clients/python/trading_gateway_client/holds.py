"""What a refusal asks for, and how long a lane of messages waits after one that is not final. Pure."""

from dataclasses import dataclass

from trading_gateway_client.pb import control_pb2

RESEND, REOFFER, FINAL = control_pb2.NACK_ACTION_RESEND, control_pb2.NACK_ACTION_REOFFER, control_pb2.NACK_ACTION_FINAL
# Seconds before something is offered anew, where the refusal asks for less: doubled with each round without success.
FIRST_WAIT = 0.1
_LONGEST_WAIT = 10.0


@dataclass(slots=True)
class Hold:
    """Whether nothing new goes out of one lane, since a message of it was refused for now."""

    is_active: bool = False
    # Seconds of the caller's clock.
    until: float = 0.0
    _failures: int = 0

    def begin(self, wait: float, now: float) -> None:
        """``wait``: seconds that the refusal asks for."""
        if not self.is_active:
            wait = max(wait, min(_LONGEST_WAIT, FIRST_WAIT * 2**self._failures))
            self._failures = min(self._failures + 1, 20)
            self.is_active = True
        self.until = max(self.until, now + wait)

    def end(self) -> None:
        self.is_active = False

    def succeeded(self) -> None:
        """A message of the lane was acknowledged."""
        self._failures = 0


def action_of_old(nack: control_pb2.Nack) -> int:
    """What a nack without an action means: of a gateway that does not know actions yet."""
    if nack.retryable or nack.code in ("backend_unavailable", "sequence_gap"):
        return RESEND
    return REOFFER if nack.code == "rate_limited" else FINAL
