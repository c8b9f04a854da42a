"""The worker: takes ids from the wait stream, has them polled, tells their ends.

Six loops, and what they share is `_held`: the ids that the server has lent to this worker.

- `_take` asks the server for ids while there is room, and hands back what is more than this
  worker's part. It alone speaks to the shared consumer, so nothing is asked for while ids are
  handed back: the server would give them to us again.
- `_follow` passes on the ends that the session's poller finds.
- `_tell` (many at a time) publishes each end and, when it is stored, acknowledges the id. In that
  order: killed between the two, the worker has told an end that somebody else will tell again; the
  server drops the second one where it comes soon.
- `_beat` says of all that is held, thrice in each lease, that it is in progress. A worker that is
  dead or frozen does not, and the server lends its ids to others.
- `_give_up` ends what was submitted too long ago.
- `_greet` tells the other workers how much is held here.

Nothing is lost because an id leaves the wait stream for one reason only: its end was stored before.
"""

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice

import anyio
import msgspec
import nats.errors
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec import Struct
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from luma_async import checks
from luma_async.errors import QueueError, WaitAborted
from luma_async.following import Following
from luma_async.session import LumaSession
from luma_async.slicing import slices
from luma_async.structs import Generation
from luma_async.worker.balance import Load, turn
from luma_async.worker.ends import EndState, encoded, state_of, submitted, token
from luma_async.worker.queue import Queue
from luma_async.worker.streams import TROUBLE

logger = logging.getLogger("luma_async")

CAPACITY = 100_000
GIVE_UP = 86_400.0
LEAST_LOOK = 60.0
FETCH = 256
FETCH_PATIENCE = 1.0
FETCH_MORE = 0.05
TELLERS = 64
BEATS_AT_ONCE = 500
GREETING = 1.0
SILENT = 3.5
PAUSE = 0.25
LONGEST_PAUSE = 5.0
ACK_PATIENCE = 5.0
ACK_TRIES = 3
LAST_WORDS = 2.0
ROOM_FOR_HEADERS = 1024


class Held(Struct, gc=False):
    """An id that the server has lent, and where to answer about it.

    It was `submitted_at` some Unix time, and is polled for `until` a time of the loop's clock.
    """

    task_id: str
    reply: str
    sequence: int
    submitted_at: float
    until: float
    ended: bool = False


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


class _Greeting(Struct, frozen=True):
    worker: str
    held: int
    capacity: int


class _Ending(Struct, frozen=True):
    task_id: str
    state: EndState
    generation: Generation | None
    lag: float | None = None


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
        self._on_end = on_end
        self._name = secrets.token_hex(8)
        self._held: dict[str, Held] = {}
        self._peers: dict[str, tuple[float, Load]] = {}
        self._ends: Counter[EndState] = Counter()
        self._taken = self._redelivered = self._handed_back = 0
        self._stopping = asyncio.Event()
        self._refused: WaitAborted | None = None
        self._away = False

    def __repr__(self) -> str:
        return f"<Worker: {len(self._held)} of {self._capacity} held, {self._queue!r}>"

    @property
    def work(self) -> Work:
        """What was done so far, and what is held."""
        now = time.time()
        oldest = min((held.submitted_at for held in self._held.values()), default=now)
        return Work(
            ends={state: self._ends[state] for state in EndState},
            taken=self._taken,
            redelivered=self._redelivered,
            handed_back=self._handed_back,
            held=len(self._held),
            capacity=self._capacity,
            oldest=max(0.0, now - oldest),
            untold=sum(held.ended for held in self._held.values()),
            peers=len(self._loads()),
            connected=self._queue.client.is_connected,
        )

    def stop(self) -> None:
        """Take nothing more, hand everything back, and let `run` return."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop` is called; once.

        Raises WaitAborted where the relay refuses the key or the session is closed, QueueError
        where the connection to the server is closed for good; everything is handed back before.
        """
        lease = await self._queue.enlist(self._ack_wait)
        following = self._luma.follow()
        send, receive = anyio.create_memory_object_stream[_Ending](float("inf"))
        client, peers = self._queue.client, self._queue.names.peers
        greetings = await client.subscribe(  # pyright: ignore[reportUnknownMemberType]
            peers, cb=self._greeted
        )
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._follow, following, send)
                group.start_soon(self._beat, lease / 3)
                group.start_soon(self._give_up, following, send)
                group.start_soon(self._greet)
                for _ in range(TELLERS):
                    group.start_soon(self._tell, receive)
                try:
                    await self._take(following)
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._let_go(following)
                    group.cancel_scope.cancel()
        finally:
            following.close()
            send.close()
            receive.close()
            with suppress(*TROUBLE):
                await greetings.unsubscribe()
        if self._refused is not None:
            raise self._refused

    async def _take(self, following: Following) -> None:
        """Take ids while there is room for them, and hand back what others should hold."""
        subscription = None
        while not self._stopping.is_set():
            if self._queue.client.is_closed:
                reason = self._queue.client.last_error
                raise QueueError(
                    f"the connection to the NATS server is closed ({reason}); start the worker anew"
                )
            next_turn = turn(Load(len(self._held), self._capacity), self._loads(), FETCH)
            if next_turn.hand_back:
                await self._hand_back(following, next_turn.hand_back)
                await self._pause(2 * GREETING)
            elif not next_turn.take or not self._queue.client.is_connected:
                await self._pause()
            else:
                try:
                    if subscription is None:
                        subscription = await self._queue.pull()
                    await self._accept(await _fetched(subscription, next_turn.take), following)
                except TROUBLE as error:
                    logger.debug("taking ids begins anew: %r", error)
                    await _closed(subscription)
                    subscription = None
                    await self._pause()
        await _closed(subscription)

    async def _accept(self, messages: Iterable[Msg], following: Following) -> None:
        """Hold what the server has lent, and poll for it."""
        now, loop_now = time.time(), asyncio.get_running_loop().time()
        new: list[str] = []
        for message in messages:
            metadata = message.metadata
            try:
                task_id = checks.task_id(submitted(message.subject, message.data))
            except ValueError as error:
                logger.error("%s is no id, and is dropped: %s", message.subject, error)
                with suppress(*TROUBLE):
                    await message.term()
                continue
            self._redelivered += metadata.num_delivered > 1
            held = self._held.get(task_id)
            if held is not None and held.sequence == metadata.sequence.stream:
                held.reply = message.reply
                continue
            submitted_at = metadata.timestamp.timestamp()
            left = max(
                submitted_at + self._give_up_after - now, min(self._give_up_after, LEAST_LOOK)
            )
            self._held[task_id] = Held(
                task_id, message.reply, metadata.sequence.stream, submitted_at, loop_now + left
            )
            new.append(task_id)
        self._taken += len(new)
        with suppress(WaitAborted):
            following.add(new)

    async def _follow(self, following: Following, send: MemoryObjectSendStream[_Ending]) -> None:
        """Pass on each end that the poller finds."""
        try:
            async for ended in following:
                state = state_of(ended.generation)
                send.send_nowait(_Ending(ended.task_id, state, ended.generation, ended.lag))
        except WaitAborted as error:
            self._refused = error
            self.stop()

    async def _tell(self, receive: MemoryObjectReceiveStream[_Ending]) -> None:
        """Store ends, and acknowledge their ids."""
        async for ending in receive:
            held = self._held.get(ending.task_id)
            if held is None:
                continue
            held.ended = True
            await self._store(held, ending)
            await self._acknowledge(held)
            if self._held.get(held.task_id) is held:
                del self._held[held.task_id]
            self._ends[ending.state] += 1
            if self._on_end is not None:
                self._on_end(ending.state, ending.lag)

    async def _store(self, held: Held, ending: _Ending) -> None:
        """Publish an end until it is stored, however long the server is away."""
        names = self._queue.names
        name = token(held.task_id)
        headers = {api.Header.MSG_ID.value: f"{held.sequence}.{name}"}
        pause = PAUSE
        while True:
            most = self._queue.client.max_payload - ROOM_FOR_HEADERS
            text, whole = encoded(held.task_id, ending.state, ending.generation, most)
            try:
                await self._queue.js.publish(names.ended(name), text, headers=headers)
            except TROUBLE as error:
                if not self._away:
                    logger.warning("ends cannot be stored for now (%r); they are kept", error)
                    self._away = True
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                with suppress(*TROUBLE, QueueError):
                    await self._queue.ensure()
                continue
            if self._away:
                logger.warning("ends are stored again")
                self._away = False
            if not whole:
                logger.warning(
                    "the task %.80r is too long to store, and is told in part", held.task_id
                )
            return

    async def _acknowledge(self, held: Held) -> None:
        """Tell the server that an id is done with; if it does not hear, it lends the id again."""
        for _ in range(ACK_TRIES):
            with suppress(*TROUBLE):
                await self._queue.client.request(held.reply, Msg.Ack.Ack, timeout=ACK_PATIENCE)
                return
            await asyncio.sleep(PAUSE)

    async def _beat(self, period: float) -> None:
        """Say in time that all that is held is in progress, and at once after a silence."""
        loop = asyncio.get_running_loop()
        last, was_connected = loop.time(), True
        while True:
            await asyncio.sleep(min(PAUSE, period / 4))
            connected = self._queue.client.is_connected
            if connected and (loop.time() - last >= period or not was_connected):
                last = loop.time()
                with suppress(*TROUBLE):
                    await self._say(Msg.Ack.Progress, tuple(self._held.values()))
            was_connected = connected

    async def _say(self, word: bytes, helds: Iterable[Held]) -> None:
        """Answer the server about many ids, a few at a time."""
        for part in slices(helds, BEATS_AT_ONCE):
            for held in part:
                if word is Msg.Ack.Nak or self._held.get(held.task_id) is held:
                    await self._queue.client.publish(held.reply, word)
            await asyncio.sleep(0)

    async def _give_up(self, following: Following, send: MemoryObjectSendStream[_Ending]) -> None:
        """End what nobody will find out any more."""
        loop = asyncio.get_running_loop()
        period = max(0.01, min(10.0, self._give_up_after / 20))
        while True:
            await asyncio.sleep(period)
            now = loop.time()
            late = [held.task_id for held in self._held.values() if held.until <= now]
            for task_id, seen in following.drop(late).items():
                send.send_nowait(_Ending(task_id, EndState.GAVE_UP, seen))

    async def _greet(self) -> None:
        """Tell the other workers how much is held here."""
        while True:
            await self._tell_peers(self._capacity)
            await asyncio.sleep(GREETING)

    async def _tell_peers(self, capacity: int) -> None:
        greeting = _Greeting(self._name, len(self._held), capacity)
        with suppress(*TROUBLE):
            if self._queue.client.is_connected:
                text = msgspec.json.encode(greeting)
                await self._queue.client.publish(self._queue.names.peers, text)

    async def _greeted(self, message: Msg) -> None:
        with suppress(ValueError):
            peer = msgspec.json.decode(message.data, type=_Greeting)
            if peer.worker == self._name:
                return
            self._peers.pop(peer.worker, None)
            if peer.capacity > 0 and peer.held >= 0:
                load = Load(peer.held, peer.capacity)
                self._peers[peer.worker] = (asyncio.get_running_loop().time(), load)

    def _loads(self) -> list[Load]:
        heard_since = asyncio.get_running_loop().time() - SILENT
        self._peers = {
            name: (at, load) for name, (at, load) in self._peers.items() if at >= heard_since
        }
        return [load for _, load in self._peers.values()]

    async def _hand_back(self, following: Following, count: int) -> None:
        """Let others have the ids that were taken last."""
        newest = list(islice((i for i in reversed(self._held) if i in following.asked), count))
        following.drop(newest)
        await self._release([self._held.pop(task_id) for task_id in newest])
        logger.info("%d ids handed back for other workers", len(newest))

    async def _let_go(self, following: Following) -> None:
        """Hand back all that is open, and use what time is left to tell what has ended."""
        await self._release([self._held.pop(i) for i in tuple(following.asked) if i in self._held])
        with anyio.move_on_after(LAST_WORDS):
            while self._held and self._queue.client.is_connected:  # noqa: ASYNC110 - till the last
                await asyncio.sleep(PAUSE / 10)
        await self._release(list(self._held.values()))
        self._held.clear()
        await self._tell_peers(0)
        with suppress(*TROUBLE):
            await self._queue.client.flush(timeout=1)

    async def _release(self, helds: list[Held]) -> None:
        self._handed_back += len(helds)
        with suppress(*TROUBLE):
            if self._queue.client.is_connected:
                await self._say(Msg.Ack.Nak, helds)

    async def _pause(self, seconds: float = PAUSE) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


async def _fetched(subscription: JetStreamContext.PullSubscription, most: int) -> list[Msg]:
    """Wait a moment for ids; where one comes, take those that come with it."""
    try:
        messages = await subscription.fetch(1, timeout=FETCH_PATIENCE)
    except nats.errors.TimeoutError:
        return []
    if most > 1:
        with suppress(nats.errors.TimeoutError):
            messages += await subscription.fetch(most - 1, timeout=FETCH_MORE)
    return messages


async def _closed(subscription: JetStreamContext.PullSubscription | None) -> None:
    if subscription is not None:
        with suppress(*TROUBLE):
            await subscription.unsubscribe()
