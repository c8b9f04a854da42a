"""The worker: takes ids from the wait stream, has them polled, tells their ends.

Five loops, and what they share is `_held`: the ids that the server has lent to this worker.

- `_hold` asks the server for ids while there is room, and hands back what is more than this
  worker's part. It alone speaks to the shared consumer, so nothing is asked for while ids are
  handed back: the server would give them to us again.
- `_follow` passes on the ends that the session's poller finds.
- `_tell` (many at a time) publishes each end and, when it is stored, acknowledges the id. In that
  order: killed between the two, the worker has told an end that somebody else will tell again; the
  server drops the second one where it comes soon.
- `_beat` says of all that is held, thrice in each lease, that it is in progress. A worker that is
  dead or frozen does not, and the server lends its ids to others. It greets the other workers, too.
- `_give_up` ends what was submitted too long ago.

Nothing is lost because an id leaves the wait stream for one reason only: its end was stored before.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from math import inf

import anyio
import anyio.lowlevel
from msgspec import Struct
from nats.aio.msg import Msg

from luma_async import validation as checks
from luma_async.errors import QueueError, WaitAborted
from luma_async.session import LumaSession
from luma_async.worker import peers
from luma_async.worker.balance import Load, Rebalance, plan
from luma_async.worker.consumer import PullConsumer
from luma_async.worker.peers import Peers
from luma_async.worker.publisher import Lease, PendingResult, ResultPublisher
from luma_async.worker.queue import Queue
from luma_async.worker.results import EndState, check_storable, state_of, submitted_id
from luma_async.worker.streams import ACK_WAIT, NATS_ERRORS

logger: logging.Logger = logging.getLogger("luma_async")

CAPACITY = 100_000
GIVE_UP = 86_400.0
MIN_WATCH = 60.0
FETCH_BATCH = 256
MAX_PUBLISHERS = 64
RETRY_DELAY = 0.25
MIN_LEASE = 0.5
MAX_LEASE = 86_400.0
DRAIN_TIMEOUT = 1.5
RELEASE_TIMEOUT = 3.0


class Work(Struct, frozen=True, kw_only=True):
    """What a worker has done so far, and what it holds: a frozen snapshot.

    `ends` counts the ends told by state, `taken` the ids that the server lent, `redelivered` those
    among them that had been lent before, `handed_back` those returned for others. `held` ids of
    `capacity` are lent to this worker now, the `oldest` submitted so many seconds ago; `untold` of
    them have ended, and wait for the server to store it. `peers` other workers share the pool.
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
    """Polls for the ids of a pool, through a session of yours, until `stop` is called.

    `capacity` is how many ids it holds at most. `give_up` is the seconds since an id was submitted
    after which it ends as `gave_up` (not before a worker has looked for a minute). `ack_wait` is
    the seconds after which the server lends the ids of a dead worker to others: one for all workers
    of a pool, None leaves it as it is, at first 60. `on_end` is called with the state and the lag
    (seconds, or None) of each end told. Session and queue are entered and closed by the caller.
    """

    def __init__(
        self,
        luma: LumaSession,
        queue: Queue,
        *,
        capacity: int = CAPACITY,
        give_up: float = GIVE_UP,
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
        self._on_end = on_end
        self._leases: dict[str, Lease] = {}
        self._peers = Peers(queue)
        self._publisher = ResultPublisher(queue)
        self._ends: Counter[EndState] = Counter()
        self._taken = self._redelivered = self._handed_back = self._untold = 0
        self._stopping = asyncio.Event()
        self._cause: Exception | None = None
        self._waiting = 0
        self._too_much_since = inf
        self._begun = self._running = False

    def __repr__(self) -> str:
        return f"<Worker: {len(self._leases)} of {self._capacity} held, {self._queue!r}>"

    @property
    def is_well(self) -> bool:
        """Whether it works, and the server is there and stores what it is told."""
        return self._running and self._queue.is_connected and not self._publisher.is_unavailable

    @property
    def work(self) -> Work:
        """What was done so far, and what is held."""
        now = time.time()
        oldest = min((held.submitted_at for held in self._leases.values()), default=now)
        return Work(
            ends={state: self._ends[state] for state in EndState},
            taken=self._taken,
            redelivered=self._redelivered,
            handed_back=self._handed_back,
            held=len(self._leases),
            capacity=self._capacity,
            oldest=max(0.0, now - oldest),
            untold=self._untold,
            peers=len(self._peers.loads),
            connected=self._queue.client.is_connected,
        )

    def stop(self) -> None:
        """Take nothing more, hand everything back, and let `run` return."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop` is called; once.

        Raises WaitAborted where the relay refuses the key or the session is closed, QueueError
        where the connection to the server is closed for good; what can be is handed back before.
        """
        if self._begun:
            raise RuntimeError("the worker has run already; make another one")
        self._begun = True
        self._following = self._luma.follow()
        self._send, self._pending_results = anyio.create_memory_object_stream[PendingResult](inf)
        self._running = True
        try:
            await self._peers.listen()
            lease = await self._lease()
            async with anyio.create_task_group() as group:
                group.start_soon(self._collect_loop)
                group.start_soon(self._heartbeat_loop, lease)
                group.start_soon(self._expire_loop)
                for _ in range(MAX_PUBLISHERS):
                    group.start_soon(self._publish_loop)
                group.start_soon(self._lease_loop, group.cancel_scope)
        except* QueueError as errors:
            self._cause = errors.exceptions[0]
        finally:
            self._running = False
            self._following.close()
            self._send.close()
            self._pending_results.close()
            with anyio.move_on_after(RETRY_DELAY, shield=True):
                await self._peers.leave()
        if self._cause is not None:
            raise self._cause

    async def _lease(self) -> float:
        """Return the seconds of a lease, after the others have heard how short it will be."""
        await self._announce(self._ack_wait or ACK_WAIT)
        return await self._queue.enlist(self._ack_wait)

    async def _announce(self, lease: float) -> None:
        await self._peers.announce(self._load(), lease)

    def _load(self) -> Load:
        return Load(len(self._leases), self._capacity)

    async def _lease_loop(self, everything: anyio.CancelScope) -> None:
        """Take ids until it is time to stop, then let go of all, then of everything."""
        last_words = 0.0
        try:
            await self._take()
            last_words = DRAIN_TIMEOUT
        finally:
            with anyio.move_on_after(RELEASE_TIMEOUT, shield=True):
                await self._release_all(last_words)
            everything.cancel()

    async def _take(self) -> None:
        """Take ids while there is room for them, and hand back what others should hold.

        A request for ids is never broken off: the server would go on with it, and lend ids to
        nobody.
        """
        pull: PullConsumer | None = None
        try:
            while not self._stopping.is_set():
                if self._queue.client.is_closed:
                    self._cause = _closed_for_good(self._queue.client.last_error)
                    return
                next_turn = self._next_plan()
                if not self._queue.is_connected:
                    await self._pause()
                elif next_turn.hand_back and self._too_much():
                    await self._hand_back(next_turn.hand_back)
                    await self._pause(2 * peers.ANNOUNCE_EVERY)
                else:
                    with anyio.CancelScope(shield=True):
                        pull = await self._take_batch(pull, next_turn.take)
                    if not next_turn.take:
                        await self._pause()
                await anyio.lowlevel.checkpoint()
        finally:
            with anyio.CancelScope(shield=True):
                if pull is not None:
                    with suppress(*NATS_ERRORS, QueueError):
                        await self._accept(await pull.drain())
                    await _closed(pull)

    def _next_plan(self) -> Rebalance:
        decided = plan(self._load(), self._peers.loads, waiting=self._waiting, most=FETCH_BATCH)
        if not decided.hand_back:
            self._too_much_since = inf
        if not decided.take:
            self._waiting = 0  # it was so when ids were last asked for
        return decided

    def _too_much(self) -> bool:
        """Whether this worker has held too much for a while: what is known of others is old."""
        now = asyncio.get_running_loop().time()
        self._too_much_since = min(self._too_much_since, now)
        return now - self._too_much_since >= 2 * peers.ANNOUNCE_EVERY

    async def _take_batch(self, pull: PullConsumer | None, most: int) -> PullConsumer | None:
        try:
            pull = pull or await self._queue.pull()
            await self._accept(await pull.fetch(most))
        except NATS_ERRORS as error:
            logger.debug("taking ids begins anew: %r", error)
            await _closed(pull)
            await self._pause()
            return None
        return pull

    async def _accept(self, messages: Sequence[Msg]) -> None:
        """Hold what the server has lent, and poll for it."""
        now, loop_now = time.time(), asyncio.get_running_loop().time()
        new: list[str] = []
        if messages:
            self._waiting = messages[-1].metadata.num_pending
        for message in messages:
            metadata = message.metadata
            try:
                task_id = check_storable(
                    checks.task_id(submitted_id(message.subject, message.data))
                )
            except ValueError as error:
                logger.error("%.80s is no id, and is dropped: %s", message.subject, error)
                with suppress(*NATS_ERRORS):
                    await message.term()
                continue
            self._redelivered += metadata.num_delivered > 1
            held = self._leases.get(task_id)
            if held is not None and held.submission == metadata.sequence.stream:
                held.reply = message.reply
                continue
            submitted_at = metadata.timestamp.timestamp()
            left = max(
                submitted_at + self._give_up_after - now, min(self._give_up_after, MIN_WATCH)
            )
            self._leases[task_id] = Lease(
                task_id, message.reply, metadata.sequence.stream, submitted_at, loop_now + left
            )
            new.append(task_id)
        self._taken += len(new)
        with suppress(WaitAborted):
            self._following.add(new)

    async def _collect_loop(self) -> None:
        """Pass on each end that the poller finds."""
        try:
            async for ended in self._following:
                state = state_of(ended.generation)
                self._pass_on(PendingResult(ended.id, state, ended.generation, ended.lag))
        except WaitAborted as error:
            self._cause = error
            self.stop()

    def _pass_on(self, ending: PendingResult) -> None:
        held = self._leases.get(ending.id)
        if held is not None:
            held.ended = True
            self._untold += 1
            self._send.send_nowait(ending)

    async def _publish_loop(self) -> None:
        """Store ends, and acknowledge their ids."""
        async for ending in self._pending_results:
            held = self._leases.get(ending.id)
            if held is not None:
                await self._publisher.publish(held, ending)
                await self._publisher.ack(held)
                if self._leases.get(held.id) is held:
                    del self._leases[held.id]
                self._count(ending)
            self._untold -= 1

    def _count(self, ending: PendingResult) -> None:
        self._ends[ending.state] += 1
        if self._on_end is not None:
            try:
                self._on_end(ending.state, ending.lag)
            except Exception:
                logger.exception("on_end failed; the end was told all the same")

    async def _heartbeat_loop(self, lease: float) -> None:
        """Greet the others; thrice in a lease, and after a silence, say what is in progress."""
        loop = asyncio.get_running_loop()
        greeted = said = loop.time()
        was_connected = True
        while True:
            period = self._peers.lease(lease) / 3
            await asyncio.sleep(min(RETRY_DELAY, period / 4))
            now, connected = loop.time(), self._queue.client.is_connected
            if connected and (now - said >= period or not was_connected):
                said = now
                await self._publisher.in_progress(tuple(self._leases.values()), self._is_held)
            if now - greeted >= peers.ANNOUNCE_EVERY:
                greeted = now
                await self._announce(lease)
            was_connected = connected

    def _is_held(self, held: Lease) -> bool:
        return self._leases.get(held.id) is held

    async def _expire_loop(self) -> None:
        """End what nobody will find out any more."""
        loop = asyncio.get_running_loop()
        period = max(0.01, min(10.0, self._give_up_after / 20))
        while True:
            await asyncio.sleep(period)
            now = loop.time()
            late = [
                held.id for held in self._leases.values() if held.until <= now and not held.ended
            ]
            for task_id, seen in self._following.drop(late).items():
                self._pass_on(PendingResult(task_id, EndState.GAVE_UP, seen))

    async def _hand_back(self, count: int) -> None:
        """Let others have the ids that were taken last."""
        open_ids = (held.id for held in reversed(self._leases.values()) if not held.ended)
        newest = list(islice(open_ids, count))
        self._following.drop(newest)
        await self._release([self._leases.pop(task_id) for task_id in newest])
        logger.info("%d ids handed back for other workers", len(newest))

    async def _release_all(self, last_words: float) -> None:
        """Hand back all that is open, and use what time is left to tell what has ended."""
        open_ids = [held.id for held in self._leases.values() if not held.ended]
        self._following.drop(open_ids)
        await self._release([self._leases.pop(task_id) for task_id in open_ids])
        with anyio.move_on_after(last_words):
            while self._untold and self.is_well:  # noqa: ASYNC110 - till the last
                await asyncio.sleep(RETRY_DELAY / 10)
        await self._release(list(self._leases.values()))
        self._leases.clear()

    async def _release(self, helds: list[Lease]) -> None:
        self._handed_back += len(helds)
        await self._publisher.nak(helds)

    async def _pause(self, seconds: float = RETRY_DELAY) -> None:
        with anyio.move_on_after(seconds):
            await self._stopping.wait()


async def _closed(pull: PullConsumer | None) -> None:
    if pull is not None:
        with suppress(*NATS_ERRORS):
            await pull.close()


def _closed_for_good(reason: Exception | None) -> QueueError:
    why = f" ({reason})" if reason else ""
    return QueueError(f"the connection to the NATS server is closed{why}; start the worker anew")
