"""The registry of close and nack codes that clients rely on. Room: streaming.core (pure)."""

from enum import IntEnum, StrEnum


class CloseCode(IntEnum):
    """Why a connection ended.

    1000 to 1015 keep the meaning of RFC 6455; 4000 to 4499 ask the client to reconnect after the hint, 4500 to 4999
    not to.
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    INVALID_DATA = 1007
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    TOKEN_EXPIRED = 4000
    SLOW_CONSUMER = 4001
    IDLE_TIMEOUT = 4002
    BACKEND_UNAVAILABLE = 4003
    RATE_ABUSE = 4004
    BANNED_TEMPORARILY = 4005
    SESSION_REPLACED = 4006
    TOKEN_INVALID = 4500
    TOKEN_REVOKED = 4501
    PAYMENT_REQUIRED = 4502
    COMPANY_SUSPENDED = 4503
    USER_DISABLED = 4504
    CONNECTION_LIMIT = 4505
    ACCOUNT_NOT_ALLOWED = 4506
    UNSUPPORTED_PROTOCOL = 4507
    PROTOCOL_ABUSE = 4508

    @property
    def reconnect(self) -> bool:
        """Whether a client should come back by itself."""
        return 4000 <= self < 4500 or self in (1001, 1011, 1012, 1013)


class NackCode(StrEnum):
    """Why one message was refused."""

    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    UNKNOWN_TYPE = "unknown_type"
    PAYLOAD_MISMATCH = "payload_mismatch"
    RATE_LIMITED = "rate_limited"
    PAIR_LIMIT = "pair_limit"
    PAIR_NOT_ACTIVE = "pair_not_active"
    ACCOUNT_UNKNOWN = "account_unknown"
    FEATURE_NOT_IN_PLAN = "feature_not_in_plan"
    QUOTA_EXCEEDED = "quota_exceeded"
    SEQUENCE_GAP = "sequence_gap"
    DUPLICATE = "duplicate"
    BACKEND_UNAVAILABLE = "backend_unavailable"
    TOKEN_INVALID = "token_invalid"  # noqa: S105 (a code, not a token)


class NoticeCode(StrEnum):
    """What a client is told of that loses nothing."""

    PAIR_NOT_ACTIVE = "pair_not_active"
    NO_PRICE = "no_price"
    QUOTA_80_PERCENT = "quota_80_percent"
    QUOTA_REACHED = "quota_reached"
    STREAM_RESTARTED = "stream_restarted"
    SEQUENCE_JUMP = "sequence_jump"
    QUERY_UNKNOWN = "query_unknown"


class NackAction(IntEnum):
    """What a client may do with a refused sequence; numbers as in ``control.proto``."""

    # Not settled: send the same sequence again.
    RESEND = 1
    # Settled, not recorded: the content may be offered anew under a new sequence.
    REOFFER = 2
    # Settled, not recorded: the same content would be refused again.
    FINAL = 3


# What follows from a code unless its refusal says otherwise.
ACTIONS: dict[NackCode, NackAction] = {
    **dict.fromkeys(NackCode, NackAction.FINAL),
    NackCode.RATE_LIMITED: NackAction.REOFFER,
    NackCode.SEQUENCE_GAP: NackAction.RESEND,
    NackCode.BACKEND_UNAVAILABLE: NackAction.RESEND,
}

# A message refused with one of these is kept, byte for byte, in the failed-messages topic.
KEPT_REFUSALS = frozenset({NackCode.MALFORMED, NackCode.UNKNOWN_TYPE, NackCode.PAYLOAD_MISMATCH})
