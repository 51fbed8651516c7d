"""Clients that misbehave end with their code, cost little memory, and take nothing from the others."""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.support.gateway import Gateway, until
from tests.support.kafka import KafkaBroker
from tests.support.raw_client import BINARY, TEXT, RawClient, frame
from tests.support.simulator import Simulator, assert_every_message_has_its_answer
from tests.support.topics import Topics, assert_in_order, names_of

MakeGateway = Callable[..., Gateway]
MEBIBYTE = 1024 * 1024
PING = b'{"message_type":"gateway.ping"}'


def memory_of(gateway: Gateway) -> int:
    """Resident bytes of the gateway's process."""
    assert gateway.process is not None
    return int(psutil.Process(gateway.process.pid).memory_info().rss)


def test_three_hundred_bad_clients_take_nothing_from_twenty_good_ones(
    make_gateway: MakeGateway, kafka: KafkaBroker, tmp_path: Path
) -> None:
    topics = Topics(kafka.bootstrap)
    gateway = make_gateway(**topics.settings, GATEWAY_PING_INTERVAL="2s", GATEWAY_PONG_TIMEOUT="20s").start()
    before = memory_of(gateway)
    load = ["--clients", "20", "--ticks-per-second", "40", "--batch-size", "1", "--signals-per-second", "100"]
    simulator = Simulator(gateway, tmp_path, *load, "--duration", "16")
    until(lambda: gateway.metric("gateway_messages_total", result="acknowledged") > 500, 30, "a running load")

    users = gateway.users[20:]
    bad: dict[str, list[RawClient]] = {"never reads": [], "silent": [], "too large": []}
    for number in range(300):
        kind = list(bad)[number % 3]
        client = RawClient(gateway.port, timeout=60)
        assert client.open(users[number % len(users)].token) == 101
        bad[kind].append(client)

    peak = before
    for client in bad["too large"]:
        client.send(BINARY, bytes(65_537))
    for _ in range(8):
        for client in bad["never reads"]:
            # Writes and never reads, so it never answers a ping either.
            try:
                client.send(TEXT, PING)
            except OSError:
                continue
        peak = max(peak, memory_of(gateway))
        threading.Event().wait(0.5)

    codes = {kind: Counter(client.close_code(60) for client in clients) for kind, clients in bad.items()}
    assert codes == {"never reads": {4001: 100}, "silent": {4002: 100}, "too large": {1009: 100}}
    assert gateway.metric("gateway_closes_total", code="4001") == 100
    assert gateway.metric("gateway_closes_total", code="4002") == 100
    assert gateway.metric("gateway_closes_total", code="1009") == 100
    assert peak - before < 100 * MEBIBYTE

    report = simulator.report(60)
    assert_every_message_has_its_answer(report)
    assert report["reconnects"] == 0, report
    records = topics.read("tick_data", "trading_signal")
    assert set(simulator.acknowledged()) <= set(names_of(records))
    assert_in_order(records)
    for clients in bad.values():
        for client in clients:
            client.close()


def test_client_whose_answers_pile_up_is_cut_and_the_gateway_stays_small(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(GATEWAY_OUTBOUND_MAX_SIZE=str(MEBIBYTE)).start()
    before = memory_of(gateway)
    clients = [RawClient(gateway.port, receive_buffer=4096, timeout=2) for _ in range(3)]
    for client, user in zip(clients, gateway.users, strict=False):
        assert client.open(user.token) == 101
    burst = frame(TEXT, PING) * 500
    # Far more answers than kernel buffers and the limit hold together; the cut comes long before.
    for _ in range(1_000):
        if gateway.metric("gateway_closes_total", code="4001") == 3:
            break
        for client in clients:
            try:
                client.socket.sendall(burst)
            except OSError:
                continue
    assert gateway.metric("gateway_closes_total", code="4001") == 3
    # The limit for each, and what the allocator keeps.
    assert memory_of(gateway) - before < 40 * MEBIBYTE
    for client in clients:
        client.close()


def test_half_open_handshakes_end_by_themselves(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(GATEWAY_HANDSHAKE_TIMEOUT="1s").start()
    clients = [RawClient(gateway.port, timeout=10) for _ in range(50)]
    for number, client in enumerate(clients):
        if number % 2:
            client.socket.sendall(b"GET /ws/mt5 HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    for client in clients:
        received = client.socket.recv(4096)
        assert received == b"" or received.startswith(b"HTTP/1.1 408"), received
        client.close()
    assert gateway.http("/livez")[0] == 200


def test_message_at_the_size_limit_is_taken_and_one_byte_more_is_not(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(GATEWAY_MESSAGE_SIZE_LIMIT="2048").start()
    user = gateway.users[0]
    for size, code in ((2048, 1000), (2049, 1009)):
        client = RawClient(gateway.port)
        assert client.open(user.token) == 101
        client.send(TEXT, PING[:-1] + b" " * (size - len(PING)) + PING[-1:])
        if code == 1000:
            welcome, pong = client.read(), client.read()
            assert welcome is not None
            assert pong is not None
            assert b"gateway.pong" in pong.payload
        else:
            assert client.close_code(10) == 1009
        client.close()
