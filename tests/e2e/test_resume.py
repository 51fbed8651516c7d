"""A stream goes on after its connection, at any process of the gateway."""

from collections.abc import Callable
from pathlib import Path

from tests.support.gateway import Gateway, until
from tests.support.kafka import KafkaBroker
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


def test_terminal_resumes_at_another_process(
    make_gateway: MakeGateway, kafka: KafkaBroker, tmp_path: Path, state_template: Path
) -> None:
    topics = Topics(kafka.bootstrap)
    one = make_gateway(**topics.settings).start()
    two = make_gateway(**topics.settings).start()
    token = one.users[0].token
    terminal = Terminal(one, token, stream="ea-2")
    for sequence in range(1, 6):
        terminal.tick(sequence)
    terminal.wait_for_ack(5)
    terminal.close()

    def resumes_at_five() -> bool:
        again = Terminal(two, token, stream="ea-2")
        again.close()
        return bool(again.welcome["last_acknowledged_sequence"] == 5)

    until(resumes_at_five, 5, "a position that the other process knows")


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
