"""Workers that run as tasks of a test and stop when it ends."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from luma_async import LumaSession
from luma_async.worker import Queue, Work, Worker


class RunningWorker:
    """A worker, its session and its queue, and the task that runs it."""

    def __init__(self, luma: LumaSession, queue: Queue, worker: Worker) -> None:
        self.luma = luma
        self.queue = queue
        self.worker = worker
        self.task = asyncio.create_task(worker.run())

    @property
    def work(self) -> Work:
        return self.worker.work

    @property
    def is_well(self) -> bool:
        return self.worker.is_well

    async def stop(self) -> None:
        """Stop it as SIGTERM does. The caller of `task` gets its error."""
        self.worker.stop()
        await asyncio.wait([self.task])

    async def holds(self, count: int) -> None:
        """Wait until it holds so many ids."""
        await until(lambda: self.work.held == count)


class WorkerPool:
    """Starts workers of one pool, and stops them when the test ends."""

    def __init__(
        self,
        connect: Callable[..., Awaitable[tuple[LumaSession, Queue]]],
        stack: AsyncExitStack,
    ) -> None:
        self._connect = connect
        self._stack = stack

    async def start(self, key: str | None = None, **options: Any) -> RunningWorker:
        """Start one more worker."""
        luma, queue = await self._connect(key, missing_grace=options.pop("missing_grace", 0.2))
        running = RunningWorker(luma, queue, Worker(luma, queue, **options))
        self._stack.push_async_callback(running.stop)
        return running


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until a condition is true; fail the test if that takes too long."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - no event to wait for
            await asyncio.sleep(0.01)
