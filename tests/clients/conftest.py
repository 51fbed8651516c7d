"""What the tests of the client library share."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.clients.scripted_gateway import ScriptedGateway, scripted_gateway, without_waits
from trading_gateway_client import GatewayClient, TokenSource, fixed_token

MakeClient = Callable[..., GatewayClient]


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedGateway]:
    async with scripted_gateway() as started:
        yield started


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that clients would have waited before each further connect; none waits in a test that takes this."""
    return without_waits(monkeypatch)


@pytest.fixture
async def make_client(gateway: ScriptedGateway) -> AsyncIterator[MakeClient]:
    """Makes clients of the scripted gateway, which are closed after the test."""
    made: list[GatewayClient] = []

    def make(token: TokenSource | None = None, **options: Any) -> GatewayClient:
        made.append(GatewayClient(gateway.url, token or fixed_token("t"), **options))
        return made[-1]

    yield make
    for client in made:
        await client.close(0.0)
