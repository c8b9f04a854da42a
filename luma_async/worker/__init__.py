"""Polling workers that outlive the process that submits: NATS JetStream keeps ids and results.

    async with Queue("nats://127.0.0.1:4222") as queue:
        await queue.submit(ids)
        done = await queue.wait_submitted(ids)

The functions `submit`, `results` and `wait_submitted` do the same with a connection for one call.
This package requires the extra `worker`.
"""

import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from datetime import datetime
from importlib.util import find_spec
from typing import overload

from luma_async.extras import install_command

if find_spec("nats") is None:
    raise ModuleNotFoundError(
        f"luma_async.worker needs nats-py, which is missing; {install_command('worker')}",
        name="nats",
    )

from luma_async.structs import Generation
from luma_async.worker.queue import Queue
from luma_async.worker.server.connection import Nats
from luma_async.worker.shared_budget import SharedBudget
from luma_async.worker.status import PoolStatus, WorkerStatus, pool_status
from luma_async.worker.storage.results import End, EndState
from luma_async.worker.worker import Work, Worker

__all__ = [
    "End",
    "EndState",
    "PoolStatus",
    "Queue",
    "SharedBudget",
    "Work",
    "Worker",
    "WorkerStatus",
    "pool_status",
    "results",
    "submit",
    "wait_submitted",
]


async def submit(
    ids: str | Iterable[str],
    nats: Nats | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    pool: str = "luma",
    credentials: str | os.PathLike[str] | None = None,
) -> list[str]:
    """Store ids for the workers, as `Queue.submit` does. They are on disk when it returns.

    The arguments are those of `Queue`. Returns the ids that were added. Raises QueueError.
    """
    async with Queue(nats, data=data, pool=pool, credentials=credentials) as queue:
        return await queue.submit(ids)


async def results(
    ids: str | Iterable[str] | None = None,
    nats: Nats | None = None,
    *,
    since: datetime | int | None = None,
    data: str | os.PathLike[str] | None = None,
    pool: str = "luma",
    credentials: str | os.PathLike[str] | None = None,
) -> AsyncGenerator[End, None]:
    """Iterate over results, as `Queue.results` does.

    If you leave the loop early, use `contextlib.aclosing`: it closes the connection at once.
    """
    async with (
        Queue(nats, data=data, pool=pool, credentials=credentials) as queue,
        aclosing(queue.results(ids, since=since)) as stored,
    ):
        async for result in stored:
            yield result


@overload
async def wait_submitted(  # type: ignore[overload-overlap]  # a str is one id
    ids: str,
    nats: Nats | None = None,
    *,
    timeout: float | None = 1800.0,
    data: str | os.PathLike[str] | None = None,
    pool: str = "luma",
    credentials: str | os.PathLike[str] | None = None,
) -> Generation: ...
@overload
async def wait_submitted(
    ids: Iterable[str],
    nats: Nats | None = None,
    *,
    timeout: float | None = 1800.0,
    data: str | os.PathLike[str] | None = None,
    pool: str = "luma",
    credentials: str | os.PathLike[str] | None = None,
) -> dict[str, Generation]: ...
async def wait_submitted(
    ids: str | Iterable[str],
    nats: Nats | None = None,
    *,
    timeout: float | None = 1800.0,
    data: str | os.PathLike[str] | None = None,
    pool: str = "luma",
    credentials: str | os.PathLike[str] | None = None,
) -> Generation | dict[str, Generation]:
    """Wait until the workers have stored a result for each id, as `Queue.wait_submitted` does."""
    async with Queue(nats, data=data, pool=pool, credentials=credentials) as queue:
        return await queue.wait_submitted(ids, timeout=timeout)
