"""Terminals as they behave in the field, on the client library of bridge authors. Room: streaming.tools."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from streaming.tools.latencies import Latencies
from streaming.tools.market import Market
from tenants.demo_symbols import DEMO_SYMBOLS
from trading_gateway_client import BatchTickData, Entry, GatewayClient, GatewayClientError, JournalFull, TokenSource

# Connects begin this long after one another, as terminals of many machines do.
_CONNECT_SPACING = 0.005


@dataclass(frozen=True, slots=True)
class Terminal:
    """Who a simulated terminal is."""

    name: str
    token: TokenSource


@dataclass(frozen=True, slots=True)
class Load:
    """What each terminal sends. Rates are a second; 0 sends none of it."""

    ticks_per_second: float
    batch_size: int
    # Of each terminal.
    signals_per_second: float
    form: str = "protobuf"


class Simulation:
    """Starts the terminals, lets them stream, waits for what is owed, and says what became of each message."""

    def __init__(self, url: str, terminals: Sequence[Terminal], load: Load, journal: TextIO | None = None) -> None:
        """``journal``: gets one line ``user_id stream_id sequence`` for each acknowledged message."""
        self._url = url
        self._terminals = terminals
        self._load = load
        self._journal = journal
        self._delays: dict[str, Latencies] = defaultdict(Latencies)
        self._clients: list[GatewayClient] = []
        self._not_started: Counter[str] = Counter()
        self._held_back = 0
        self._streaming = True

    async def run(self, duration: float | None, settle_timeout: float, stopped: asyncio.Event) -> dict[str, Any]:
        """Streams for ``duration`` seconds (None: until ``stopped``), settles, and returns the report."""
        senders = [asyncio.create_task(self._stream(place, terminal)) for place, terminal in enumerate(self._terminals)]
        try:
            async with asyncio.timeout(duration):
                await stopped.wait()
        except TimeoutError:
            pass
        self._streaming = False
        for sender in senders:
            sender.cancel()
        await asyncio.wait(senders)
        await asyncio.gather(*(client.close(settle_timeout) for client in self._clients))
        return self.report()

    async def _stream(self, place: int, terminal: Terminal) -> None:
        await asyncio.sleep(place * _CONNECT_SPACING)
        client = GatewayClient(
            self._url,
            terminal.token,
            form=self._load.form,
            # What is over the rate is to be counted, not to be sent until it fits.
            reoffer=False,
            on_settled=lambda entry, seconds: self._settled(terminal, client, entry, seconds),
        )
        self._clients.append(client)
        try:
            await client.start()
        except GatewayClientError as error:
            self._not_started[str(error)] += 1
            return
        symbols = _symbols_of(client)
        market = Market(symbols, seed=place)
        rates = {"tick_data": self._load.ticks_per_second / self._load.batch_size if symbols else 0.0}
        if "signals" in client.policy.features and symbols:
            rates["trading_signal"] = self._load.signals_per_second
        beats = [asyncio.create_task(self._beat(client, market, kind, rate)) for kind, rate in rates.items() if rate]
        try:
            await asyncio.gather(*beats)
        finally:
            for beat in beats:
                beat.cancel()

    async def _beat(self, client: GatewayClient, market: Market, kind: str, rate: float) -> None:
        """Sends at a steady rate; what falls due while this program was held up goes out at once."""
        loop = asyncio.get_running_loop()
        number = 0
        due = loop.time() + market_phase(client.stream_id, rate)
        while self._streaming and client.error is None:
            await asyncio.sleep(due - loop.time())
            due += 1 / rate
            number += 1
            account = _account_of(client)
            try:
                if kind == "tick_data":
                    ticks = [market.tick() for _ in range(self._load.batch_size)]
                    client.offer(kind, BatchTickData(ticks=ticks, account=account))
                else:
                    client.offer(kind, market.signal(number, account))
            except JournalFull:
                self._held_back += 1
            except GatewayClientError:
                return

    def _settled(self, terminal: Terminal, client: GatewayClient, entry: Entry, seconds: float) -> None:
        if entry.outcome != "acknowledged":
            return
        self._delays[entry.message_type].add(seconds)
        if self._journal is not None:
            self._journal.write(f"{terminal.name} {client.stream_id} {entry.sequence}\n")

    def report(self) -> dict[str, Any]:
        """``sent = acknowledged + refused + lost`` (no answer in time, or none that says what became of it).

        ``ack_ms`` is from send to answer.
        """
        outcomes = [client.outcomes for client in self._clients]
        refusals, closes, handshakes = Counter[str](), Counter[int](), Counter[int]()
        for one in outcomes:
            refusals += one.refusals
            closes += one.closes
            handshakes += one.handshakes_refused
        return {
            "clients": len(self._terminals),
            "connected": sum(one.connects > 0 for one in outcomes),
            "sent": sum(one.sent for one in outcomes),
            "acknowledged": sum(one.acknowledged for one in outcomes),
            "refused": sum(one.refused for one in outcomes),
            "lost": sum(one.unanswered + one.unknown for one in outcomes),
            "reconnects": sum(max(0, one.connects - 1) for one in outcomes),
            "resent": sum(one.resent for one in outcomes),
            "held_back": self._held_back,
            "refusals": dict(refusals),
            "closes": {str(code): count for code, count in closes.items()},
            "handshakes_refused": {str(status): count for status, count in handshakes.items()},
            "not_started": dict(self._not_started),
            "ack_ms": {kind: delays.summary() for kind, delays in sorted(self._delays.items())},
        }


def market_phase(stream_id: str, rate: float) -> float:
    """Seconds until a terminal's first message, so that many terminals do not beat as one."""
    return (hash(stream_id) % 10_000) / 10_000 / rate


def _account_of(client: GatewayClient) -> str:
    """The first MT5 login that is the user's now, "" when there is none."""
    accounts = client.policy.accounts
    return accounts[0] if accounts else ""


def _symbols_of(client: GatewayClient) -> Mapping[str, tuple[float, int]]:
    """The pairs that are active for the user, as far as we know a price for them."""
    return {name: DEMO_SYMBOLS[name] for name in client.policy.active_pairs if name in DEMO_SYMBOLS}
