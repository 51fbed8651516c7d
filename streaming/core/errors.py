"""What can be wrong with one message. Room: streaming.core (pure)."""

from streaming.core.codes import ACTIONS, NackAction, NackCode


class MessageRefused(Exception):
    """One message that does not go on, with the answer its sender gets.

    ``reason`` is shown to the client: it names what to do and never holds another user's data. ``retry_after_ms``: 0
    when waiting does not help. ``action``: what the client may do with the sequence, by default what follows from the
    code. ``harmless``: a quirk of a terminal, which is answered but neither kept nor held against its user.
    """

    def __init__(
        self,
        code: NackCode,
        reason: str,
        *,
        retry_after_ms: int = 0,
        action: NackAction | None = None,
        harmless: bool = False,
    ) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.retry_after_ms = retry_after_ms
        self.action = ACTIONS[code] if action is None else action
        self.harmless = harmless


class RefreshRefused(Exception):
    """A token offered by ``gateway.refresh`` that is not taken; ``fatal`` ends the connection."""

    def __init__(self, reason: str, *, fatal: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fatal = fatal
