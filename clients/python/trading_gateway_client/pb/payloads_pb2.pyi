from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TradeAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRADE_ACTION_UNSPECIFIED: _ClassVar[TradeAction]
    TRADE_ACTION_BUY: _ClassVar[TradeAction]
    TRADE_ACTION_SELL: _ClassVar[TradeAction]
    TRADE_ACTION_CLOSE: _ClassVar[TradeAction]
    TRADE_ACTION_MODIFY: _ClassVar[TradeAction]
    TRADE_ACTION_CANCEL: _ClassVar[TradeAction]

class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEVERITY_UNSPECIFIED: _ClassVar[Severity]
    SEVERITY_INFO: _ClassVar[Severity]
    SEVERITY_WARNING: _ClassVar[Severity]
    SEVERITY_CRITICAL: _ClassVar[Severity]
TRADE_ACTION_UNSPECIFIED: TradeAction
TRADE_ACTION_BUY: TradeAction
TRADE_ACTION_SELL: TradeAction
TRADE_ACTION_CLOSE: TradeAction
TRADE_ACTION_MODIFY: TradeAction
TRADE_ACTION_CANCEL: TradeAction
SEVERITY_UNSPECIFIED: Severity
SEVERITY_INFO: Severity
SEVERITY_WARNING: Severity
SEVERITY_CRITICAL: Severity

class BatchTickData(_message.Message):
    __slots__ = ("ticks", "account")
    TICKS_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    ticks: _containers.RepeatedCompositeFieldContainer[Tick]
    account: str
    def __init__(self, ticks: _Optional[_Iterable[_Union[Tick, _Mapping]]] = ..., account: _Optional[str] = ...) -> None: ...

class Tick(_message.Message):
    __slots__ = ("symbol", "bid", "ask", "time_msc", "volume", "last")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    BID_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    TIME_MSC_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    bid: float
    ask: float
    time_msc: int
    volume: float
    last: float
    def __init__(self, symbol: _Optional[str] = ..., bid: _Optional[float] = ..., ask: _Optional[float] = ..., time_msc: _Optional[int] = ..., volume: _Optional[float] = ..., last: _Optional[float] = ...) -> None: ...

class TradingSignal(_message.Message):
    __slots__ = ("signal_id", "symbol", "action", "price", "stop_loss", "take_profit", "volume", "account", "time_msc", "magic", "comment")
    SIGNAL_ID_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    STOP_LOSS_FIELD_NUMBER: _ClassVar[int]
    TAKE_PROFIT_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    TIME_MSC_FIELD_NUMBER: _ClassVar[int]
    MAGIC_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    signal_id: str
    symbol: str
    action: TradeAction
    price: float
    stop_loss: float
    take_profit: float
    volume: float
    account: str
    time_msc: int
    magic: int
    comment: str
    def __init__(self, signal_id: _Optional[str] = ..., symbol: _Optional[str] = ..., action: _Optional[_Union[TradeAction, str]] = ..., price: _Optional[float] = ..., stop_loss: _Optional[float] = ..., take_profit: _Optional[float] = ..., volume: _Optional[float] = ..., account: _Optional[str] = ..., time_msc: _Optional[int] = ..., magic: _Optional[int] = ..., comment: _Optional[str] = ...) -> None: ...

class UserEvent(_message.Message):
    __slots__ = ("event_type", "account", "time_msc", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    TIME_MSC_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    event_type: str
    account: str
    time_msc: int
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, event_type: _Optional[str] = ..., account: _Optional[str] = ..., time_msc: _Optional[int] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Notification(_message.Message):
    __slots__ = ("notification_id", "severity", "title", "body", "account", "time_msc")
    NOTIFICATION_ID_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    TIME_MSC_FIELD_NUMBER: _ClassVar[int]
    notification_id: str
    severity: Severity
    title: str
    body: str
    account: str
    time_msc: int
    def __init__(self, notification_id: _Optional[str] = ..., severity: _Optional[_Union[Severity, str]] = ..., title: _Optional[str] = ..., body: _Optional[str] = ..., account: _Optional[str] = ..., time_msc: _Optional[int] = ...) -> None: ...
