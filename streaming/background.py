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
            if task.cancelling():
                # The step has lost it. asyncio.wait_for does, when what it waits for is done at that very moment
                # (Python 3.11); a process that waits for its tasks would never end.
                return
            await asyncio.sleep(interval)

    task = asyncio.get_running_loop().create_task(turns(), name=name)
    return task
