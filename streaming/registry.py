"""The live sessions of this process, by user and company; where cut-off and policy changes arrive. Room: streaming."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from streaming.core.breaker import UserConduct
from streaming.core.policy import UserPolicy
from streaming.core.session import Session
from streaming.core.shares import Mirror
from streaming.core.stream import StreamPosition
from streaming.core.throttle import MirroredBucket, TokenBucket
from streaming.core.volume import Volume
from streaming.peers import ConnectionPeer

# User id, stream id, and the writer as the client names it ("" when it names none).
StreamKey = tuple[str, str, str]

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
    entry: "UserEntry"
    # Id of the API key that the token came from, "" when from none.
    api_key: str = ""
    username: str = ""
    address: str = ""
    # The MT5 login that it was opened with, "" when with none.
    account: str = ""
    # Who is held to account for what it sends (see tenants.access.ban_source).
    source: str = ""
    # Unix seconds.
    opened_at: float = 0.0
    # Which of the connections of its stream it is: the one with the largest number carries the stream.
    fence: int = 0

    @property
    def user_id(self) -> str:
        return self.session.policy.user_id


@dataclass(slots=True)
class UserEntry:
    """What is shared by all connections of a user in this process."""

    # This process's copy of the user's bucket, and what keeps it in step with those of the others.
    bucket: MirroredBucket
    mirror: Mirror
    connects: TokenBucket
    conduct: UserConduct
    company: "CompanyEntry"
    # Of the company, as of which this is known: answers of the database may overtake each other.
    version: int = 0
    connections: set[Connection] = field(default_factory=set)
    # Connections admitted and not registered yet, so that two at once cannot both take the last place.
    reserved: int = 0
    idle_since: float = 0.0
    # Bans within a day, as the database knows them.
    bans: int = 0
    # Keys that tokens may come from, and when each ends, in Unix seconds.
    api_keys: Mapping[str, float] = field(default_factory=dict)
    # The entry in the company that the user has left, while connections of then are still here.
    earlier: "UserEntry | None" = None

    def all_connections(self) -> "list[Connection]":
        """A copy, with those of then."""
        return [*self.connections, *(self.earlier.all_connections() if self.earlier is not None else ())]

    @property
    def held(self) -> int:
        return len(self.connections) + self.reserved

    def reserve(self) -> None:
        """Takes a place, which ``release`` or the connection's end gives back."""
        self.reserved += 1
        self.company.held += 1

    def release(self) -> None:
        self.reserved -= 1
        self.company.held -= 1

    @property
    def rate_limit(self) -> float:
        """Messages a second over all processes."""
        return self.bucket.rate

    def set_rate(self, rate_limit: float) -> None:
        self.bucket.change(rate_limit, rate_limit)


@dataclass(slots=True)
class CompanyEntry:
    """What is shared by all connections of a company in this process."""

    company_id: str
    users: dict[str, "UserEntry"] = field(default_factory=dict)
    volume: Volume = field(default_factory=Volume)
    # Connections and reserved places.
    held: int = 0
    # Bytes; until the first connection brings it, none is used up.
    monthly_data_limit: int = sys.maxsize
    refuses_over_quota: bool = True
    # Percent of the month's volume that the connections here have been told of: 0, 80 or 100.
    noticed: int = 0


@dataclass(slots=True)
class StreamEntry:
    """One incarnation of a stream, the connection that carries it now, if any, and the fence of the last one here."""

    position: StreamPosition
    connection: Connection | None = None
    idle_since: float = 0.0
    fence: int = 0


class Registry:
    """Plain dictionaries; everything runs on one event loop."""

    def __init__(self, connect_rate_limit: float) -> None:
        self._connect_rate_limit = connect_rate_limit
        # By session id.
        self.connections: dict[str, Connection] = {}
        # By the id of the token that they live by.
        self.tokens: dict[str, set[Connection]] = {}
        self.users: dict[str, UserEntry] = {}
        self.companies: dict[str, CompanyEntry] = {}
        self.streams: dict[StreamKey, StreamEntry] = {}
        # By user id and stream id: the connection that carries the stream, under whichever writer.
        self.carriers: dict[tuple[str, str], Connection] = {}

    def user(self, policy: UserPolicy, now: float) -> UserEntry:
        """The entry of a user, made at the first connection; its bucket follows the policy's rate."""
        rate = policy.message_rate_limit
        entry = self.users.get(policy.user_id)
        if entry is None or entry.company.company_id != policy.company_id:
            connects = TokenBucket(self._connect_rate_limit, 10 * self._connect_rate_limit, now)
            company = self.company(policy.company_id)
            earlier = entry if entry is not None and entry.held else None
            bucket = MirroredBucket(rate, rate, now)
            entry = UserEntry(bucket, Mirror(bucket, now), connects, UserConduct(now), company, earlier=earlier)
            self.users[policy.user_id] = company.users[policy.user_id] = entry
        elif policy.version >= entry.version:
            entry.set_rate(rate)
        # Also for whoever never comes further than the handshake.
        entry.idle_since = now
        return entry

    def company(self, company_id: str) -> CompanyEntry:
        entry = self.companies.get(company_id)
        if entry is None:
            entry = self.companies[company_id] = CompanyEntry(company_id)
        return entry

    def held_by_user(self, user_id: str) -> int:
        entry = self.users.get(user_id)
        return 0 if entry is None else entry.held

    def held_by_company(self, company_id: str) -> int:
        entry = self.companies.get(company_id)
        return 0 if entry is None else entry.held

    def stream(self, key: StreamKey, stored: StreamPosition | None = None, stored_fence: int = 0) -> StreamEntry:
        """The entry of a stream, caught up to what the shared store knows (None: nothing), as a connection with
        ``stored_fence`` has written it."""
        entry = self.streams.get(key)
        if entry is None:
            entry = self.streams[key] = StreamEntry(stored or StreamPosition(writer=key[2]))
        elif stored is None:
            pass
        elif stored.writer == entry.position.writer:
            entry.position.catch_up(stored)
        elif stored_fence > entry.fence:
            # Begun anew at another process, after the last connection here.
            entry.position = stored
        return entry

    def fence(self, key: StreamKey) -> int:
        """The largest number that a connection of this stream has had here, 0 for none."""
        carrier, entry = self.carriers.get(key[:2]), self.streams.get(key)
        return max(carrier.fence if carrier is not None else 0, entry.fence if entry is not None else 0)

    def add(self, connection: Connection) -> None:
        """Registers the connection in the place that was reserved in its entry; the newest of a stream carries it."""
        self.connections[connection.session.session_id] = connection
        self.tokens.setdefault(connection.jti, set()).add(connection)
        connection.entry.reserved -= 1
        connection.entry.connections.add(connection)
        if connection.stream is not None and self.fence(connection.stream) <= connection.fence:
            self.carriers[connection.stream[:2]] = connection
            stream = self.streams[connection.stream]
            stream.connection, stream.fence = connection, connection.fence

    def change_token(self, connection: Connection, jti: str) -> None:
        """The connection lives by another token from now on."""
        self._drop_token(connection)
        connection.jti = jti
        self.tokens.setdefault(jti, set()).add(connection)

    def _drop_token(self, connection: Connection) -> None:
        others = self.tokens[connection.jti]
        others.discard(connection)
        if not others:
            del self.tokens[connection.jti]

    def remove(self, connection: Connection, now: float) -> None:
        del self.connections[connection.session.session_id]
        self._drop_token(connection)
        entry = connection.entry
        entry.connections.discard(connection)
        entry.company.held -= 1
        entry.idle_since = now
        if connection.stream is not None:
            if self.carriers.get(connection.stream[:2]) is connection:
                del self.carriers[connection.stream[:2]]
            stream = self.streams.get(connection.stream)
            if stream is not None and stream.connection is connection:
                stream.connection = None
                stream.idle_since = now

    def forget_idle(self, now: float) -> None:
        """Drops what nobody has used for a while; a position is in the shared store by then."""
        for user_id in [u for u, e in self.users.items() if not e.held and now - e.idle_since > _BUCKET_MEMORY]:
            del self.users[user_id]
        for company in self.companies.values():
            # An entry of a user who has moved to another company stays until its last connection has ended.
            for user_id in [u for u, e in company.users.items() if not e.held and self.users.get(u) is not e]:
                del company.users[user_id]
        for key in [
            k for k, e in self.streams.items() if e.connection is None and now - e.idle_since > _POSITION_MEMORY
        ]:
            del self.streams[key]
