"""The three clients of the protocol's page run as they stand there, against a real gateway and a real Kafka."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from proto.gateway.v1 import payloads_pb2
from tests.docs.page import Page
from tests.support.chromium import chromium, complaints
from tests.support.gateway import Gateway, manage
from tests.support.topics import Topics

_PAGE = Page("docs/protocol.md")
_GO_MODULE = "module terminal\n\ngo 1.19\n\nrequire github.com/gorilla/websocket v1.5.3\n"
_GO_SUMS = """github.com/gorilla/websocket v1.5.3 h1:saDtZ6Pbx/0u+bgYQ3q96pZgCzfhKXGPqt7kZ72aNNg=
github.com/gorilla/websocket v1.5.3/go.mod h1:YR8l580nyteQvAITg2hZ9XVh4b55+EU/adAjf1fMHhE=
"""
_TIMEOUT = 60
_ALL_FOUR = {1: "is in Kafka", 2: "is in Kafka", 3: "is in Kafka", 4: "is in Kafka"}
MakeGateway = Callable[..., Gateway]


class Served:
    """A gateway whose topics are of one test, and the API key of a trader whose plan has signals."""

    def __init__(self, gateway: Gateway, topics: Topics) -> None:
        self.gateway = gateway
        self.topics = topics
        self.address = f"http://127.0.0.1:{gateway.port}"
        demo = json.loads(manage("seed_demo", "--json", environment=gateway.environment))
        pro = next(company["slug"] for company in demo["companies"] if company["tier"] == "PRO")
        self.api_key = next(user["api_key"] for user in demo["users"] if user["company"] == pro and user["api_key"])

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "GATEWAY": self.address, "API_KEY": self.api_key}

    def assert_all_arrived(self) -> None:
        ticks = [record.envelope for record in self.topics.read("tick_data")]
        assert [envelope.sequence for envelope in ticks] == [1, 2, 3]
        bids = [payloads_pb2.BatchTickData.FromString(envelope.payload).ticks[0].bid for envelope in ticks]
        assert bids == [1.0850, 1.0851, 1.0852]
        assert [record.envelope.sequence for record in self.topics.read("trading_signal")] == [4]


@pytest.fixture
def serve(make_gateway: MakeGateway) -> Callable[..., Served]:
    def start(**settings: str) -> Served:
        gateway = make_gateway(**settings)
        topics = Topics(gateway.environment["GATEWAY_KAFKA_BOOTSTRAP_SERVERS"])
        gateway.environment |= topics.settings
        return Served(gateway.start(), topics)

    return start


def outcomes(output: str) -> dict[int, str]:
    """The lines "sequence outcome" of an example."""
    lines = [line.split(maxsplit=1) for line in output.splitlines()]
    return {int(line[0]): line[1] for line in lines if line and line[0].isdigit()}


def test_python_example_streams_and_hears_that_kafka_has_it(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve()
    program = tmp_path / "terminal.py"
    program.write_text(_PAGE.example("python", "Examples"))
    done = subprocess.run(
        [sys.executable, str(program)],
        env=served.environment,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    assert (done.returncode, outcomes(done.stdout)) == (0, _ALL_FOUR), done.stdout + done.stderr
    served.assert_all_arrived()


def test_go_example_streams_and_hears_that_kafka_has_it(serve: Callable[..., Served], tmp_path: Path) -> None:
    go = shutil.which("go")
    assert go is not None, "go is missing: install golang-go (.ci/run does)"
    (tmp_path / "go.mod").write_text(_GO_MODULE)
    (tmp_path / "go.sum").write_text(_GO_SUMS)
    (tmp_path / "main.go").write_text(_PAGE.example("go", "Examples"))
    built = subprocess.run(
        [go, "build", "-buildvcs=false", "-o", "terminal", "."],
        cwd=tmp_path, env={**os.environ, "GOFLAGS": "-mod=mod"}, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    served = serve()
    done = subprocess.run(
        [str(tmp_path / "terminal")],
        env=served.environment,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    assert (done.returncode, outcomes(done.stdout)) == (0, _ALL_FOUR), done.stdout + done.stderr
    served.assert_all_arrived()


@contextmanager
def page_server(folder: Path) -> Iterator[str]:
    """Serves a folder to a browser; its origin."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_browser_example_streams_and_hears_that_kafka_has_it(serve: Callable[..., Served], tmp_path: Path) -> None:
    (tmp_path / "terminal.js").write_text(_PAGE.example("javascript", "Examples"))
    (tmp_path / "index.html").write_text('<!doctype html><title>Terminal</title><script src="terminal.js"></script>')
    with page_server(tmp_path) as origin, chromium() as browser:
        served = serve(GATEWAY_ALLOWED_ORIGINS=origin)
        user = served.gateway.users[0]
        page = browser.new_page()
        errors = complaints(page)
        page.goto(f"{origin}/index.html")
        heard = page.evaluate(
            """([gateway, token]) => new Promise((done) => {
                const heard = {};
                const client = connectTerminal(gateway, token, (sequence, outcome) => {
                    heard[sequence] = outcome;
                    if (Object.keys(heard).length === 4) { client.close(); done(heard); }
                });
                for (const bid of [1.0850, 1.0851, 1.0852]) {
                    client.send({message_type: "tick_data", ticks: [{symbol: "EURUSD", bid, ask: bid + 0.0001}]});
                }
                client.send({message_type: "trading_signal", payload: {symbol: "EURUSD", action: "BUY", volume: 0.1}});
            })""",
            [served.address, user.token],
        )
        assert ({int(sequence): outcome for sequence, outcome in heard.items()}, errors) == (_ALL_FOUR, [])
    served.assert_all_arrived()
