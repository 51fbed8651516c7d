from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class MessageEnvelope(_message.Message):
    __slots__ = ("message_type", "user_id", "company_id", "payload", "timestamp", "correlation_id", "enable_tracing", "sequence", "stream_id", "received_at", "session_id", "stream_writer")
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    COMPANY_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    ENABLE_TRACING_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_WRITER_FIELD_NUMBER: _ClassVar[int]
    message_type: str
    user_id: str
    company_id: str
    payload: bytes
    timestamp: int
    correlation_id: str
    enable_tracing: bool
    sequence: int
    stream_id: str
    received_at: int
    session_id: str
    stream_writer: str
    def __init__(self, message_type: _Optional[str] = ..., user_id: _Optional[str] = ..., company_id: _Optional[str] = ..., payload: _Optional[bytes] = ..., timestamp: _Optional[int] = ..., correlation_id: _Optional[str] = ..., enable_tracing: _Optional[bool] = ..., sequence: _Optional[int] = ..., stream_id: _Optional[str] = ..., received_at: _Optional[int] = ..., session_id: _Optional[str] = ..., stream_writer: _Optional[str] = ...) -> None: ...
