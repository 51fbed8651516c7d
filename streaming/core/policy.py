"""What one user may do on the stream, and the limits of every connection. Room: streaming.core (pure)."""

from dataclasses import dataclass, replace

from proto.gateway.v1 import control_pb2


@dataclass(frozen=True, slots=True)
class UserPolicy:
    """One immutable set of limits; a change in the database makes a new one with a larger ``version``."""

    user_id: str
    company_id: str
    tier: str
    version: int
    # Messages a second over all connections of the user.
    message_rate_limit: float
    connection_limit: int
    # Connections of the whole company.
    company_connection_limit: int
    pair_limit: int
    account_limit: int
    active_pairs: frozenset[str]
    accounts: frozenset[str]
    # Any of signals, alerts, replay.
    features: frozenset[str]
    # Bytes a month of the whole company.
    monthly_data_limit: int

    @property
    def only_account(self) -> str:
        """The user's MT5 login where there is exactly one, so that nobody needs to name it; else ""."""
        return next(iter(self.accounts)) if len(self.accounts) == 1 else ""

    def differs(self, other: "UserPolicy") -> bool:
        """Whether more than the version is another."""
        return replace(self, version=other.version) != other


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The same for all connections of a process."""

    # Bytes of one WebSocket message.
    message_size_limit: int = 65_536
    # Messages of one connection that may wait for Kafka at once.
    in_flight_limit: int = 256
    ping_interval_ms: int = 20_000


def policy_message(policy: UserPolicy, limits: ConnectionLimits) -> control_pb2.Policy:
    """The limits as the client is told them."""
    return control_pb2.Policy(
        tier=policy.tier,
        version=policy.version,
        message_rate_limit=policy.message_rate_limit,
        connection_limit=policy.connection_limit,
        active_pairs=sorted(policy.active_pairs),
        pair_limit=policy.pair_limit,
        accounts=sorted(policy.accounts),
        account_limit=policy.account_limit,
        features=sorted(policy.features),
        message_size_limit=limits.message_size_limit,
        in_flight_limit=limits.in_flight_limit,
        company_connection_limit=policy.company_connection_limit,
        monthly_data_limit=policy.monthly_data_limit,
    )
