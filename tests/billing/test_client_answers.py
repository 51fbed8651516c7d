"""What our client makes of answers that Midtrans should never give."""

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog

from billing.midtrans.bodies import PageOrder
from billing.midtrans.client import MidtransClient
from billing.midtrans.outcomes import Done, Doubt, Refusal, Refused, Unknown
from tests.billing import samples

KEY = "SB-Mid-server-answers"
CARD = samples.read("credit_card_capture_accept.json")
ORDER = CARD["order_id"]


@dataclass
class Script:
    """The next answer, and what was asked."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    url: str = ""

    def say(self, data: Any, status: int = 200) -> None:
        self.status, self.body = status, data if isinstance(data, bytes) else json.dumps(data).encode()


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script.paths.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(script.status)
            for name, value in script.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(script.body)))
            self.end_headers()
            self.wfile.write(script.body)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield script
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def client(script: Script) -> Iterator[MidtransClient]:
    with MidtransClient(server_key=KEY, base_url=script.url, read_timeout=2.0) as client:
        yield client


def charge(client: MidtransClient, order_id: str = ORDER) -> Any:
    return client.charge_card(order_id=order_id, amount=199_000, saved_token="token", idempotency_key="key")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"[]", b'"x"', b"null", b"5", b"{}", b'{"status_code":"many"}', b'{"status_code":[]}'),
        *(b'{"status_code":"200"}', b"\xff\xfe", b"[" * 100_000),
        json.dumps({**CARD, "gross_amount": "199000.50"}).encode(),
        json.dumps({**CARD, "transaction_id": "../x"}).encode(),
        json.dumps(
            {**CARD, "order_id": "another-order", "transaction_id": "0" * 8 + "-0000-0000-0000-" + "0" * 12}
        ).encode(),
    ],
)
def test_answer_that_is_not_as_documented_is_unknown(client: MidtransClient, script: Script, body: bytes) -> None:
    script.say(body)
    assert charge(client) == Unknown(Doubt.UNREADABLE)
    assert client.status(ORDER) == Unknown(Doubt.UNREADABLE)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"status_code":"404"}', b'{"status_code":"412"}'])
def test_server_error_is_unknown_whatever_its_body_says(
    client: MidtransClient, script: Script, status: int, body: bytes
) -> None:
    script.say(body, status)
    assert isinstance(charge(client), Unknown)


@pytest.mark.parametrize("code", ["500", "503", "505", "408", "600", "40"])
def test_code_of_doubt_in_a_good_answer_is_unknown(client: MidtransClient, script: Script, code: str) -> None:
    script.say({"status_code": code, "status_message": "?"})
    assert isinstance(charge(client), Unknown)


@pytest.mark.parametrize("http_status", [200, None])
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("400", Refusal.INVALID),
        ("401", Refusal.UNAUTHORIZED),
        ("402", Refusal.NOT_ENABLED),
        ("404", Refusal.MISSING),
        ("406", Refusal.DUPLICATE_ORDER),
        ("410", Refusal.METHOD_GONE),
        ("411", Refusal.METHOD_GONE),
        ("412", Refusal.WRONG_STATE),
        ("414", Refusal.REFUND_REFUSED),
        ("429", Refusal.RATE_LIMITED),
        ("499", Refusal.INVALID),
    ],
)
def test_documented_error_is_a_refusal_in_either_form(
    client: MidtransClient, script: Script, code: str, reason: Refusal, http_status: int | None
) -> None:
    script.say({"status_code": code, "status_message": "said\nso " + "x" * 500}, http_status or int(code))
    outcome = charge(client)
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.status_code) == (reason, code)
    assert outcome.message.startswith("said so")
    assert len(outcome.message) == 200


def test_page_without_an_address_is_unknown_and_a_refused_one_says_why(client: MidtransClient, script: Script) -> None:
    for body in ({"token": "t"}, {"token": "t", "redirect_url": "javascript:alert(1)"}, {"redirect_url": "https://x"}):
        script.say(body, 201)
        assert client.create_page(PageOrder("o-1", 100)) == Unknown(Doubt.UNREADABLE)
    script.say({"error_messages": ["order_id has already been taken"]}, 400)
    outcome = client.create_page(PageOrder("o-1", 100))
    assert isinstance(outcome, Refused)
    assert outcome.message == "order_id has already been taken"
    script.say({"token": "t", "redirect_url": "https://app.midtrans.com/x"}, 201)
    assert isinstance(client.create_page(PageOrder("o-1", 100)), Done)


def test_first_call_of_the_same_key_still_runs(client: MidtransClient, script: Script) -> None:
    script.say({"status_code": "202", "status_message": "being processed"}, 202)
    assert charge(client) == Unknown(Doubt.IN_PROGRESS)


def test_redirect_is_not_followed_with_our_key(client: MidtransClient, script: Script) -> None:
    for status in (301, 302, 307, 308):
        script.say(CARD, status)
        script.headers = {"Location": f"{script.url}/elsewhere"}
        charge(client)
    assert "/elsewhere" not in script.paths
    assert len(script.paths) == 4


def test_key_is_in_no_log_and_no_outcome(client: MidtransClient, script: Script) -> None:
    with structlog.testing.capture_logs() as logs:
        outcomes = []
        for status, body in ((500, b"{}"), (200, b"<"), (401, b"{}"), (200, json.dumps(CARD).encode())):
            script.say(body, status)
            outcomes.append(charge(client))
    assert len(logs) == 3
    assert KEY not in repr((client, client.__dict__.get("_session"), outcomes, logs))


def test_settings_make_the_client(settings: Any) -> None:
    settings.MIDTRANS_SERVER_KEY, settings.MIDTRANS_BASE_URL = KEY, "http://127.0.0.1:1/"
    with MidtransClient.from_settings() as client:
        assert repr(client) == "MidtransClient('http://127.0.0.1:1')"
