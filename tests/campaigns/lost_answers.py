"""Answers that are lost on the way: no message may be counted as something that it is not.

``PYTHONPATH=clients/python python -m tests.campaigns.lost_answers --runs 200`` runs the Python client against two real
gateways on a real Kafka and Valkey, through a proxy that swallows answers and resets connections. Refusals are among
the messages, and in every second round a gateway is killed. Prints a line a round and exits with 1 when a message was
miscounted.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import Message

from proto.gateway.v1 import envelope_pb2, payloads_pb2
from tests.campaigns.faulty_proxy import FaultyProxy
from tests.support.gateway import Gateway, clean_environment, manage, seed_template
from tests.support.kafka import KafkaBroker
from tests.support.topics import Topics
from tests.support.valkey import Valkey
from trading_gateway_client import DiskJournal, Entry, GatewayClient, fixed_token
from trading_gateway_client import pb as client_pb

_CLIENTS_A_ROUND = 10
_MESSAGES = 60
# Seconds after which a message without an answer counts as lost.
_PATIENCE = 90.0
_ACTIVE, _INACTIVE = "EURUSD", "NOSUCHPAIR"


@dataclass
class Ledger:
    """What one client was told of each of its messages, by the message's own mark."""

    name: str
    offered: set[str] = field(default_factory=set)
    recorded: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)

    def settled(self, entry: Entry, _seconds: float) -> None:
        mark = mark_of(entry.frame)
        if mark in self.recorded or mark in self.refused:
            self.twice.append(mark)
        elif entry.refusal:
            self.refused[mark] = entry.refusal
        else:
            self.recorded.add(mark)


def mark_of(frame: bytes) -> str:
    """The mark within a frame in protobuf, or within a record."""
    envelope = envelope_pb2.MessageEnvelope.FromString(frame)
    if envelope.message_type == "tick_data":
        return str(payloads_pb2.BatchTickData.FromString(envelope.payload).ticks[0].time_msc)
    return payloads_pb2.TradingSignal.FromString(envelope.payload).signal_id


def make_message(chance: random.Random, mark: int) -> tuple[str, Message]:
    """Mostly good ones, one in three is refused for one reason or another."""
    kind = chance.random()
    tick = client_pb.payloads_pb2.Tick(symbol=_ACTIVE, bid=1.1, ask=1.2, time_msc=mark)
    batch = client_pb.payloads_pb2.BatchTickData(ticks=[tick])
    signal = client_pb.payloads_pb2.TradingSignal(symbol=_ACTIVE, action="TRADE_ACTION_BUY", signal_id=str(mark))
    if kind < 0.45:
        return "tick_data", batch
    if kind < 0.65:
        return "trading_signal", signal
    if kind < 0.78:
        tick.symbol = _INACTIVE
        return "tick_data", client_pb.payloads_pb2.BatchTickData(ticks=[tick])
    if kind < 0.9:
        batch.account = "no-such-account"
        return "tick_data", batch
    signal.ClearField("action")
    return "trading_signal", signal


async def run_client(name: str, url: str, token: str, chance: random.Random, folder: Path, first_mark: int) -> Ledger:
    """One terminal that sends all of its messages and waits until each is settled."""
    ledger = Ledger(name)
    client = GatewayClient(
        url, fixed_token(token), journal=DiskJournal(folder / f"{name}.journal"), on_settled=ledger.settled
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            await client.start()
            for number in range(_MESSAGES):
                message_type, payload = make_message(chance, first_mark + number)
                ledger.offered.add(str(first_mark + number))
                await client.send(message_type, payload)
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.uniform(0.0, 0.1))
    finally:
        await client.close(_PATIENCE)
    return ledger


class Campaign:
    """Two gateways that a round may kill, and the books of all rounds."""

    def __init__(self, gateways: list[Gateway], topics: Topics, folder: Path, seed: int) -> None:
        self._gateways = gateways
        self._topics = topics
        self._folder = folder
        self._chance = random.Random(seed)
        self._next_mark = 1_000_000
        self.ledgers: list[Ledger] = []
        self.facts: Counter[str] = Counter()

    def running(self) -> list[int]:
        return [g.port for g in self._gateways if g.process is not None and g.process.poll() is None]

    async def round(self, number: int, clients: int) -> None:
        """``clients`` terminals at once through one proxy."""
        users = self._gateways[0].users
        async with FaultyProxy(self.running, self._chance, fault_rate=0.8) as proxy:
            work = []
            for place in range(clients):
                name = f"round{number}-{place}"
                seeded = random.Random(self._chance.random())
                url = f"ws://127.0.0.1:{proxy.port}/ws/mt5"
                token = users[(number * clients + place) % len(users)].token
                work.append(run_client(name, url, token, seeded, self._folder, self._next_mark))
                self._next_mark += _MESSAGES
            terminals = asyncio.gather(*work)
            killer = asyncio.ensure_future(self._kill_one()) if number % 2 else None
            await asyncio.sleep(5.0)
            proxy.calm()
            if killer is not None:
                await killer
            self.ledgers += await terminals
            self.facts["resets"] += proxy.resets
            self.facts["bytes swallowed"] += proxy.swallowed

    async def _kill_one(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.3, 2.0))
        gateway = self._chance.choice(self._gateways)
        await asyncio.to_thread(gateway.kill)
        self.facts["gateways killed"] += 1
        await asyncio.to_thread(gateway.start)

    def problems(self) -> list[str]:
        """What the books of the clients and the topics do not agree on; empty when all is well."""
        copies: dict[str, set[tuple[str, str, str, int]]] = defaultdict(set)
        records = 0
        for record in self._topics.read("tick_data", "trading_signal"):
            e = record.envelope
            copies[mark_of(record.value)].add((e.user_id, e.stream_id, e.stream_writer, e.sequence))
            records += 1
        self.facts["records"] = records
        problems = []
        for ledger in self.ledgers:
            problems += _judge(ledger, copies)
            self.facts["messages"] += len(ledger.offered)
            self.facts["counted as in Kafka"] += len(ledger.recorded)
            self.facts["counted as refused"] += len(ledger.refused)
        if not self.facts["resets"] or not self.facts["counted as refused"]:
            problems.append("nothing was put to the test: no reset, or no refusal")
        return problems


def _judge(ledger: Ledger, copies: dict[str, set[tuple[str, str, str, int]]]) -> list[str]:
    problems = [f"{ledger.name}: {mark} settled twice" for mark in ledger.twice]
    for mark in sorted(ledger.offered, key=int):
        names = copies.get(mark, set())
        if mark in ledger.recorded and not names:
            problems.append(f"{ledger.name}: {mark} counted as in Kafka, and is not there")
        elif mark in ledger.refused and names:
            problems.append(f"{ledger.name}: {mark} counted as refused ({ledger.refused[mark]}), and is in Kafka")
        elif mark not in ledger.recorded and mark not in ledger.refused:
            problems.append(f"{ledger.name}: {mark} has no outcome")
        if len(names) > 1:
            problems.append(f"{ledger.name}: {mark} is in Kafka under {len(names)} names: {sorted(names)}")
    return problems


async def run(
    gateways: list[Gateway], topics: Topics, folder: Path, runs: int, seed: int, say: Callable[[str], None]
) -> list[str]:
    """``runs`` clients, ten at a time; what was found wrong."""
    campaign = Campaign(gateways, topics, folder, seed)
    number = 0
    while runs > 0:
        clients = min(runs, _CLIENTS_A_ROUND)
        await campaign.round(number, clients)
        say(f"round {number}: {clients} clients, so far {dict(campaign.facts)}")
        runs -= clients
        number += 1
    problems = campaign.problems()
    say(json.dumps(campaign.facts))
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    broker, valkey = None, Valkey()
    with tempfile.TemporaryDirectory(prefix="lost-answers-") as name:
        folder = Path(name)
        gateways: list[Gateway] = []
        try:
            broker = KafkaBroker(folder / "kafka")
            broker.start()
            valkey.start()
            manage("migrate", "-v0", environment=clean_environment(folder / "template"))
            seed_template(folder / "template", users=_CLIENTS_A_ROUND * 4)
            topics = Topics(broker.bootstrap)
            wanted = {**topics.settings, "REDIS_URL": valkey.url, "GATEWAY_USER_CONNECT_RATE_LIMIT": "200"}
            for place in range(2):
                gateways.append(Gateway(folder / "template", folder / f"gateway{place}", **wanted).start())
            problems = asyncio.run(run(gateways, topics, folder, options.runs, options.seed, print))
        finally:
            for gateway in gateways:
                gateway.stop()
            valkey.stop()
            if broker is not None:
                broker.stop()
    for problem in problems:
        print(problem)
    print(f"{options.runs} runs: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
