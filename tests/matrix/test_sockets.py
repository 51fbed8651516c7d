"""Every WebSocket route and message type, by everybody, on a real gateway: nobody hears or says anything as another."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from proto.gateway.v1 import envelope_pb2, payloads_pb2
from streaming.asgi import websocket_application
from streaming.core.control import CONTROL_TYPES
from tests.matrix.expectations import MESSAGES, SOCKETS
from tests.matrix.marks import COMPANIES, NOBODY, found_in
from tests.matrix.world import PEOPLE, Person
from tests.support.gateway import Gateway
from tests.support.kafka import KafkaBroker
from tests.support.raw_client import BINARY, CLOSE, PING, PONG, TEXT, RawClient
from tests.support.topics import Topics
from tests.support.valkey import Valkey

_HERE = "tests/matrix/expectations.py"
_SEED = "from tests.matrix.seed import main; main()"
_DATE = re.compile(r"(?i)date: [^\r\n]+")
TERMINALS = [person for person in PEOPLE if person.marks is not None]


class Site:
    """A gateway with the three companies in it. ``of(person)``: what the person's terminal needs."""

    def __init__(self, gateway: Gateway, topics: Topics, people: dict[str, Any]) -> None:
        self.gateway = gateway
        self.topics = topics
        self._people = people

    def of(self, person: Person, role: str = "") -> dict[str, Any]:
        assert person.marks is not None
        found: dict[str, Any] = self._people[person.marks.word][role or person.role]
        return found

    def trader_of(self, word: str) -> dict[str, Any]:
        found: dict[str, Any] = self._people[word]["trader"]
        return found

    def token(self, person: Person) -> str:
        return str(self.of(person)["token"]) if person.marks is not None else ""


class Line:
    """A connection that keeps everything it has heard."""

    def __init__(self, site: Site, token: str, path: str, form: str = "json") -> None:
        self._client = RawClient(site.gateway.port, timeout=15)
        self.status = self._client.open(token, path=path, subprotocol=f"gateway.v1.{form}")
        self._form = form
        self.heard = [_DATE.sub("", self._client.head)]
        if self.status != 101:
            self.heard.append(self._rest())

    def say(self, message_type: str, sequence: int, payload: dict[str, Any], **forged: Any) -> None:
        if self._form == "json":
            frame = {"message_type": message_type, "sequence": sequence, "payload": payload, **forged}
            self._client.send(TEXT, json.dumps(frame).encode())
            return
        kinds: dict[str, Any] = {
            "tick_data": payloads_pb2.BatchTickData,
            "trading_signal": payloads_pb2.TradingSignal,
            "user_event": payloads_pb2.UserEvent,
            "notification": payloads_pb2.Notification,
        }
        body = kinds[message_type](**_as_protobuf(payload)).SerializeToString()
        envelope = envelope_pb2.MessageEnvelope(message_type=message_type, sequence=sequence, payload=body, **forged)
        self._client.send(BINARY, envelope.SerializeToString())

    def say_control(self, message_type: str, payload: dict[str, Any]) -> None:
        self._client.send(TEXT, json.dumps({"message_type": message_type, "payload": payload}).encode())

    def hear(self) -> str:
        """The type of the next answer, "" at the end; the whole is in ``heard``."""
        while True:
            received = self._client.read()
            if received is None or received.opcode == CLOSE:
                self.heard.append("" if received is None else received.payload.decode("utf-8", "replace"))
                return ""
            if received.opcode == PING:
                self._client.send(PONG, b"")
                continue
            self.heard.append(received.payload.decode("utf-8", "replace"))
            if received.opcode == BINARY:
                return envelope_pb2.MessageEnvelope.FromString(received.payload).message_type
            return str(json.loads(received.payload)["message_type"])

    def hear_until(self, *wanted: str) -> str:
        while (kind := self.hear()) not in wanted:
            assert kind, f"the connection ended before one of {wanted}: {self.heard[-3:]}"
        return kind

    def close(self) -> None:
        self._client.close()

    def _rest(self) -> str:
        rest = self._client._buffer
        try:
            while piece := self._client._receive():
                rest += piece
                if rest.rstrip().endswith((b"}", b"/ws/mt5")):
                    break
        except OSError:
            pass
        return rest.decode("utf-8", "replace")


@pytest.fixture(scope="module")
def site(
    state_template: Path, tmp_path_factory: pytest.TempPathFactory, kafka: KafkaBroker, valkey: Valkey
) -> Iterator[Site]:
    valkey.forget()
    topics = Topics(kafka.bootstrap)
    values = {
        **topics.settings,
        "REDIS_URL": valkey.url,
        "GATEWAY_USER_CONNECT_RATE_LIMIT": "200",
        "GATEWAY_ADDRESS_CONNECT_RATE_LIMIT": "2000",
    }
    gateway = Gateway(state_template, tmp_path_factory.mktemp("matrix"), **values)
    people = json.loads(gateway.manage("shell", "--no-imports", "-v0", "-c", _SEED).splitlines()[-1])
    gateway.start()
    yield Site(gateway, topics, people)
    gateway.stop()


def payload_of(message_type: str, account: str = "", symbol: str = "EURUSD") -> dict[str, Any]:
    """One that is right but for what is given."""
    bodies: dict[str, dict[str, Any]] = {
        "tick_data": {"ticks": [{"symbol": symbol, "bid": 1.1, "ask": 1.2}]},
        "trading_signal": {"symbol": symbol, "action": "BUY", "volume": 0.1},
        "user_event": {"event_type": "login"},
        "notification": {"title": "hello"},
    }
    return {**bodies[message_type], **({"account": account} if account else {})}


def _as_protobuf(payload: dict[str, Any]) -> dict[str, Any]:
    fields = dict(payload)
    if "ticks" in fields:
        fields["ticks"] = [payloads_pb2.Tick(**tick) for tick in fields["ticks"]]
    if "action" in fields:
        fields["action"] = f"TRADE_ACTION_{fields['action']}"
    return fields


def test_each_route_and_each_message_has_a_row() -> None:
    routes = {str(route.pattern) for route in websocket_application.routes}
    assert routes == SOCKETS.keys(), f"make SOCKETS in {_HERE} fit: {routes ^ SOCKETS.keys()}"
    types = {*settings.GATEWAY_ROUTES, *CONTROL_TYPES}
    assert types == MESSAGES.keys(), f"make MESSAGES in {_HERE} fit: {types ^ MESSAGES.keys()}"


@pytest.mark.parametrize("person", PEOPLE, ids=lambda person: person.name)
@pytest.mark.parametrize("route", sorted(SOCKETS), ids=lambda route: route or "other")
def test_route_lets_in_whom_it_is_for(site: Site, route: str, person: Person) -> None:
    line = Line(site, site.token(person), f"/{route or 'ws/other'}")
    if person.role in SOCKETS[route]:
        assert line.status == 101
        assert line.hear() == "gateway.welcome"
    else:
        assert line.status == (401 if route else 404)
    line.close()
    assert not found_in("\n".join(line.heard), person.others)


@pytest.mark.parametrize("form", ["json", "protobuf"])
@pytest.mark.parametrize("person", TERMINALS, ids=lambda person: person.name)
@pytest.mark.parametrize("message_type", sorted(set(MESSAGES) - CONTROL_TYPES))
def test_message_under_another_name_is_the_senders_own(
    site: Site, message_type: str, person: Person, form: str
) -> None:
    """What is sent, for whom, is the sender's alone; an account or a pair of another company is nobody's."""
    before = len(site.gateway.log.read_text())
    other = person.others[0]
    theirs = site.trader_of(other.word)
    stream = f"{person.name}-{message_type}-{form}"
    line = Line(site, site.token(person), f"/ws/mt5?stream={stream}", form)
    line.hear_until("gateway.welcome")
    forged = {"user_id": theirs["user_id"], "company_id": theirs["company_id"]} if form == "protobuf" else {}
    line.say(message_type, 1, payload_of(message_type), **forged)
    line.hear_until(MESSAGES[message_type])
    assert not found_in("\n".join(line.heard), person.others)
    for name, value, nobodys in (
        ("account", theirs["account"], str(NOBODY.number())),
        ("symbol", theirs["symbol"], ""),
    ):
        if name == "symbol" and message_type not in ("tick_data", "trading_signal"):
            continue
        answers = []
        for one in (value, nobodys or "z" * len(value)):
            began = len(line.heard)
            # Without a sequence, so that both answers name the same.
            line.say(message_type, 0, payload_of(message_type, **{name: one}))
            line.hear_until("gateway.nack")
            said = "\n".join(line.heard[began:]).replace(one, "SENT")
            answers.append(said)
            assert not found_in(said, person.others)
        assert answers[0] == answers[1], f"{name} of another company"
    line.close()
    logged = site.gateway.log.read_text()[before:]
    assert not found_in(logged, person.others)


@pytest.mark.parametrize("person", TERMINALS, ids=lambda person: person.name)
def test_token_of_another_companys_user_refreshes_nothing(site: Site, person: Person) -> None:
    for other in person.others:
        line = Line(site, site.token(person), "/ws/mt5")
        line.hear_until("gateway.welcome")
        line.say_control("gateway.ping", {"client_time_ms": 1})
        line.hear_until(MESSAGES["gateway.ping"])
        line.say_control("gateway.refresh", {"token": site.token(person)})
        line.hear_until(MESSAGES["gateway.refresh"])
        line.say_control("gateway.refresh", {"token": site.trader_of(other.word)["token"]})
        line.hear_until("gateway.nack")
        assert "token_invalid" in line.heard[-1]
        line.hear_until("gateway.disconnect")
        assert not found_in("\n".join(line.heard), person.others)
        line.close()


@pytest.mark.parametrize("person", TERMINALS, ids=lambda person: person.name)
def test_connect_with_an_account_of_another_company_is_refused_like_one_that_never_was(
    site: Site, person: Person
) -> None:
    own = Line(site, site.token(person), f"/ws/mt5?account={site.of(person)['account']}")
    assert own.status == 101
    own.close()
    never = str(NOBODY.number())
    for other in person.others:
        theirs = str(site.trader_of(other.word)["account"])
        answers = []
        for account in (theirs, never):
            line = Line(site, site.token(person), f"/ws/mt5?account={account}")
            assert line.status == 403
            answers.append("\n".join(line.heard).replace(account, "SENT"))
            line.close()
        assert answers[0] == answers[1]


@pytest.mark.parametrize("person", [one for one in TERMINALS if one.role == "trader"], ids=lambda person: person.name)
def test_genuine_token_that_names_another_company_opens_nothing(site: Site, person: Person) -> None:
    assert person.marks is not None
    tokens = site.of(person)["tokens_for"]
    answers = {}
    for word, token in tokens.items():
        line = Line(site, token, "/ws/mt5")
        answers[word] = (line.status, "\n".join(line.heard))
        line.close()
    assert answers.pop(person.marks.word)[0] == 101
    assert len(set(answers.values())) == 1 and next(iter(answers.values()))[0] == 401


def test_stream_of_the_same_name_is_each_users_own(site: Site) -> None:
    for person in TERMINALS:
        line = Line(site, site.token(person), "/ws/mt5?stream=shared")
        line.hear_until("gateway.welcome")
        welcome = json.loads(line.heard[-1])["payload"]
        assert welcome["last_acknowledged_sequence"] == 0, f"{person.name} goes on where somebody else stopped"
        line.say("user_event", 1, payload_of("user_event"))
        line.hear_until("gateway.ack")
        line.close()


def test_kafka_holds_each_message_under_its_sender(site: Site) -> None:
    sent = 0
    for person in TERMINALS:
        theirs = site.trader_of(person.others[0].word)
        line = Line(site, site.token(person), f"/ws/mt5?stream={person.name}", "protobuf")
        line.hear_until("gateway.welcome")
        forged = {"user_id": theirs["user_id"], "company_id": theirs["company_id"], "session_id": "forged"}
        for sequence, message_type in enumerate(sorted(set(MESSAGES) - CONTROL_TYPES), start=1):
            line.say(message_type, sequence, payload_of(message_type), **forged)
            line.hear_until("gateway.ack")
        line.close()
    records = site.topics.read()
    for person in TERMINALS:
        own = site.of(person)
        for record in records:
            envelope = record.envelope
            if not envelope.stream_id.startswith(person.name):
                continue
            sent += 1
            assert (record.key.decode(), envelope.user_id) == (own["user_id"], own["user_id"])
            assert envelope.company_id == own["company_id"]
            assert envelope.session_id != "forged"
    assert sent >= len(TERMINALS) * 4


def test_open_pages_of_the_process_name_nobody(site: Site) -> None:
    lines = [Line(site, site.token(person), "/ws/mt5") for person in TERMINALS]
    for line in lines:
        line.hear_until("gateway.welcome")
    for path in ("/metrics", "/readyz", "/livez", "/version"):
        status, text = site.gateway.http(path)
        assert status == 200
        assert not found_in(text, COMPANIES), path
    for line in lines:
        line.close()
    assert site.gateway.errors() == []
