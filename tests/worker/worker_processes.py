"""Workers for a test: hired, let go, and gone when it ends."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from luma_async import LumaSession
from luma_async.worker import Queue, Worker


class Crew:
    """Hires workers that run as tasks, and stops those that are left."""

    def __init__(
        self,
        hire: Callable[..., Awaitable[tuple[LumaSession, Queue]]],
        stack: AsyncExitStack,
    ) -> None:
        self._hire = hire
        self._stack = stack

    async def hire(self, key: str | None = None, **options: Any) -> "Hand":
        """Let one more worker run."""
        grace = {"missing_grace": options.pop("missing_grace", 0.2)}
        luma, queue = await self._hire(key, **grace)
        hand = Hand(luma, queue, Worker(luma, queue, **options))
        self._stack.push_async_callback(hand.stop)
        return hand


class Hand:
    """A worker that runs."""

    def __init__(self, luma: LumaSession, queue: Queue, worker: Worker) -> None:
        self.luma = luma
        self.queue = queue
        self.worker = worker
        self.task = asyncio.create_task(worker.run())

    async def stop(self) -> None:
        """Stop it as SIGTERM would; what it ends with is for whoever awaits the task."""
        self.worker.stop()
        await asyncio.wait([self.task])

    async def holds(self, count: int) -> None:
        """Wait until it holds so many ids."""
        await until(lambda: self.worker.work.held == count)


async def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is true; the test fails where it takes too long."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.01)
