"""Stream ticks and signals to the trading gateway and know for each message whether Kafka has it."""

from trading_gateway_client.client import GatewayClient
from trading_gateway_client.disk import DiskJournal
from trading_gateway_client.errors import (
    ConnectionEnded,
    GatewayClientError,
    HandshakeRefused,
    JournalCorrupt,
    JournalFull,
    JournalInUse,
    MessageTooLarge,
    TokenUnavailable,
)
from trading_gateway_client.journal import Entry, Journal
from trading_gateway_client.outcomes import Outcomes
from trading_gateway_client.pb.payloads_pb2 import BatchTickData, Notification, Tick, TradingSignal, UserEvent
from trading_gateway_client.tokens import TokenSource, api_key_token, fixed_token

__all__ = [
    "BatchTickData",
    "ConnectionEnded",
    "DiskJournal",
    "Entry",
    "GatewayClient",
    "GatewayClientError",
    "HandshakeRefused",
    "Journal",
    "JournalCorrupt",
    "JournalFull",
    "JournalInUse",
    "MessageTooLarge",
    "Notification",
    "Outcomes",
    "Tick",
    "TokenSource",
    "TokenUnavailable",
    "TradingSignal",
    "UserEvent",
    "api_key_token",
    "fixed_token",
]
