"""The live sessions of this process, by user and company; where cut-off and policy changes arrive. Room: streaming."""

from dataclasses import dataclass

from streaming.core.policy import UserPolicy
from streaming.core.session import Session
from streaming.core.stream import StreamPosition
from streaming.core.throttle import TokenBucket
from streaming.peers import ConnectionPeer

StreamKey = tuple[str, str]

# Seconds that a bucket or a position is remembered after the last connection that used it.
_BUCKET_MEMORY = 120.0
_POSITION_MEMORY = 600.0


@dataclass(slots=True, eq=False)
class Connection:
    """One live session and its deadlines, in seconds of the monotonic clock."""

    session: Session
    peer: ConnectionPeer
    jti: str
    token_deadline: float
    access_deadline: float
    stream: StreamKey | None

    @property
    def user_id(self) -> str:
        return self.session.policy.user_id


@dataclass(slots=True)
class UserEntry:
    """What is shared by all connections of a user in this process."""

    bucket: TokenBucket
    connects: TokenBucket
    connections: set[Connection]
    # Connections admitted and not registered yet, so that two at once cannot both take the last place.
    reserved: int = 0
    idle_since: float = 0.0

    @property
    def held(self) -> int:
        return len(self.connections) + self.reserved


@dataclass(slots=True)
class StreamEntry:
    """A stream and the connection that carries it now, if any."""

    position: StreamPosition
    connection: Connection | None = None
    idle_since: float = 0.0


class Registry:
    """Plain dictionaries; everything runs on one event loop."""

    def __init__(self, connect_rate_limit: float) -> None:
        self._connect_rate_limit = connect_rate_limit
        # By session id.
        self.connections: dict[str, Connection] = {}
        self.users: dict[str, UserEntry] = {}
        self.streams: dict[StreamKey, StreamEntry] = {}

    def user(self, policy: UserPolicy, now: float) -> UserEntry:
        """The entry of a user, made at the first connection; its bucket follows the policy's rate."""
        rate = policy.message_rate_limit
        entry = self.users.get(policy.user_id)
        if entry is None:
            connects = TokenBucket(self._connect_rate_limit, 10 * self._connect_rate_limit, now)
            entry = self.users[policy.user_id] = UserEntry(TokenBucket(rate, rate, now), connects, set())
        else:
            entry.bucket.change(rate, rate)
        # Also for whoever never comes further than the handshake.
        entry.idle_since = now
        return entry

    def stream(self, key: StreamKey, acknowledged: int) -> StreamEntry:
        """The entry of a stream, caught up to what the shared store knows."""
        entry = self.streams.get(key)
        if entry is None:
            entry = self.streams[key] = StreamEntry(StreamPosition(acknowledged))
        else:
            entry.position.catch_up(acknowledged)
        return entry

    def add(self, connection: Connection) -> None:
        self.connections[connection.session.session_id] = connection
        self.users[connection.user_id].connections.add(connection)
        if connection.stream is not None:
            self.streams[connection.stream].connection = connection

    def remove(self, connection: Connection, now: float) -> None:
        del self.connections[connection.session.session_id]
        entry = self.users[connection.user_id]
        entry.connections.discard(connection)
        entry.idle_since = now
        if connection.stream is not None:
            stream = self.streams.get(connection.stream)
            if stream is not None and stream.connection is connection:
                stream.connection = None
                stream.idle_since = now

    def forget_idle(self, now: float) -> None:
        """Drops what nobody has used for a while; a position is in the shared store by then."""
        for user_id in [u for u, e in self.users.items() if not e.held and now - e.idle_since > _BUCKET_MEMORY]:
            del self.users[user_id]
        for key in [
            k for k, e in self.streams.items() if e.connection is None and now - e.idle_since > _POSITION_MEMORY
        ]:
            del self.streams[key]
