"""A bridge within its plan loses nothing to resets, to another process or to its user's other bridges."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.gateway import Gateway
from tests.support.kafka import KafkaBroker
from tests.support.topics import Topics
from trading_gateway_client import DiskJournal, GatewayClient, UserEvent, fixed_token
from trading_gateway_client.pb import payloads_pb2

MakeGateway = Callable[..., Gateway]

# Of a bench user without GATEWAY_BENCHMARK: the ceiling of all plans.
RATE = 100.0


class Road:
    """A TCP relay whose connections are cut, each next one leading to the other process."""

    def __init__(self, ports: list[int]) -> None:
        self.port = 0
        self.connections = 0
        self._ports = ports
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self._ports[self.connections % len(self._ports)]
        self.connections += 1
        onwards, back = await asyncio.open_connection("127.0.0.1", port)
        self._writers |= {writer, back}
        self._tasks |= {asyncio.create_task(pour(reader, back)), asyncio.create_task(pour(onwards, writer))}

    def cut(self) -> None:
        """What is on the way in either direction is lost."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.transport.abort()


@asynccontextmanager
async def road(gateways: list[Gateway]) -> AsyncIterator[Road]:
    made = Road([gateway.port for gateway in gateways])
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as server:
        made.port = server.sockets[0].getsockname()[1]
        yield made
        made.cut()


def event(number: int, account: str) -> UserEvent:
    return UserEvent(event_type="order_filled", account=account, time_msc=number)


def contents(topics: Topics) -> dict[tuple[str, str], list[int]]:
    """What consumers keep of each stream that drop repetitions as the protocol says, in order."""
    seen: set[tuple[str, str, int]] = set()
    found: dict[tuple[str, str], list[int]] = {}
    for record in topics.read("user_event"):
        envelope = record.envelope
        name = (envelope.stream_id, envelope.stream_writer, envelope.sequence)
        if name not in seen:
            seen.add(name)
            number = payloads_pb2.UserEvent.FromString(envelope.payload).time_msc
            found.setdefault(name[:2], []).append(number)
    return found


def test_bridge_within_its_plan_is_never_refused_for_good_through_resets_over_two_processes(
    make_gateway: MakeGateway, kafka: KafkaBroker, tmp_path: Path
) -> None:
    topics = Topics(kafka.bootstrap)
    gateways = [make_gateway(**topics.settings).start() for _ in range(2)]
    count, resets = 480, 6

    async def stream() -> GatewayClient:
        async with road(gateways) as way:
            journal = DiskJournal(tmp_path / "journal")
            token = fixed_token(gateways[0].users[0].token)
            client = GatewayClient(f"ws://127.0.0.1:{way.port}/ws/mt5", token, journal=journal)
            await client.start()
            account = client.policy.accounts[0]
            loop = asyncio.get_running_loop()
            began = loop.time()
            for number in range(1, count + 1):
                await asyncio.sleep(max(0.0, began + number / (0.8 * RATE) - loop.time()))
                await client.send_event(event(number, account))
                if number % (count // resets) == 0:
                    way.cut()
            assert await client.close(30.0)
            assert way.connections > resets // 2
            return client

    client = asyncio.run(stream())
    outcomes = client.outcomes
    assert (outcomes.sent, outcomes.acknowledged, outcomes.refused, outcomes.unknown) == (count, count, 0, 0)
    [found] = contents(topics).values()
    doubles = len(found) - count
    assert sorted(set(found)) == list(range(1, count + 1))
    assert doubles <= outcomes.reoffered, "twice only what was refused after it had been on the way before"
    firsts = list(dict.fromkeys(found))
    assert firsts == sorted(firsts)


def test_two_bridges_of_one_user_with_backlogs_both_come_to_their_end(
    make_gateway: MakeGateway, kafka: KafkaBroker
) -> None:
    topics = Topics(kafka.bootstrap)
    gateway = make_gateway(**topics.settings).start()
    count = 400

    async def stream() -> list[GatewayClient]:
        token = fixed_token(gateway.users[0].token)
        clients = [GatewayClient(gateway.url, token, stream_id=f"ea-{place}") for place in range(2)]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                for number in range(1, count + 1):
                    client.offer("user_event", event(number, ""))
                group.create_task(client.start())
        assert all(await asyncio.gather(*(client.close(40.0) for client in clients)))
        return clients

    for client in asyncio.run(stream()):
        assert (client.outcomes.acknowledged, client.outcomes.refused) == (count, 0)
    assert [numbers == list(range(1, count + 1)) for numbers in contents(topics).values()] == [True, True]
