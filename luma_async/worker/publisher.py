"""Stores the results of a worker, and acknowledges their ids."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from luma_async.errors import QueueError
from luma_async.structs import Generation
from luma_async.worker.leases import Lease, Leases
from luma_async.worker.queue import Queue
from luma_async.worker.server.streams import NATS_ERRORS, reason
from luma_async.worker.storage.result_store import IdStreams, store_result
from luma_async.worker.storage.results import EndState, encode_result
from luma_async.worker.storage.submissions import StoredKey, Submission

logger: logging.Logger = logging.getLogger("luma_async")

FIRST_RETRY_DELAY = 0.25  # seconds
MAX_RETRY_DELAY = 5.0  # seconds
HEADERS_SIZE = 1024  # bytes of a message that are reserved for its headers


class PendingResult(Struct, frozen=True):
    """A result that is not stored yet. `lag` is in seconds, or None if it is not known.

    It belongs to the lease that the worker had when the result was known, not to a later one.
    """

    lease: Lease
    state: EndState
    generation: Generation | None
    lag: float | None = None


class ResultPublisher:
    """Stores results, and acknowledges their ids.

    `stored` counts the stored results by state, `unstored` those that are known and not stored yet.
    `is_unavailable` is set while the server does not store results. `on_end` is called with the
    state and the lag of each stored result.
    """

    def __init__(
        self,
        queue: Queue,
        leases: Leases,
        on_end: Callable[[EndState, float | None], None] | None,
    ) -> None:
        self._queue = queue
        self._leases = leases
        self._on_end = on_end
        self._pending: asyncio.Queue[PendingResult] = asyncio.Queue()
        self.stored: Counter[EndState] = Counter()
        self.unstored: int = 0
        self.is_unavailable: bool = False

    def add(
        self,
        task_id: str,
        state: EndState,
        generation: Generation | None,
        lag: float | None = None,
    ) -> None:
        """Add a result to be stored. Ignores ids without a lease."""
        lease = self._leases.get(task_id)
        if lease is not None:
            lease.has_ended = True
            self.unstored += 1
            self._pending.put_nowait(PendingResult(lease, state, generation, lag))

    async def run(self) -> None:
        """Store one result after the other, until cancelled. Several tasks may run it."""
        while True:
            result = await self._pending.get()
            lease = result.lease
            if self._leases.is_current(lease):
                is_stored = await self._store(result)
                await self._leases.ack(lease)
                self._leases.remove(lease)
                if is_stored:
                    self._count(result)
            self.unstored -= 1

    def _count(self, result: PendingResult) -> None:
        self.stored[result.state] += 1
        if self._on_end is not None:
            try:
                self._on_end(result.state, result.lag)
            except Exception:
                logger.exception("on_end raised an error; the result is stored")

    async def _store(self, result: PendingResult) -> bool:
        """Store a result, and repeat that with growing delays until the server has answered.

        Returns False if the result is stored already, or if a newer one is.
        """
        delay = FIRST_RETRY_DELAY
        while True:
            try:
                store, lease = _Store(self._queue, result), result.lease
                is_leased = self._leases.is_certain(lease)
                is_stored = await store_result(store, lease.submission, is_leased=is_leased)
            except NATS_ERRORS as error:
                self._on_error(error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, MAX_RETRY_DELAY)
                with suppress(*NATS_ERRORS, QueueError):
                    await self._queue.ensure()
                continue
            if self.is_unavailable:
                logger.warning("results are stored again")
                self.is_unavailable = False
            return is_stored

    def _on_error(self, error: Exception) -> None:
        if not self.is_unavailable:
            logger.warning("results cannot be stored (%s): kept in memory; retrying", reason(error))
            self.is_unavailable = True


class _Store:
    """The requests about one result, for `store_result`."""

    def __init__(self, queue: Queue, result: PendingResult) -> None:
        self._streams: IdStreams = queue.id_streams(result.lease.id)
        lease = result.lease
        max_bytes = queue.client.max_payload - HEADERS_SIZE
        self._payload, is_complete = encode_result(
            lease.id, result.state, result.generation, lease.submission, max_bytes=max_bytes
        )
        if not is_complete:
            logger.warning("the task %.80r is too large: its result is stored in part", lease.id)

    async def publish(self, expected: int, /) -> bool:
        return await self._streams.publish(self._payload, expected)

    async def read_stored(self) -> StoredKey | None:
        found = await self._streams.read_result()
        return None if found is None else found[0]

    async def read_waiting(self) -> Submission | None:
        return await self._streams.read_waiting()
