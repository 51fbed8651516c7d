"""Periodic work of a process. Room: streaming."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger(__name__)


def repeat(name: str, step: Callable[[], Awaitable[None]], interval: float) -> asyncio.Task[None]:
    """Runs ``step`` now and each ``interval`` seconds until cancelled.

    An error is logged and the next turn comes all the same: cut-off and acknowledgement must not end with one surprise.
    """

    async def turns() -> None:
        while True:
            try:
                await step()
            except Exception:
                log.exception("background_step_failed", step=name)
            await asyncio.sleep(interval)

    return asyncio.get_running_loop().create_task(turns(), name=name)
