"""Checks of a payload against the type its envelope claims, and against the user's policy. Room: streaming.core (pure).

Every function takes the parsed payload and returns the bytes that go to Kafka: serialised anew from the known fields,
so nothing a client adds beyond the schema gets through. They raise MessageRefused.
"""

from collections.abc import Callable
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from proto.gateway.v1 import payloads_pb2
from streaming.core.codes import NackCode, NoticeCode
from streaming.core.errors import MessageRefused
from streaming.core.policy import UserPolicy

SYMBOL_LIMIT = 32
ATTRIBUTE_LIMIT = 64
_NOT_FINITE = "prices and volumes must be finite numbers"
_NO_ACCOUNT = (
    "which MT5 account is it? Name it once: use an API key that is bound to it, connect with ?account=LOGIN, "
    'or write "account" in each message'
)
_NONE_REGISTERED = (
    "no MT5 account is registered to the user: the company's admin adds it in the console under MT5 accounts"
)
_NOT_REGISTERED = "this MT5 account is not registered to the user: the company's admin adds it under MT5 accounts"


class PayloadNotes(Protocol):
    """What a check asks of its connection, and what it finds on the way and its session remembers."""

    # MT5 logins that messages of this connection were for, all of them the user's and open to the connection.
    accounts: set[str]
    # The MT5 login that messages without one are for, "" when there is none.
    account: str
    # Whether messages may be for ``account`` alone, which is the only one of the policy then.
    is_bound: bool

    def filtered(self, code: NoticeCode, reason: str, symbols: set[str]) -> None:
        """Ticks of these symbols were taken out of a batch for this reason; the batch goes on without them."""


def _account_of(named: str, policy: UserPolicy, notes: PayloadNotes) -> str:
    """The MT5 login that a message is for, which the policy must have; ``named``: what the message says."""
    account = named or notes.account
    if account not in policy.accounts:
        account = account.strip()
        if account not in policy.accounts:
            raise MessageRefused(NackCode.ACCOUNT_UNKNOWN, _why_unknown(account, policy, notes))
    notes.accounts.add(account)
    return account


def _why_unknown(account: str, policy: UserPolicy, notes: PayloadNotes) -> str:
    if notes.is_bound:
        return f"the API key of this connection is bound to MT5 account {notes.account}: send its messages only"
    if not policy.accounts:
        return _NONE_REGISTERED
    return _NOT_REGISTERED if account else _NO_ACCOUNT


def check_ticks(batch: payloads_pb2.BatchTickData, policy: UserPolicy, notes: PayloadNotes) -> bytes:
    """Takes out ticks of inactive pairs and those without a price; a batch with nothing left is refused."""
    ticks = batch.ticks
    if not ticks:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, "a tick batch needs at least one tick", harmless=True)
    if batch.account not in notes.accounts:
        batch.account = _account_of(batch.account, policy, notes)
    active = policy.active_pairs
    total = 0.0
    odd = False
    for tick in ticks:
        bid = tick.bid
        ask = tick.ask
        # A price that is 0 may be one that is missing.
        if not bid or not ask or tick.symbol not in active:
            odd = True
        total += bid + ask + tick.volume + tick.last
    # One test for all: a NaN or an infinity anywhere survives the sum, and only then is total - total not 0.
    if total - total != 0.0:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, _NOT_FINITE)
    if odd:
        kept = _kept(ticks, active, notes)
        if len(kept) < len(ticks):
            batch = payloads_pb2.BatchTickData(account=batch.account, ticks=kept)
    batch.DiscardUnknownFields()
    return batch.SerializeToString()


def _kept(ticks: Any, active: frozenset[str], notes: PayloadNotes) -> list[payloads_pb2.Tick]:
    """The ticks that go on, all of which have what a tick needs; at least one."""
    kept: list[payloads_pb2.Tick] = []
    inactive: set[str] = set()
    priceless: set[str] = set()
    for place, tick in enumerate(ticks):
        symbol = tick.symbol
        if symbol not in active and symbol.strip() in active:
            # No broker's symbol begins or ends with a space.
            symbol = tick.symbol = symbol.strip()
        if not symbol or len(symbol) > SYMBOL_LIMIT:
            reason = f"ticks[{place}] needs a symbol of 1 to {SYMBOL_LIMIT} characters"
            raise MessageRefused(NackCode.PAYLOAD_MISMATCH, reason)
        if not tick.last:
            missing = [name for name in ("bid", "ask") if not tick.HasField(name)]
            # One that has nothing but a last price of 0 has none to miss.
            if missing and not (len(missing) == 2 and tick.HasField("last")):
                reason = f"ticks[{place}] ({symbol}) needs bid and ask, or last: {' and '.join(missing)} missing"
                raise MessageRefused(NackCode.PAYLOAD_MISMATCH, reason)
        if symbol not in active:
            inactive.add(symbol)
        elif not tick.bid and not tick.ask and not tick.last:
            priceless.add(symbol)
        else:
            kept.append(tick)
    if not kept:
        if priceless:
            reason = "no tick of an active pair has a price: bid and ask of 0 are none"
            raise MessageRefused(NackCode.PAYLOAD_MISMATCH, reason, harmless=True)
        raise MessageRefused(
            NackCode.PAIR_NOT_ACTIVE, "no pair of this batch is active for the user: activate it or send others"
        )
    if inactive:
        reason = "ticks of pairs that are not active for the user are taken out of the batch"
        notes.filtered(NoticeCode.PAIR_NOT_ACTIVE, reason, inactive)
    if priceless:
        reason = "ticks whose bid and ask are 0 have no price and are taken out of the batch"
        notes.filtered(NoticeCode.NO_PRICE, reason, priceless)
    return kept


def check_signal(signal: payloads_pb2.TradingSignal, policy: UserPolicy, notes: PayloadNotes) -> bytes:
    if "signals" not in policy.features:
        raise MessageRefused(NackCode.FEATURE_NOT_IN_PLAN, "the company's plan does not include trading signals")
    if signal.symbol not in policy.active_pairs:
        signal.symbol = signal.symbol.strip()
    if not signal.symbol or len(signal.symbol) > SYMBOL_LIMIT:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, f"a signal needs a symbol of 1 to {SYMBOL_LIMIT} characters")
    if signal.action not in payloads_pb2.TradeAction.values() or not signal.action:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, "a signal needs an action: BUY, SELL, CLOSE, MODIFY or CANCEL")
    total = signal.price + signal.stop_loss + signal.take_profit + signal.volume
    if total - total != 0.0:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, _NOT_FINITE)
    signal.account = _account_of(signal.account, policy, notes)
    if signal.symbol not in policy.active_pairs:
        raise MessageRefused(NackCode.PAIR_NOT_ACTIVE, "this pair is not active for the user")
    signal.DiscardUnknownFields()
    return signal.SerializeToString()


def check_event(event: payloads_pb2.UserEvent, policy: UserPolicy, notes: PayloadNotes) -> bytes:
    if not event.event_type:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, "a user event needs an event_type")
    if len(event.attributes) > ATTRIBUTE_LIMIT:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, f"a user event takes at most {ATTRIBUTE_LIMIT} attributes")
    event.account = _account_of(event.account, policy, notes)
    event.DiscardUnknownFields()
    return event.SerializeToString()


def check_notification(note: payloads_pb2.Notification, policy: UserPolicy, notes: PayloadNotes) -> bytes:
    if "alerts" not in policy.features:
        raise MessageRefused(NackCode.FEATURE_NOT_IN_PLAN, "the company's plan does not include alerts")
    if not note.title and not note.body:
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, "a notification needs a title or a body")
    if note.severity not in payloads_pb2.Severity.values():
        raise MessageRefused(NackCode.PAYLOAD_MISMATCH, "severity is INFO, WARNING or CRITICAL")
    note.account = _account_of(note.account, policy, notes)
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
