from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubscriptionTier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIER_FREE: _ClassVar[SubscriptionTier]
    TIER_PRO: _ClassVar[SubscriptionTier]
    TIER_ENTERPRISE: _ClassVar[SubscriptionTier]
TIER_FREE: SubscriptionTier
TIER_PRO: SubscriptionTier
TIER_ENTERPRISE: SubscriptionTier

class UserToken(_message.Message):
    __slots__ = ("user_id", "company_id", "subscription_tier", "issued_at", "expires_at")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    COMPANY_ID_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIPTION_TIER_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    company_id: str
    subscription_tier: SubscriptionTier
    issued_at: int
    expires_at: int
    def __init__(self, user_id: _Optional[str] = ..., company_id: _Optional[str] = ..., subscription_tier: _Optional[_Union[SubscriptionTier, str]] = ..., issued_at: _Optional[int] = ..., expires_at: _Optional[int] = ...) -> None: ...
