from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NackAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NACK_ACTION_UNSPECIFIED: _ClassVar[NackAction]
    NACK_ACTION_RESEND: _ClassVar[NackAction]
    NACK_ACTION_REOFFER: _ClassVar[NackAction]
    NACK_ACTION_FINAL: _ClassVar[NackAction]
NACK_ACTION_UNSPECIFIED: NackAction
NACK_ACTION_RESEND: NackAction
NACK_ACTION_REOFFER: NackAction
NACK_ACTION_FINAL: NackAction

class Policy(_message.Message):
    __slots__ = ("tier", "version", "message_rate_limit", "connection_limit", "active_pairs", "pair_limit", "accounts", "account_limit", "features", "message_size_limit", "in_flight_limit", "company_connection_limit", "monthly_data_limit", "token_expires_at_ms", "server_time_ms")
    TIER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_RATE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_LIMIT_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_PAIRS_FIELD_NUMBER: _ClassVar[int]
    PAIR_LIMIT_FIELD_NUMBER: _ClassVar[int]
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_LIMIT_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_SIZE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_LIMIT_FIELD_NUMBER: _ClassVar[int]
    COMPANY_CONNECTION_LIMIT_FIELD_NUMBER: _ClassVar[int]
    MONTHLY_DATA_LIMIT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    tier: str
    version: int
    message_rate_limit: float
    connection_limit: int
    active_pairs: _containers.RepeatedScalarFieldContainer[str]
    pair_limit: int
    accounts: _containers.RepeatedScalarFieldContainer[str]
    account_limit: int
    features: _containers.RepeatedScalarFieldContainer[str]
    message_size_limit: int
    in_flight_limit: int
    company_connection_limit: int
    monthly_data_limit: int
    token_expires_at_ms: int
    server_time_ms: int
    def __init__(self, tier: _Optional[str] = ..., version: _Optional[int] = ..., message_rate_limit: _Optional[float] = ..., connection_limit: _Optional[int] = ..., active_pairs: _Optional[_Iterable[str]] = ..., pair_limit: _Optional[int] = ..., accounts: _Optional[_Iterable[str]] = ..., account_limit: _Optional[int] = ..., features: _Optional[_Iterable[str]] = ..., message_size_limit: _Optional[int] = ..., in_flight_limit: _Optional[int] = ..., company_connection_limit: _Optional[int] = ..., monthly_data_limit: _Optional[int] = ..., token_expires_at_ms: _Optional[int] = ..., server_time_ms: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("first", "last", "code", "action")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    code: str
    action: NackAction
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ..., code: _Optional[str] = ..., action: _Optional[_Union[NackAction, str]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("session_id", "server_time_ms", "policy", "ping_interval_ms", "last_acknowledged_sequence", "token_expires_at_ms", "position_known", "refusals", "refusals_from", "stream_fence", "stream_writer")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    PING_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_ACKNOWLEDGED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    POSITION_KNOWN_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FROM_FIELD_NUMBER: _ClassVar[int]
    STREAM_FENCE_FIELD_NUMBER: _ClassVar[int]
    STREAM_WRITER_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    server_time_ms: int
    policy: Policy
    ping_interval_ms: int
    last_acknowledged_sequence: int
    token_expires_at_ms: int
    position_known: bool
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    refusals_from: int
    stream_fence: int
    stream_writer: str
    def __init__(self, session_id: _Optional[str] = ..., server_time_ms: _Optional[int] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., ping_interval_ms: _Optional[int] = ..., last_acknowledged_sequence: _Optional[int] = ..., token_expires_at_ms: _Optional[int] = ..., position_known: _Optional[bool] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ..., refusals_from: _Optional[int] = ..., stream_fence: _Optional[int] = ..., stream_writer: _Optional[str] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class Nack(_message.Message):
    __slots__ = ("sequence", "code", "reason", "retry_after_ms", "retryable", "settled", "action", "kept")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    code: str
    reason: str
    retry_after_ms: int
    retryable: bool
    settled: bool
    action: NackAction
    kept: bool
    def __init__(self, sequence: _Optional[int] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ..., retry_after_ms: _Optional[int] = ..., retryable: _Optional[bool] = ..., settled: _Optional[bool] = ..., action: _Optional[_Union[NackAction, str]] = ..., kept: _Optional[bool] = ...) -> None: ...

class Notice(_message.Message):
    __slots__ = ("code", "reason", "detail")
    class DetailEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    code: str
    reason: str
    detail: _containers.ScalarMap[str, str]
    def __init__(self, code: _Optional[str] = ..., reason: _Optional[str] = ..., detail: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Disconnect(_message.Message):
    __slots__ = ("code", "reason", "reconnect", "retry_after_ms", "jitter_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    JITTER_MS_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    reconnect: bool
    retry_after_ms: int
    jitter_ms: int
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., reconnect: _Optional[bool] = ..., retry_after_ms: _Optional[int] = ..., jitter_ms: _Optional[int] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("client_time_ms", "heard_sequence")
    CLIENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    HEARD_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    client_time_ms: int
    heard_sequence: int
    def __init__(self, client_time_ms: _Optional[int] = ..., heard_sequence: _Optional[int] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("client_time_ms", "server_time_ms")
    CLIENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    client_time_ms: int
    server_time_ms: int
    def __init__(self, client_time_ms: _Optional[int] = ..., server_time_ms: _Optional[int] = ...) -> None: ...

class Refresh(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...
