"""Terminals that send at a given rate and count what became of each message."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

TICK = {"symbol": "EURUSD", "bid": 1.1, "ask": 1.2}
GOOD = json.dumps({"message_type": "tick_data", "ticks": [TICK]})
BAD = "{"


@dataclass
class Outcome:
    """Nacks by code; ``code``: of the close, 0 while open; ``disconnect``: the last message before it."""

    sent: int = 0
    nacks: Counter[str] = field(default_factory=Counter)
    notices: list[str] = field(default_factory=list)
    policies: list[dict[str, object]] = field(default_factory=list)
    code: int = 0
    disconnect: dict[str, object] = field(default_factory=dict)
    # Monotonic seconds.
    closed_at: float = 0.0


async def open_terminal(url: str, token: str) -> ClientConnection:
    return await connect(
        url,
        additional_headers={"Authorization": f"Bearer {token}"},
        subprotocols=["gateway.v1.json"],  # type: ignore[list-item]
        compression=None,
        ping_interval=None,
        # Two hundred at once take a while where others use the machine too.
        open_timeout=60,
    )


async def refused_with(url: str, token: str) -> tuple[int, str, float]:
    """Status, code and Retry-After (seconds, 0: none) of a handshake; (101, "", 0.0) when it is accepted."""
    try:
        connection = await open_terminal(url, token)
    except InvalidStatus as refusal:
        body = json.loads(refusal.response.body or b"{}")
        return refusal.response.status_code, body.get("code", ""), float(refusal.response.headers.get("Retry-After", 0))
    await connection.close()
    return 101, "", 0.0


async def listen(connection: ClientConnection, outcome: Outcome) -> None:
    """Counts what the gateway says until the connection ends."""
    try:
        async for message in connection:
            body = json.loads(message)
            kind, payload = body["message_type"], body["payload"]
            if kind == "gateway.nack":
                outcome.nacks[payload["code"]] += 1
            elif kind == "gateway.notice":
                outcome.notices.append(payload["code"])
            elif kind == "gateway.policy":
                outcome.policies.append(payload)
            elif kind == "gateway.disconnect":
                outcome.disconnect = payload
    except ConnectionClosed:
        pass
    outcome.code = connection.close_code or 1006
    outcome.closed_at = time.monotonic()


async def send_at(
    connection: ClientConnection, outcome: Outcome, rate: float, seconds: float, text: str = GOOD
) -> None:
    """``rate`` messages a second, in small bursts; ends early when the connection does."""
    began = time.monotonic()
    try:
        while (elapsed := time.monotonic() - began) < seconds:
            for _ in range(int(rate * elapsed) - outcome.sent):
                await connection.send(text)
                outcome.sent += 1
            await asyncio.sleep(0.01)
    except ConnectionClosed:
        pass
