"""Leases: the ids that the server has delivered to a worker, until their results are stored.

A delivered message stays in the wait stream. The server delivers it again, to any worker, if it
hears nothing for the duration of the lease (`ack_wait`). A worker sends one of these replies:

- in progress: the lease starts again from now
- nak: the lease ends; the server delivers the id to another worker at once
- ack: the server deletes the id. Sent only after the result of the id is stored.

So a worker that dies loses no id. If it dies between storing a result and the ack, another worker
polls the id again, finds its result stored, and sends the ack.

The server applies a reply to the message with a number. If the wait stream is created again, or the
server starts without the newest part of its data, another id may get the number. So an ack for a
lease from before such an event (`Queue.epoch`) is sent only if the message is there unchanged.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from math import inf

from msgspec import Struct
from nats.aio.msg import Msg

from luma_async import validation as checks
from luma_async.errors import QueueError
from luma_async.polling.chunks import chunks
from luma_async.worker.queue import Queue
from luma_async.worker.server.invalid_messages import InvalidMessages
from luma_async.worker.server.streams import NATS_ERRORS
from luma_async.worker.storage.result_store import submission_of
from luma_async.worker.storage.results import submitted_id
from luma_async.worker.storage.submissions import Submission

MAX_REQUEST_TIME = 60.0  # seconds after which no response to an earlier request is expected
MIN_POLL_FOR = 60.0  # seconds for which an id is polled, however long ago it was submitted
REPLY_CHUNK_SIZE = 500  # replies sent in one turn of the event loop
ACK_RETRY_DELAY = 0.25  # seconds
ACK_TIMEOUT = 5.0  # seconds
MAX_ACK_ATTEMPTS = 3


class Lease(Struct, gc=False):
    """An id that the server has delivered to this worker.

    `reply` is the subject of replies about it, `epoch` is `Queue.epoch` at the delivery.
    `give_up_at` is a time of the event loop's clock. `has_ended` is set when its result is known.
    With `is_replacement`, the worker has polled the id before, perhaps for an earlier submission: a
    request that is in flight was sent before this one, and its response does not count.
    """

    id: str
    reply: str
    epoch: int
    submission: Submission
    give_up_at: float
    has_ended: bool = False
    is_replacement: bool = False


class Leases:
    """All leases of one worker, by id, in the order of delivery.

    `taken`, `redelivered` and `returned` count ids, as in `Work`. `period` is the duration of a
    lease in seconds; the leases were extended at `extended_at`, by the clock of the event loop.
    """

    def __init__(self, queue: Queue, give_up_after: float) -> None:
        self._queue = queue
        self._give_up_after = give_up_after
        self._invalid = InvalidMessages("an id")
        self._by_id: dict[str, Lease] = {}
        self._returned_at: dict[str, float] = {}
        self.period: float = inf
        self.extended_at: float = 0.0
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

    def needs_another_poll(self, task_id: str) -> bool:
        """Return once for each replacement that its first result may be an earlier one."""
        lease = self._by_id.get(task_id)
        if lease is None or not lease.is_replacement:
            return False
        lease.is_replacement = False
        return True

    def remove(self, lease: Lease) -> None:
        """Remove a lease, unless a newer one of the same id has replaced it."""
        if self.is_current(lease):
            del self._by_id[lease.id]

    @property
    def oldest(self) -> float:
        """The number of seconds since the oldest of the ids was submitted; 0 without ids."""
        if not self._by_id:
            return 0.0
        submitted_at = min(lease.submission.time for lease in self._by_id.values()) / 1e6
        return max(0.0, self._queue.server_time() - submitted_at)

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
        #   another submission of such an id     the old one was acknowledged or lost: a new lease
        #   any other id                         a new lease
        self._forget_returned()
        new_ids: list[str] = []
        for message in messages:
            task_id = await self._id_of(message)
            if task_id is None:
                continue
            self.redelivered += message.metadata.num_delivered > 1
            lease, submission = self._by_id.get(task_id), submission_of(message)
            if lease is not None and lease.submission == submission:
                lease.reply, lease.epoch = message.reply, self._queue.epoch
                continue
            is_polled = task_id in self._returned_at or (lease is not None and not lease.has_ended)
            self._by_id[task_id] = Lease(
                task_id, message.reply, self._queue.epoch, submission,
                self._give_up_at(submission), is_replacement=is_polled,
            )  # fmt: skip
            new_ids.append(task_id)
        self.taken += len(new_ids)
        return new_ids

    async def _id_of(self, message: Msg) -> str | None:
        """Return the id in a message; terminate the message if it has none."""
        try:
            return checks.task_id(submitted_id(message.subject, message.data))
        except ValueError as error:
            self._invalid.log(message.subject, error)
            with suppress(*NATS_ERRORS):
                await message.term()
            return None

    def _give_up_at(self, submission: Submission) -> float:
        """Return when to give up an id, as a time of the event loop's clock."""
        age = self._queue.server_time() - submission.time / 1e6
        poll_for = max(self._give_up_after - age, min(self._give_up_after, MIN_POLL_FOR))
        return asyncio.get_running_loop().time() + poll_for

    def _forget_returned(self) -> None:
        """Forget the ids that were returned to the queue so long ago that no request has them."""
        latest = asyncio.get_running_loop().time() - MAX_REQUEST_TIME
        while self._returned_at and next(iter(self._returned_at.values())) < latest:
            del self._returned_at[next(iter(self._returned_at))]

    def is_certain(self, lease: Lease) -> bool:
        """Return whether a lease has not ended, as far as this worker can know.

        It may have ended if the worker was not connected, or sent no heartbeat for a lease period.
        """
        silence = asyncio.get_running_loop().time() - self.extended_at
        return lease.epoch == self._queue.epoch and silence < self.period

    async def extend_all(self) -> None:
        """Reply that all ids are in progress, so that their leases start again."""
        self.extended_at = asyncio.get_running_loop().time()
        leases = tuple(self._by_id.values())
        await self._reply(Msg.Ack.Progress, (one for one in leases if self.is_current(one)))

    async def ack(self, lease: Lease) -> None:
        """Acknowledge an id. If the ack is lost, the server delivers the id again."""
        for _ in range(MAX_ACK_ATTEMPTS):
            with suppress(*NATS_ERRORS):
                if lease.epoch != self._queue.epoch and not await self._is_waiting(lease):
                    return
                await self._queue.client.request(lease.reply, Msg.Ack.Ack, timeout=ACK_TIMEOUT)
                return
            await asyncio.sleep(ACK_RETRY_DELAY)

    async def _is_waiting(self, lease: Lease) -> bool:
        """Return whether the message of a lease is in the wait stream."""
        return await self._queue.id_streams(lease.id).read_waiting() == lease.submission

    async def release(self, task_ids: Iterable[str]) -> None:
        """Return ids to the queue; the server delivers them to other workers at once."""
        leases = [self._by_id.pop(task_id) for task_id in task_ids]
        now = asyncio.get_running_loop().time()
        for lease in leases:
            self._returned_at.pop(lease.id, None)
            self._returned_at[lease.id] = now
        await self._nak(leases)

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
