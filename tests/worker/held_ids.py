"""A worker that is cut off: it holds ids, and stores their results when the test lets it."""

import asyncio
from contextlib import aclosing
from typing import Any

from luma_async import State
from luma_async.structs import Generation
from luma_async.worker import EndState, Queue
from luma_async.worker.leases import Leases
from luma_async.worker.publisher import ResultPublisher
from tests.worker.worker_processes import until


class HeldIds:
    """The leases of a worker that is cut off: it stores its results when the test lets it."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.leases = Leases(queue, 60.0)
        self.publisher = ResultPublisher(queue, self.leases, None)

    async def take(self, count: int = 1) -> list[str]:
        """Lease ids, and keep them without extending the leases."""
        consumer = await self.queue.pull()
        ids: list[str] = []
        async with asyncio.timeout(20):
            while len(ids) < count:
                ids += await self.leases.accept(await consumer.fetch(count))
        await consumer.close()
        return ids

    async def store(self, task_id: str, reason: str) -> None:
        """Store a result, as after the connection is restored."""
        task = Generation(id=task_id, state=State.FAILED, failure_reason=reason)
        self.publisher.add(task_id, EndState.FAILED, task)
        running = asyncio.create_task(self.publisher.run())
        await until(lambda: not self.publisher.unstored)
        running.cancel()
        await asyncio.wait([running])


async def reasons(queue: Queue, *ids: str) -> list[str | None]:
    """Return the failure reasons of the stored results."""
    async with aclosing(queue.results(ids)) as ends:
        return [end.generation.failure_reason if end.generation else None async for end in ends]


async def recreate_from_one(queue: Queue, name: str) -> None:
    """Create a stream again, as an old server or an operator does: the numbers begin at 1."""
    config: Any = (await queue.js.stream_info(name)).config
    await queue.js.delete_stream(name)
    await queue.js.add_stream(config.evolve(first_seq=None))  # pyright: ignore[reportUnknownMemberType]
