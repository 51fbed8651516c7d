"""Periodic work goes on whatever one turn does, and ends when it is told to."""

import asyncio
import contextlib

from structlog.testing import capture_logs

from streaming.background import repeat


async def test_turn_that_fails_is_logged_and_the_next_one_comes() -> None:
    turns = asyncio.Queue[int]()

    async def step() -> None:
        turns.put_nowait(1)
        raise ZeroDivisionError

    with capture_logs() as logs:
        task = repeat("failing", step, 0.001)
        async with asyncio.timeout(10):
            for _ in range(3):
                await turns.get()
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert {(entry["event"], entry["step"]) for entry in logs} == {("background_step_failed", "failing")}


async def test_task_ends_although_its_step_loses_the_cancellation() -> None:
    begun = asyncio.Event()

    async def step() -> None:
        begun.set()
        # As asyncio.wait_for, and so the Redis client, when an answer comes at the same moment.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    task = repeat("deaf", step, 60.0)
    await begun.wait()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done == {task}
