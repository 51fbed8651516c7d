"""Checks of a payload against the type its envelope claims, and against the user's policy. Room: streaming.core (pure).

Every function takes the parsed payload and returns the bytes that go to Kafka: serialised anew from the known fields,
so nothing a client adds beyond the schema gets through. They raise MessageRefused.
"""

from collections.abc import Callable
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from proto.gateway.v1 import payloads_pb2
from streaming.core.codes import NackCode
from streaming.core.errors import MessageRefused
from streaming.core.policy import UserPolicy

SYMBOL_LIMIT = 32
ATTRIBUTE_LIMIT = 64


class PayloadNotes(Protocol):
    """What a check finds on the way and its session remembers."""

    # MT5 logins that messages of this connection were for.
    accounts: set[str]

    def filtered(self, symbols: set[str]) -> None:
        """These symbols were taken out of a batch; the batch goes on without them."""


def _check_account(account: str, policy: UserPolicy, notes: PayloadNotes) -> None:
    if account not in policy.accounts:
        raise MessageRefused(NackCode.ACCOUNT_UNKNOWN, "this MT5 account is not registered to the user")
    notes.accounts.add(account)


def check_ticks(batch: payloads_pb2.BatchTickData, policy: UserPolicy, notes: PayloadNotes) -> bytes:
    """Takes ticks of inactive pairs out; a batch with nothing left is refused."""
    ticks = batch.ticks
    if not ticks:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, "a tick batch needs at least one tick")
    if batch.account:
        _check_account(batch.account, policy, notes)
    active = policy.active_pairs
    total = 0.0
    inactive = None
    for tick in ticks:
        symbol = tick.symbol
        if symbol not in active:
            if not symbol or len(symbol) > SYMBOL_LIMIT:
                raise MessageRefused(
                    NackCode.PAYLOAD_MISMATCH, f"every tick needs a symbol of 1 to {SYMBOL_LIMIT} characters"
                )
            inactive = inactive or set()
            inactive.add(symbol)
        total += tick.bid + tick.ask + tick.volume
    # One test for all: a NaN or an infinity anywhere survives the sum, and only then is total - total not 0.
    if total - total != 0.0:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, "prices and volumes must be finite numbers")
    if inactive:
        kept = [tick for tick in ticks if tick.symbol in active]
        if not kept:
            raise MessageRefused(
                NackCode.PAIR_NOT_ACTIVE, "no pair of this batch is active for the user: activate it or send others"
            )
        notes.filtered(inactive)
        batch = payloads_pb2.BatchTickData(account=batch.account, ticks=kept)
    batch.DiscardUnknownFields()
    return batch.SerializeToString()


def check_signal(signal: payloads_pb2.TradingSignal, policy: UserPolicy, notes: PayloadNotes) -> bytes:
    if "signals" not in policy.features:
        raise MessageRefused(NackCode.FEATURE_NOT_IN_PLAN, "the company's plan does not include trading signals")
    if not signal.symbol or len(signal.symbol) > SYMBOL_LIMIT:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, f"a signal needs a symbol of 1 to {SYMBOL_LIMIT} characters")
    if signal.action not in payloads_pb2.TradeAction.values() or not signal.action:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, "a signal needs an action: BUY, SELL, CLOSE, MODIFY or CANCEL")
    total = signal.price + signal.stop_loss + signal.take_profit + signal.volume
    if total - total != 0.0:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, "prices and volumes must be finite numbers")
    if signal.account:
        _check_account(signal.account, policy, notes)
    if signal.symbol not in policy.active_pairs:
        raise MessageRefused(NackCode.PAIR_NOT_ACTIVE, "this pair is not active for the user")
    signal.DiscardUnknownFields()
    return signal.SerializeToString()


def check_event(event: payloads_pb2.UserEvent, policy: UserPolicy, notes: PayloadNotes) -> bytes:
    if not event.event_type:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, "a user event needs an event_type")
    if len(event.attributes) > ATTRIBUTE_LIMIT:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, f"a user event takes at most {ATTRIBUTE_LIMIT} attributes")
    if event.account:
        _check_account(event.account, policy, notes)
    event.DiscardUnknownFields()
    return event.SerializeToString()


def check_notification(note: payloads_pb2.Notification, policy: UserPolicy, notes: PayloadNotes) -> bytes:
    if "alerts" not in policy.features:
        raise MessageRefused(NackCode.FEATURE_NOT_IN_PLAN, "the company's plan does not include alerts")
    if not note.title and not note.body:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, "a notification needs a title or a body")
    if note.severity not in payloads_pb2.Severity.values():
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, "severity is INFO, WARNING or CRITICAL")
    if note.account:
        _check_account(note.account, policy, notes)
    note.DiscardUnknownFields()
    return note.SerializeToString()


# Reads and checks the payload of one message type.
PayloadCheck = Callable[[bytes, UserPolicy, PayloadNotes], bytes]


def _checked(parse: Callable[[bytes], Any], check: Callable[[Any, UserPolicy, PayloadNotes], bytes]) -> PayloadCheck:
    def run(data: bytes, policy: UserPolicy, notes: PayloadNotes) -> bytes:
        try:
            payload = parse(data)
        except DecodeError:
            raise MessageRefused(NackCode.PAYLOAD_MISMATCH, "the payload is not of its message_type") from None
        return check(payload, policy, notes)

    return run


_TYPES: dict[str, tuple[Callable[[bytes], Any], Callable[[Any, UserPolicy, PayloadNotes], bytes]]] = {
    "tick_data": (payloads_pb2.BatchTickData.FromString, check_ticks),
    "trading_signal": (payloads_pb2.TradingSignal.FromString, check_signal),
    "user_event": (payloads_pb2.UserEvent.FromString, check_event),
    "notification": (payloads_pb2.Notification.FromString, check_notification),
}
PARSERS = {message_type: parse for message_type, (parse, _) in _TYPES.items()}
CHECKS = {message_type: _checked(parse, check) for message_type, (parse, check) in _TYPES.items()}
