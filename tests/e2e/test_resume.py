"""A stream goes on after its connection, at any process of the gateway."""

import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from tests.support.gateway import Gateway, until
from tests.support.kafka import KafkaBroker
from tests.support.proxy import SilencingProxy
from tests.support.raw_client import CLOSE, TEXT, RawClient, frame
from tests.support.terminal import Terminal
from tests.support.topics import Topics, names_of
from tests.support.valkey import Valkey

MakeGateway = Callable[..., Gateway]


def sequences(topics: Topics) -> list[int]:
    return [sequence for _, _, sequence in names_of(topics.read("tick_data"))]


def test_terminal_resumes_and_its_duplicates_are_acknowledged_and_not_produced_again(
    make_gateway: MakeGateway, kafka: KafkaBroker
) -> None:
    topics = Topics(kafka.bootstrap)
    gateway = make_gateway(**topics.settings).start()
    token = gateway.users[0].token
    first = Terminal(gateway, token, stream="ea-1")
    assert first.welcome["last_acknowledged_sequence"] == 0
    for sequence in range(1, 11):
        first.tick(sequence)
    first.wait_for_ack(10)
    first.close()

    second = Terminal(gateway, token, stream="ea-1")
    assert second.welcome["last_acknowledged_sequence"] == 10
    second.tick(9)
    assert second.hear_until("gateway.ack")["sequence"] == 10
    assert second.hear_until("gateway.nack")["code"] == "duplicate"
    second.tick(11)
    second.wait_for_ack(11)
    assert sequences(topics) == list(range(1, 12))


def test_terminal_resumes_at_another_process(make_gateway: MakeGateway, kafka: KafkaBroker, valkey: Valkey) -> None:
    topics = Topics(kafka.bootstrap)
    one = make_gateway(**topics.settings).start()
    two = make_gateway(**topics.settings).start()
    token = one.users[0].token
    terminal = Terminal(one, token, stream="ea-2")
    for sequence in range(1, 6):
        terminal.tick(sequence)
    terminal.wait_for_ack(5)

    def is_written() -> bool:
        with Redis.from_url(valkey.url) as redis:
            return any(redis.get(key).startswith(b"5 ") for key in redis.keys("gateway:position:*:ea-2"))

    # Before another connection takes the stream: what its former one writes after that is refused.
    until(is_written, 10, "a position that all processes know")
    terminal.close()
    again = Terminal(two, token, stream="ea-2")
    assert (again.welcome["last_acknowledged_sequence"], again.welcome["position_known"]) == (5, True)


def test_same_stream_id_of_another_user_is_another_stream(make_gateway: MakeGateway) -> None:
    gateway = make_gateway().start()
    bob = Terminal(gateway, gateway.users[0].token, stream="shared-name")
    bob.tick(1)
    bob.wait_for_ack(1)
    charlie = Terminal(gateway, gateway.users[1].token, stream="shared-name")
    assert charlie.welcome["last_acknowledged_sequence"] == 0
    bob.tick(2)
    bob.wait_for_ack(2)


def test_second_connection_of_a_stream_replaces_the_first(make_gateway: MakeGateway) -> None:
    gateway = make_gateway().start()
    token = gateway.users[0].token
    first = Terminal(gateway, token, stream="ea-3")
    Terminal(gateway, token, stream="ea-3")
    goodbye = first.hear_until("gateway.disconnect")
    assert (goodbye["code"], goodbye["reconnect"]) == (4006, True)
    assert first.hear() == ("", {})
    assert first.close_code == 4006


def test_stream_goes_on_while_valkey_is_away(make_gateway: MakeGateway, kafka: KafkaBroker, own_valkey: Valkey) -> None:
    topics = Topics(kafka.bootstrap)
    gateway = make_gateway(**topics.settings, REDIS_URL=own_valkey.url).start()
    token = gateway.users[0].token
    terminal = Terminal(gateway, token, stream="ea-4")
    terminal.tick(1)
    terminal.wait_for_ack(1)
    own_valkey.stop()
    terminal.tick(2)
    terminal.wait_for_ack(2)
    terminal.close()
    # This process remembers by itself.
    again = Terminal(gateway, token, stream="ea-4")
    assert again.welcome["last_acknowledged_sequence"] == 2
    again.tick(3)
    again.wait_for_ack(3)
    own_valkey.start()
    again.tick(4)
    again.wait_for_ack(4)
    assert sequences(topics) == [1, 2, 3, 4]
    assert gateway.errors() == []


# --- What nobody heard ------------------------------------------------------------------------------------------------


@pytest.fixture
def make_proxy() -> Iterator[Callable[[int], SilencingProxy]]:
    made: list[SilencingProxy] = []

    def make(port: int) -> SilencingProxy:
        made.append(SilencingProxy(port))
        return made[-1]

    yield make
    for proxy in made:
        proxy.stop()


@pytest.mark.parametrize("is_killed", [False, True], ids=["reset", "killed"])
def test_terminal_hears_of_refusals_that_a_broken_network_swallowed(
    make_gateway: MakeGateway,
    make_proxy: Callable[[int], SilencingProxy],
    kafka: KafkaBroker,
    valkey: Valkey,
    is_killed: bool,
) -> None:
    topics = Topics(kafka.bootstrap)
    gateway = make_gateway(**topics.settings).start()
    user = gateway.users[0]
    proxy = make_proxy(gateway.port)
    terminal = Terminal(proxy, user.token, stream="ea-5", heard=0, writer="w1")
    assert (terminal.welcome["position_known"], terminal.welcome["stream_writer"]) == (False, "w1")
    terminal.tick(1)
    terminal.wait_for_ack(1)
    proxy.is_silent.set()
    terminal.tick(2, symbol="NOSUCH")
    terminal.tick(3, account="999")
    terminal.tick(4)
    with Redis.from_url(valkey.url, decode_responses=True) as redis:
        key = f"gateway:position:{user.user_id}:ea-5/w1"
        until(lambda: str(redis.get(key)).startswith("4 "), 10, "the position in Redis")
    proxy.reset()
    if is_killed:
        gateway.kill()
        gateway.start()
    again = Terminal(gateway, user.token, stream="ea-5", heard=1, writer="w1")
    assert again.welcome["last_acknowledged_sequence"] == 4
    assert again.welcome["position_known"] is True
    assert again.welcome["refusals"] == [
        {"first": 2, "last": 2, "code": "pair_not_active", "action": "FINAL"},
        {"first": 3, "last": 3, "code": "account_unknown", "action": "FINAL"},
    ]
    # One that is sent again all the same is refused again, and no duplicate.
    again.tick(2)
    nack = again.hear_until("gateway.nack")
    assert (nack["sequence"], nack["code"], nack["settled"]) == (2, "pair_not_active", True)
    again.tick(5)
    again.wait_for_ack(5)
    assert sequences(topics) == [1, 4, 5]


def test_frame_that_cannot_be_read_is_not_acknowledged_before_kafka_has_it(
    make_gateway: MakeGateway, own_kafka: KafkaBroker
) -> None:
    gateway = make_gateway(**Topics(own_kafka.bootstrap).settings, GATEWAY_BACKEND_TIMEOUT="5s").start()
    terminal = Terminal(gateway, gateway.users[0].token, stream="ea-6", heard=0)
    terminal.tick(1)
    terminal.wait_for_ack(1)
    own_kafka.kill()
    # A decimal comma, then a message that is refused at once.
    terminal.send('{"message_type":"tick_data","sequence":2,"ticks":[{"symbol":"EURUSD","bid":1,1,"ask":1,2}]}')
    terminal.tick(3, symbol="NOSUCH")
    heard = []
    while (answer := terminal.hear())[0]:
        heard.append(answer)
    assert [payload["sequence"] for kind, payload in heard if kind == "gateway.ack"] == []
    nacks = [(p["sequence"], p["code"], p["action"]) for kind, p in heard if kind == "gateway.nack"]
    assert nacks == [(3, "pair_not_active", "FINAL"), (2, "backend_unavailable", "RESEND")]
    assert terminal.close_code == 4003


# --- One writer -------------------------------------------------------------------------------------------------------


def carrier_of(gateway: Gateway) -> str:
    """The process that holds the one connection there is."""
    found: list[str] = []

    def one_holds_it() -> bool:
        held = {name: gateway.metric("gateway_connections", process=name) for name in ("0", "1")}
        found[:] = [name for name, count in held.items() if count]
        return sum(held.values()) == 1

    until(one_holds_it, 10, "one connection")
    return found[0]


def test_second_terminal_of_a_stream_takes_it_over_at_another_process_and_nothing_is_lost(
    make_gateway: MakeGateway, kafka: KafkaBroker
) -> None:
    topics = Topics(kafka.bootstrap)
    gateway = make_gateway(**topics.settings).start("--processes", "2")
    token = gateway.users[0].token
    carried: set[str] = set()
    older: Terminal | None = None
    sent = 0
    # The kernel chooses the process: until the stream has gone from one to the other.
    for _ in range(12):
        newer = Terminal(gateway, token, stream="ea-7")
        if older is not None:
            began = time.monotonic()
            assert older.hear_until("gateway.disconnect")["code"] == 4006
            assert time.monotonic() - began < 1.0
            older.close()
        for sequence in range(1, 6):
            newer.tick(sequence)
        newer.wait_for_ack(5)
        sent += 5
        older = newer
        carried.add(carrier_of(gateway))
        if len(carried) == 2:
            break
    assert len(carried) == 2
    records = [record.envelope for record in topics.read("tick_data")]
    names = {(e.user_id, e.stream_id, e.stream_writer, e.sequence) for e in records}
    # What consumers know a repetition by is another one for each terminal.
    assert len(names) == len(records) == sent


# --- A goodbye --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_deaf_after", [False, True], ids=["open", "half-closed"])
def test_client_that_says_goodbye_right_behind_its_messages_hears_what_became_of_them(
    make_gateway: MakeGateway, kafka: KafkaBroker, is_deaf_after: bool
) -> None:
    topics = Topics(kafka.bootstrap)
    gateway = make_gateway(**topics.settings, GATEWAY_BENCHMARK="1").start()
    client = RawClient(gateway.port, timeout=15)
    assert client.open(gateway.users[0].token, path="/ws/mt5?stream=ea-8") == 101
    tick = '{"message_type":"tick_data","sequence":%d,"ticks":[{"symbol":"EURUSD","bid":1.1,"ask":1.2}]}'
    frames = [frame(TEXT, (tick % sequence).encode()) for sequence in range(1, 201)]
    client.socket.sendall(b"".join(frames) + frame(CLOSE, (1000).to_bytes(2, "big") + b"done"))
    if is_deaf_after:
        client.socket.shutdown(socket.SHUT_WR)
    acks = []
    while (received := client.read()) is not None and received.opcode != CLOSE:
        if b"gateway.ack" in received.payload:
            acks.append(json.loads(received.payload)["payload"]["sequence"])
    assert received is not None and received.close_code == 1000
    assert acks[-1] == 200
    client.close()
    assert sequences(topics) == list(range(1, 201))
    until(lambda: gateway.metric("gateway_connections") == 0, 5, "a place that is free again")
    assert gateway.errors() == []
