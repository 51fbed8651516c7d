"""Which connection carries a stream: one of all processes, the newest. Room: streaming.

A connection claims its stream before it is accepted. The one before it ends with 4006: at once in this process, by news
in the others, and where no news came when it next writes how far its stream has come.
"""

from streaming.core.codes import CloseCode
from streaming.core.session import Session
from streaming.core.stream import StreamPosition
from streaming.positions import Claim, PositionStore
from streaming.registry import Connection, Registry, StreamKey

# What the loser is told to wait, so that two terminals of one name do not throw each other out each second.
_RETRY_MS, _JITTER_MS = 5_000, 5_000


class Carriers:
    """Those of one process."""

    def __init__(self, registry: Registry, positions: PositionStore) -> None:
        self._registry = registry
        self._positions = positions
        positions.on_fenced = self._fenced

    async def claim(self, key: StreamKey) -> Claim:
        return await self._positions.claim(key)

    def position(self, key: StreamKey, claim: Claim) -> tuple[StreamPosition, bool]:
        """Where the stream stands, and whether that is known at all: by the store, or by this process."""
        is_known = claim.stored is not None or key in self._registry.streams
        return self._registry.stream(key, claim.stored, claim.stored_fence).position, is_known

    def take(self, connection: Connection) -> Connection | None:
        """Registers the connection; the one whose stream it carries from now on."""
        before = None if connection.stream is None else self._registry.carriers.get(connection.stream[:2])
        self._registry.add(connection)
        return before

    def settle(self, connection: Connection, before: Connection | None) -> None:
        """Ends the older one of the two, or this one where a third is newer."""
        if connection.stream is None:
            return
        # A claim is only held by who has written under it: news of a newer one may have come before this connection.
        self._positions.mark(connection.stream)
        carrier = self._registry.carriers.get(connection.stream[:2])
        for one in (before, connection):
            if one is not None and one is not carrier:
                _end(one)

    def heard(self, user_id: str, stream_id: str, fence: int) -> None:
        """A connection of any process has claimed a stream: an older one here ends."""
        carrier = self._registry.carriers.get((user_id, stream_id))
        if carrier is not None and carrier.fence < fence:
            _end(carrier)

    def current(self, session: Session) -> Session:
        """The session that carries the stream of ``session`` now: itself, or the one that took its place."""
        if session.closed:
            carrier = self._registry.carriers.get((session.policy.user_id, session.stream_id))
            if carrier is not None and carrier.session.position is session.position:
                return carrier.session
        return session

    def restarted(self, session: Session) -> None:
        """The client of a session has begun its stream anew."""
        entry = self._registry.streams.get(session.stream_key) if session.stream_key is not None else None
        if entry is not None and entry.connection is not None and entry.connection.session is session:
            entry.position = session.position
            self.moved(session)

    def moved(self, session: Session) -> None:
        """The stream of a session has come further; also of one that has gone, whose successor reads this."""
        if session.stream_key is not None:
            self._positions.mark(session.stream_key)

    def _fenced(self, key: StreamKey, fence: int) -> None:
        """The store has refused what the connection with ``fence`` has settled: another one writes the stream."""
        self.heard(key[0], key[1], fence + 1)


def _end(connection: Connection) -> None:
    reason = "the same stream was opened anew: give each terminal a stream of its own"
    connection.session.end(CloseCode.SESSION_REPLACED, reason, retry_after_ms=_RETRY_MS, jitter_ms=_JITTER_MS)
