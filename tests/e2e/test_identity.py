"""Who may connect, and how long a live connection stays allowed: over the real door, with real rows."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.support.gateway import Gateway, until
from tests.support.raw_client import RawClient
from tests.support.terminal import Terminal

MakeGateway = Callable[..., Gateway]


def exchange(gateway: Gateway, api_key: str) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{gateway.port}/api/v1/tokens",
        data=json.dumps({"api_key": api_key}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def demo_keys(gateway: Gateway) -> dict[str, str]:
    people = json.loads((gateway.state_dir / "demo.json").read_text())
    return {name: person["api_key"] for name, person in people.items()}


def django(gateway: Gateway, code: str) -> str:
    """Runs Python inside the product, as an operator's shell would."""
    return gateway.manage("shell", "--no-imports", "-c", code)


def test_trader_exchanges_a_key_for_a_token_and_streams(gateway: Gateway) -> None:
    status, body = exchange(gateway, demo_keys(gateway)["bromo-dewi"])
    assert status == 201
    terminal = Terminal(gateway, body["token"])
    assert terminal.welcome["policy"]["tier"] == "PRO"
    terminal.tick(1)
    terminal.wait_for_ack(1)
    status, problem = exchange(gateway, "gwk_wrong")
    assert status == 401
    assert "gwk_wrong" not in json.dumps(problem)


def test_connect_without_a_valid_token_is_refused_over_http(gateway: Gateway) -> None:
    for token in ("", "x.y.z", gateway.users[0].token[:-2]):
        client = RawClient(gateway.port)
        assert client.open(token) == 401
        client.close()
    assert gateway.metric("gateway_connects_refused_total", status="401") == 3


def test_free_users_third_connection_is_refused(gateway: Gateway) -> None:
    token = gateway.manage("issue_token", "--user", "merapi-admin").strip()
    held = [Terminal(gateway, token), Terminal(gateway, token)]
    third = RawClient(gateway.port)
    assert third.open(token) == 429
    held[0].close()

    def welcome_again() -> bool:
        client = RawClient(gateway.port)
        status = client.open(token)
        client.close()
        return status == 101

    until(welcome_again, 20, "a place that came free")


def test_free_user_is_held_to_twenty_messages_a_second_over_all_connections(gateway: Gateway) -> None:
    token = gateway.manage("issue_token", "--user", "merapi-admin").strip()
    one, two = Terminal(gateway, token, stream="a"), Terminal(gateway, token, stream="b")
    began = time.monotonic()
    for sequence in range(1, 41):
        one.tick(sequence)
        two.tick(sequence)
    assert one.hear_until("gateway.nack")["code"] == "rate_limited"
    assert two.hear_until("gateway.nack")["code"] == "rate_limited"
    until(lambda: gateway.metric("gateway_messages_total", result="accepted") >= 20, 20, "the burst")
    # Each second lets twenty more in.
    assert gateway.metric("gateway_messages_total", result="accepted") <= 20 + 20 * (time.monotonic() - began)


def test_token_is_refreshed_on_the_live_connection(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(GATEWAY_TOKEN_GRACE="1s", GATEWAY_TOKEN_LEEWAY="0s", GATEWAY_TOKEN_TTL="8s").start()
    longer = gateway.manage("issue_token", "--user", "bromo-dewi", "--ttl", "600").strip()
    others = gateway.manage("issue_token", "--user", "bromo-budi", "--ttl", "600").strip()
    # Over the API: a command takes as long as this token lasts when the machine is busy.
    fresh = exchange(gateway, demo_keys(gateway)["bromo-dewi"])[1]["token"]
    refreshed = Terminal(gateway, fresh)
    refreshed.say("gateway.refresh", payload={"token": longer})
    assert refreshed.hear_until("gateway.policy")["tier"] == "PRO"
    expiring, thief = Terminal(gateway, fresh), Terminal(gateway, longer)
    thief.say("gateway.refresh", payload={"token": others})
    assert thief.hear_until("gateway.nack")["code"] == "token_invalid"
    assert thief.hear_until("gateway.disconnect")["code"] == 4500
    assert expiring.hear_until("gateway.disconnect")["code"] == 4000
    assert (expiring.hear(), expiring.close_code) == (("", {}), 4000)
    refreshed.tick(1)
    refreshed.wait_for_ack(1)


def test_changes_of_the_operator_reach_live_connections(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(GATEWAY_ACCESS_POLL_INTERVAL="500ms").start()
    dewi = Terminal(gateway, gateway.manage("issue_token", "--user", "bromo-dewi").strip())
    sari = Terminal(gateway, gateway.manage("issue_token", "--user", "rinjani-sari").strip())
    assert dewi.welcome["policy"]["message_rate_limit"] == 50
    django(
        gateway,
        "from tenants import access; from tenants.models import SubscriptionTier;"
        "tier = SubscriptionTier.objects.get(code='PRO'); tier.message_rate_limit = 30;"
        "access.save_row(access.Actor.system('tests'), tier)",
    )
    assert dewi.hear_until("gateway.policy")["message_rate_limit"] == 30
    gateway.manage("company", "suspend", "bromo", "--reason", "for a test")
    goodbye = dewi.hear_until("gateway.disconnect")
    assert (goodbye["code"], goodbye["reconnect"]) == (4503, False)
    # Nobody else feels it.
    sari.tick(1)
    sari.wait_for_ack(1)
