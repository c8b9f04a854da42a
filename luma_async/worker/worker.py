"""The worker: takes ids from the wait stream, polls them, and stores their results.

It runs five loops, which share the leases (see `leases`):

- `_lease_loop` fetches ids while there is room for them, and returns ids to the queue if other
  workers have a smaller share. It is the only one that uses the shared consumer, and fetches
  nothing while it returns ids: otherwise the server would deliver the same ids to this worker.
- `_collect_loop` receives the results that the session's poller finds.
- `ResultPublisher.run` (MAX_PUBLISHERS tasks) stores each result and then acknowledges its id.
- `Heartbeats.run` extends all leases three times per lease period, and announces this worker's
  load. A worker that is dead or frozen does not, and the server delivers its ids to others.
- `_expire_loop` gives up ids that were submitted too long ago.

No id is lost, because an id leaves the wait stream only after its result is stored.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

import anyio
import anyio.lowlevel
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg

from luma_async import validation as checks
from luma_async.errors import QueueError, WaitAborted
from luma_async.session import LumaSession
from luma_async.worker import balance
from luma_async.worker.balance import MAX_LEASE, MIN_LEASE, Balancer, Peers
from luma_async.worker.heartbeats import Heartbeats
from luma_async.worker.leases import Leases
from luma_async.worker.publisher import ResultPublisher
from luma_async.worker.queue import Queue
from luma_async.worker.server.consumer import PullConsumer
from luma_async.worker.server.stream_info import StreamInfo
from luma_async.worker.server.streams import ACK_WAIT, NATS_ERRORS
from luma_async.worker.storage.results import EndState, state_of

logger: logging.Logger = logging.getLogger("luma_async")

CAPACITY = 100_000  # ids
GIVE_UP_AFTER = 86_400.0  # seconds
FETCH_BATCH = 256  # ids
MAX_PUBLISHERS = 64
RETRY_DELAY = 0.25  # seconds
CHECK_STREAMS_EVERY = 30.0  # seconds
DRAIN_TIMEOUT = 1.5  # seconds for which a stopping worker stores the results that are known
RELEASE_TIMEOUT = 3.0  # seconds for which it returns ids to the queue, DRAIN_TIMEOUT included


class Work(Struct, frozen=True, kw_only=True):
    """A snapshot of what a worker has done since it started, and of what it holds.

    `ends` counts the stored results by state; `taken` the ids that the server delivered to this
    worker; `redelivered` the deliveries of ids that had been delivered before, to any worker;
    `handed_back` the ids returned to the queue. The worker holds `held` ids of up to `capacity`.
    `oldest` is the number of seconds since the oldest of them was submitted. `untold` results are
    known and not stored yet. `peers` is the number of other workers in the pool.
    """

    ends: dict[EndState, int]
    taken: int
    redelivered: int
    handed_back: int
    held: int
    capacity: int
    oldest: float
    untold: int
    peers: int
    connected: bool


class Worker:
    """Polls the ids of a pool with a given session, until `stop` is called.

    `capacity` is the maximum number of ids that it holds. `give_up` is in seconds: an id that was
    submitted longer ago gets the result `gave_up`, but is polled for at least a minute. `ack_wait`
    is the duration of a lease in seconds, for all workers of the pool: the server delivers the ids
    of a dead worker to others after that time. None keeps the present duration, at first 60.
    `on_end` is called with the state and the lag (seconds, or None if unknown) of each stored
    result. The caller enters and closes the session and the queue.
    """

    def __init__(
        self,
        luma: LumaSession,
        queue: Queue,
        *,
        capacity: int = CAPACITY,
        give_up: float = GIVE_UP_AFTER,
        ack_wait: float | None = None,
        on_end: Callable[[EndState, float | None], None] | None = None,
    ) -> None:
        self._luma = checks.instance("luma", luma, LumaSession, "a LumaSession")
        self._queue = checks.instance("queue", queue, Queue, "a Queue")
        self._capacity = checks.whole("capacity", capacity)
        self._give_up_after = checks.positive("give_up", give_up)
        self._ack_wait = None if ack_wait is None else checks.positive("ack_wait", ack_wait)
        if ack_wait is not None and not MIN_LEASE <= ack_wait <= MAX_LEASE:
            remedy = f"give seconds from {MIN_LEASE:g} to {MAX_LEASE:g}"
            raise ValueError(f"ack_wait={ack_wait}; {remedy}")
        self._leases = Leases(queue, self._give_up_after)
        self._peers = Peers(queue)
        self._balancer = Balancer(self._peers, self._leases, self._capacity)
        self._heartbeats = Heartbeats(queue, self._leases, self._peers, self._balancer)
        self._publisher = ResultPublisher(queue, self._leases, on_end)
        self._stopping = asyncio.Event()
        self._cause: Exception | None = None
        self._has_started = self._is_running = False

    def __repr__(self) -> str:
        return f"<Worker: {len(self._leases)} of {self._capacity} held, {self._queue!r}>"

    @property
    def is_well(self) -> bool:
        """Whether the worker runs, and the server is reachable and stores results."""
        return self._is_running and self._queue.is_connected and not self._publisher.is_unavailable

    @property
    def work(self) -> Work:
        """What the worker has done, and what it holds now."""
        return Work(
            ends={state: self._publisher.stored[state] for state in EndState},
            taken=self._leases.taken,
            redelivered=self._leases.redelivered,
            handed_back=self._leases.returned,
            held=len(self._leases),
            capacity=self._capacity,
            oldest=self._leases.oldest,
            untold=self._publisher.unstored,
            peers=len(self._peers.loads),
            connected=self._queue.client.is_connected,
        )

    def stop(self) -> None:
        """Take no more ids, return all ids to the queue, and let `run` return."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop` is called. May be called once.

        Returns all ids to the queue, if possible; then raises WaitAborted if the relay rejected the
        API key or the session is closed, QueueError if the server connection is closed for good.
        """
        if self._has_started:
            raise RuntimeError("the worker has run already; make another one")
        self._has_started = True
        self._following = self._luma.follow()
        self._is_running = True
        try:
            await self._peers.listen()
            # The others must extend their leases at the new, shorter period before it is set.
            await self._balancer.announce(self._ack_wait or ACK_WAIT)
            lease = await self._queue.enlist(self._ack_wait)
            with suppress(QueueError):  # a cluster without a leader: the streams are there later
                _warn_of_limits(await self._queue.ensure())
            async with anyio.create_task_group() as group:
                group.start_soon(self._collect_loop)
                group.start_soon(self._heartbeats.run, lease)
                group.start_soon(self._expire_loop)
                for _ in range(MAX_PUBLISHERS):
                    group.start_soon(self._publisher.run)
                group.start_soon(self._lease_loop, group.cancel_scope)
        except* QueueError as errors:
            self._cause = errors.exceptions[0]
        finally:
            self._is_running = False
            self._following.close()
            with anyio.move_on_after(RETRY_DELAY, shield=True):
                await self._peers.leave()
        if self._cause is not None:
            raise self._cause

    async def _lease_loop(self, all_loops: anyio.CancelScope) -> None:
        """Take ids until the worker stops; then release all leases and cancel all loops."""
        drain_timeout = 0.0  # if the worker is cancelled
        try:
            await self._take()
            drain_timeout = DRAIN_TIMEOUT
        finally:
            with anyio.move_on_after(RELEASE_TIMEOUT, shield=True):
                await self._release_all(drain_timeout)
            all_loops.cancel()

    async def _take(self) -> None:
        """Take ids while there is room for them, or return the surplus to the queue.

        A request for ids is shielded from cancellation: the server would fill it anyway, and no
        worker would poll those ids until their leases end.
        """
        consumer: PullConsumer | None = None
        try:
            while not self._stopping.is_set():
                if self._queue.client.is_closed:
                    self._cause = _connection_closed(self._queue.client)
                    return
                rebalance = self._balancer.plan(FETCH_BATCH)
                if not self._queue.is_connected:
                    await self._pause()
                elif rebalance.release and self._balancer.has_lasting_surplus():
                    await self._release_surplus(rebalance.release)
                    await self._pause(2 * balance.ANNOUNCE_EVERY)
                else:
                    with anyio.CancelScope(shield=True):
                        consumer = await self._take_batch(consumer, rebalance.take)
                    if not rebalance.take:
                        await self._pause()
                await anyio.lowlevel.checkpoint()
        finally:
            with anyio.CancelScope(shield=True):
                if consumer is not None:
                    with suppress(*NATS_ERRORS, QueueError):
                        await self._accept(await consumer.drain())
                    await consumer.close()

    async def _take_batch(self, consumer: PullConsumer | None, count: int) -> PullConsumer | None:
        try:
            consumer = consumer or await self._queue.pull()
            await self._accept(await consumer.fetch(count))
        except NATS_ERRORS as error:
            logger.debug("fetching ids failed; retrying: %r", error)
            if consumer is not None:
                await consumer.close()
            await self._pause()
            return None
        return consumer

    async def _accept(self, messages: Sequence[Msg]) -> None:
        """Poll the ids that the server has delivered."""
        if messages:
            self._balancer.waiting = messages[-1].metadata.num_pending
        new_ids = await self._leases.accept(messages)
        with suppress(WaitAborted):
            self._following.add(new_ids)

    async def _collect_loop(self) -> None:
        """Queue each result that the poller finds for the publish loops."""
        try:
            async for ended in self._following:
                if self._leases.needs_another_poll(ended.id):
                    self._following.add([ended.id])
                    continue
                state = state_of(ended.generation)
                self._publisher.add(ended.id, state, ended.generation, ended.lag)
        except WaitAborted as error:
            self._cause = error
            self.stop()

    async def _expire_loop(self) -> None:
        """Give up ids that were submitted too long ago."""
        loop = asyncio.get_running_loop()
        period = max(0.01, min(10.0, self._give_up_after / 20))
        checked_at = loop.time()
        while True:
            await asyncio.sleep(period)
            if loop.time() - checked_at >= CHECK_STREAMS_EVERY:
                checked_at = loop.time()
                with suppress(QueueError):
                    await self._queue.ensure()  # also reads the server's clock
            expired = self._leases.expired_ids(loop.time())
            for task_id, last_seen in self._following.drop(expired).items():
                self._publisher.add(task_id, EndState.GAVE_UP, last_seen)

    async def _release_surplus(self, count: int) -> None:
        """Return the ids that were taken last to the queue."""
        newest = self._leases.newest_open_ids(count)
        self._following.drop(newest)
        await self._leases.release(newest)
        logger.info("%d ids returned to the queue for other workers", len(newest))

    async def _release_all(self, drain_timeout: float) -> None:
        """Return all open ids, and store known results for up to `drain_timeout` seconds."""
        open_ids = self._leases.open_ids()
        self._following.drop(open_ids)
        await self._leases.release(open_ids)
        with anyio.move_on_after(drain_timeout):
            while self._publisher.unstored and self.is_well:  # noqa: ASYNC110 - the publish loops run
                await asyncio.sleep(RETRY_DELAY / 10)
        await self._leases.release_all()

    async def _pause(self, seconds: float = RETRY_DELAY) -> None:
        with anyio.move_on_after(seconds):
            await self._stopping.wait()


def _warn_of_limits(done: StreamInfo) -> None:
    if done.limits:
        logger.warning(
            "the stream of results is limited (%s): results are deleted before they are a week "
            "old; remove the limit, or read the results in time", done.limits,
        )  # fmt: skip


def _connection_closed(client: Client) -> QueueError:
    cause = f" ({client.last_error})" if client.last_error else ""
    return QueueError(f"the connection to the NATS server is closed{cause}; start the worker again")
