from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class SubscriptionStatus(_message.Message):
    __slots__ = ("company_id", "tier", "status", "paid_until", "access_version", "occurred_at")
    COMPANY_ID_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PAID_UNTIL_FIELD_NUMBER: _ClassVar[int]
    ACCESS_VERSION_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    company_id: str
    tier: str
    status: str
    paid_until: int
    access_version: int
    occurred_at: int
    def __init__(self, company_id: _Optional[str] = ..., tier: _Optional[str] = ..., status: _Optional[str] = ..., paid_until: _Optional[int] = ..., access_version: _Optional[int] = ..., occurred_at: _Optional[int] = ...) -> None: ...

class UserActivity(_message.Message):
    __slots__ = ("user_id", "company_id", "activity", "account", "occurred_at", "detail")
    class DetailEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    COMPANY_ID_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    company_id: str
    activity: str
    account: str
    occurred_at: int
    detail: _containers.ScalarMap[str, str]
    def __init__(self, user_id: _Optional[str] = ..., company_id: _Optional[str] = ..., activity: _Optional[str] = ..., account: _Optional[str] = ..., occurred_at: _Optional[int] = ..., detail: _Optional[_Mapping[str, str]] = ...) -> None: ...
