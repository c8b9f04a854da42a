"""Leases: the ids that the server has delivered to a worker, until their results are stored.

A delivered message stays in the wait stream. The server delivers it again, to any worker, if it
hears nothing for the duration of the lease (`ack_wait`). A worker sends one of these replies:

- in progress: the lease starts again from now
- nak: the lease ends; the server delivers the id to another worker at once
- ack: the server deletes the id. Sent only after the result of the id is stored.

So a worker that dies loses no id. If it dies between storing a result and the ack, another worker
stores the result a second time; the server drops it as a duplicate within DUPLICATE_WINDOW.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice

from msgspec import Struct
from nats.aio.msg import Msg
from nats.js import api

from luma_async import validation as checks
from luma_async.errors import QueueError
from luma_async.polling.chunks import chunks
from luma_async.structs import Generation
from luma_async.worker.queue import Queue
from luma_async.worker.results import (
    EndState,
    check_storable,
    encode_result,
    subject_token,
    submitted_id,
)
from luma_async.worker.streams import NATS_ERRORS, reason

logger: logging.Logger = logging.getLogger("luma_async")

MIN_POLL_FOR = 60.0  # seconds for which an id is polled, however long ago it was submitted
REPLY_CHUNK_SIZE = 500  # replies sent in one turn of the event loop
FIRST_RETRY_DELAY = 0.25  # seconds
MAX_RETRY_DELAY = 5.0  # seconds
ACK_TIMEOUT = 5.0  # seconds
MAX_ACK_ATTEMPTS = 3
HEADERS_SIZE = 1024  # bytes of a message that are reserved for its headers


class Lease(Struct, gc=False):
    """An id that the server has delivered to this worker.

    `reply` is the subject of replies about it, `submission` its sequence number in the wait stream,
    `submitted_at` a Unix time, `give_up_at` a time of the event loop's clock. `has_ended` is set
    when its result is known.
    """

    id: str
    reply: str
    submission: int
    submitted_at: float
    give_up_at: float
    has_ended: bool = False


class Leases:
    """All leases of one worker, by id, in the order of delivery.

    `taken`, `redelivered` and `returned` count ids, as in `Work`.
    """

    def __init__(self, queue: Queue, give_up_after: float) -> None:
        self._queue = queue
        self._give_up_after = give_up_after
        self._by_id: dict[str, Lease] = {}
        self.taken: int = 0
        self.redelivered: int = 0
        self.returned: int = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, task_id: str) -> Lease | None:
        """Return the lease of an id, or None."""
        return self._by_id.get(task_id)

    def is_current(self, lease: Lease) -> bool:
        """Return whether this worker still has this lease."""
        return self._by_id.get(lease.id) is lease

    def remove(self, lease: Lease) -> None:
        """Remove a lease, unless a newer one of the same id has replaced it."""
        if self.is_current(lease):
            del self._by_id[lease.id]

    def oldest_submission(self, default: float) -> float:
        """Return the earliest Unix time at which an id was submitted."""
        return min((lease.submitted_at for lease in self._by_id.values()), default=default)

    def open_ids(self) -> list[str]:
        """Return the ids whose result is not known."""
        return [lease.id for lease in self._by_id.values() if not lease.has_ended]

    def newest_open_ids(self, count: int) -> list[str]:
        """Return up to `count` of them, the last ones delivered."""
        newest_first = reversed(self._by_id.values())
        return list(islice((lease.id for lease in newest_first if not lease.has_ended), count))

    def expired_ids(self, now: float) -> list[str]:
        """Return the open ids that the worker has to give up."""
        leases = self._by_id.values()
        return [one.id for one in leases if one.give_up_at <= now and not one.has_ended]

    async def accept(self, messages: Sequence[Msg]) -> list[str]:
        """Make leases of messages that the server has delivered; return the ids to be polled."""
        # A message is one of these:
        #   not an id                            terminate it: the server deletes it
        #   a submission with a lease here       redelivered, for example after the event loop was
        #                                        blocked: only the reply subject is new
        #   another submission of such an id     the old one was acknowledged: a new lease
        #   any other id                         a new lease
        now, loop_now = time.time(), asyncio.get_running_loop().time()
        new_ids: list[str] = []
        for message in messages:
            metadata = message.metadata
            try:
                task_id = check_storable(
                    checks.task_id(submitted_id(message.subject, message.data))
                )
            except ValueError as error:
                logger.error("dropped %.80s: it is not an id: %s", message.subject, error)
                with suppress(*NATS_ERRORS):
                    await message.term()
                continue
            self.redelivered += metadata.num_delivered > 1
            lease = self._by_id.get(task_id)
            if lease is not None and lease.submission == metadata.sequence.stream:
                lease.reply = message.reply
                continue
            submitted_at = metadata.timestamp.timestamp()
            poll_for = max(
                submitted_at + self._give_up_after - now, min(self._give_up_after, MIN_POLL_FOR)
            )
            self._by_id[task_id] = Lease(
                task_id, message.reply, metadata.sequence.stream, submitted_at, loop_now + poll_for
            )
            new_ids.append(task_id)
        self.taken += len(new_ids)
        return new_ids

    async def extend_all(self) -> None:
        """Reply that all ids are in progress, so that their leases start again."""
        leases = tuple(self._by_id.values())
        await self._reply(Msg.Ack.Progress, (one for one in leases if self.is_current(one)))

    async def ack(self, lease: Lease) -> None:
        """Acknowledge an id. If the ack is lost, the server delivers the id again."""
        for _ in range(MAX_ACK_ATTEMPTS):
            with suppress(*NATS_ERRORS):
                await self._queue.client.request(lease.reply, Msg.Ack.Ack, timeout=ACK_TIMEOUT)
                return
            await asyncio.sleep(FIRST_RETRY_DELAY)

    async def release(self, task_ids: Iterable[str]) -> None:
        """Return ids to the queue; the server delivers them to other workers at once."""
        await self._nak([self._by_id.pop(task_id) for task_id in task_ids])

    async def release_all(self) -> None:
        """Return all ids to the queue, also those whose result is known but not stored."""
        await self._nak(list(self._by_id.values()))
        self._by_id.clear()

    async def _nak(self, leases: Sequence[Lease]) -> None:
        self.returned += len(leases)
        await self._reply(Msg.Ack.Nak, leases)

    async def _reply(self, payload: bytes, leases: Iterable[Lease]) -> None:
        with suppress(*NATS_ERRORS, QueueError):
            for chunk in chunks(leases, REPLY_CHUNK_SIZE):
                for lease in chunk:
                    if not self._queue.client.is_connected:
                        return
                    await self._queue.client.publish(lease.reply, payload)
                await asyncio.sleep(0)


class PendingResult(Struct, frozen=True):
    """A result that is not stored yet. `lag` is in seconds, or None if it is not known."""

    id: str
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

    def add(self, result: PendingResult) -> None:
        """Add a result to be stored. Ignores ids without a lease."""
        lease = self._leases.get(result.id)
        if lease is not None:
            lease.has_ended = True
            self.unstored += 1
            self._pending.put_nowait(result)

    async def run(self) -> None:
        """Store one result after the other, until cancelled. Several tasks may run it."""
        while True:
            result = await self._pending.get()
            lease = self._leases.get(result.id)
            if lease is not None:
                await self._publish(lease, result)
                await self._leases.ack(lease)
                self._leases.remove(lease)
                self._count(result)
            self.unstored -= 1

    def _count(self, result: PendingResult) -> None:
        self.stored[result.state] += 1
        if self._on_end is not None:
            try:
                self._on_end(result.state, result.lag)
            except Exception:
                logger.exception("on_end raised an error; the result is stored")

    async def _publish(self, lease: Lease, result: PendingResult) -> None:
        """Publish a result, and repeat it with growing delays until it is stored.

        The message id is the same each time, so that the server drops duplicates.
        """
        token = subject_token(lease.id)
        subject = self._queue.names.done_subject(token)
        headers = {api.Header.MSG_ID.value: f"{lease.submission}.{token}"}
        delay = FIRST_RETRY_DELAY
        while True:
            max_bytes = self._queue.client.max_payload - HEADERS_SIZE
            text, is_complete = encode_result(
                lease.id, result.state, result.generation, lease.submission, max_bytes=max_bytes
            )
            try:
                await self._queue.js.publish(subject, text, headers=headers)
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
            if not is_complete:
                logger.warning(
                    "the task %.80r is too large: its result is stored in part", lease.id
                )
            return

    def _on_error(self, error: Exception) -> None:
        if not self.is_unavailable:
            logger.warning("results cannot be stored (%s): kept in memory; retrying", reason(error))
            self.is_unavailable = True
