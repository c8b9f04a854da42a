"""The status of a pool: what waits, which worker holds how many ids, how many results a minute."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import nats.js.errors
from msgspec import Struct
from nats.js import api

from luma_async.errors import QueueError
from luma_async.worker.balance import ANNOUNCE_EVERY, Peers
from luma_async.worker.queue import Queue
from luma_async.worker.server.stream_info import stream_info
from luma_async.worker.server.streams import NATS_ERRORS
from luma_async.worker.storage.result_hub import read_error

LISTEN_FOR = 1.5 * ANNOUNCE_EVERY  # seconds
RATE_PERIOD = 60.0  # seconds
INACTIVE_THRESHOLD = 5.0  # seconds


class WorkerStatus(Struct, frozen=True):
    """A worker that has announced itself. Workers of version 0.1.0 have no host and pid."""

    name: str
    host: str
    pid: int
    held: int
    capacity: int


class PoolStatus(Struct, frozen=True):
    """The status of a pool.

    `waiting` ids are in the queue and no worker holds them; `held` ids are leased to workers, some
    of which may be dead. `oldest` is the number of seconds since the oldest of both was submitted;
    0 without ids. `results_per_minute` counts the results of the last minute, `results` those that
    the server keeps.
    """

    pool: str
    waiting: int
    held: int
    oldest: float
    results_per_minute: int
    results: int
    workers: list[WorkerStatus]


async def pool_status(queue: Queue) -> PoolStatus:
    """Return the status of a pool; listens to its workers for a second and a half.

    Raises QueueError if the server does not answer.
    """
    peers = Peers(queue)
    try:
        await peers.listen()
        await asyncio.sleep(LISTEN_FOR)
        return await _status(queue, peers)
    except NATS_ERRORS as error:
        raise read_error(queue.connection, error) from None
    finally:
        with suppress(*NATS_ERRORS, QueueError):
            await peers.leave()


async def _status(queue: Queue, peers: Peers) -> PoolStatus:
    await queue.ensure()  # reads the server's clock
    now = queue.server_time()
    wait = (await stream_info(queue.client, queue.names.wait)).state
    done = (await stream_info(queue.client, queue.names.done)).state
    held = 0
    with suppress(nats.js.errors.NotFoundError):  # no worker has run yet
        consumer = await queue.js.consumer_info(queue.names.wait, queue.names.consumer)
        held = consumer.num_ack_pending or 0
    oldest = now - wait.first_ts.timestamp() if wait.messages and wait.first_ts else 0.0
    return PoolStatus(
        pool=queue.names.pool,
        waiting=max(0, wait.messages - held),
        held=min(held, wait.messages),
        oldest=max(0.0, oldest),
        results_per_minute=await _results_since(queue, now - RATE_PERIOD),
        results=done.messages,
        workers=sorted(
            (WorkerStatus(one.worker, one.host, one.pid, one.held, one.capacity)
             for one in peers.present()),
            key=lambda one: (one.host, one.pid, one.name),
        ),
    )  # fmt: skip


async def _results_since(queue: Queue, moment: float) -> int:
    """Count the results that are stored since a Unix time: the server counts them."""
    consumer = await queue.js.add_consumer(  # pyright: ignore[reportUnknownMemberType]
        queue.names.done,
        api.ConsumerConfig(
            ack_policy=api.AckPolicy.NONE,
            deliver_policy=api.DeliverPolicy.BY_START_TIME,
            opt_start_time=datetime.fromtimestamp(moment, UTC),
            inactive_threshold=INACTIVE_THRESHOLD,
            mem_storage=True,
            num_replicas=1,
        ),
    )
    with suppress(*NATS_ERRORS):
        await queue.js.delete_consumer(queue.names.done, consumer.name)
    return consumer.num_pending or 0
