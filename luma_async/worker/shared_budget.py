"""SharedBudget: one rate limit for all sessions that use a NATS server, a relay and a key.

The timetable (see `scheduling.shared_budget`) is one message in a stream, replaced by
compare-and-set. The stream is kept in memory: after a restart of the server it is empty, and the
first session waits until all slots that were reserved before have passed. A Retry-After is also
announced on a subject without a stream, so that it quiets all sessions at once.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from math import ceil, inf

import msgspec
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import api

from luma_async import validation as checks
from luma_async.errors import LumaError, QueueError
from luma_async.scheduling.shared_budget import (
    Later,
    Reservation,
    Timetable,
    Wish,
    plan,
    quiet_until,
    share,
    with_quiet,
)
from luma_async.scheduling.slots import Slots
from luma_async.worker.queue import Queue
from luma_async.worker.server import streams
from luma_async.worker.server.connection import cancel
from luma_async.worker.server.invalid_messages import InvalidMessages
from luma_async.worker.server.server_clock import ServerClock
from luma_async.worker.server.stream_info import stream_info
from luma_async.worker.server.streams import NATS_ERRORS, is_conflict, reason

logger: logging.Logger = logging.getLogger("luma_async")

STREAM = "luma-budget"
QUIET_SUBJECT = "luma-quiet"
RETRY_DELAY = 0.25  # seconds
MIN_DELAY = 0.001  # seconds
PREFETCH = 0.25  # seconds of slots that a session with a backlog reserves at once
SYNC_CLOCK_EVERY = 5.0  # seconds
FIRST_SAMPLES = 3  # of the server's clock
_decoder = msgspec.json.Decoder(Timetable)


class SharedBudget:
    """A rate limit that sessions share: `LumaSession(…, limits=Limits(max_rate=10), budget=…)`.

    All sessions with the same NATS server, relay and API key together send up to `max_rate`
    requests in any second, in whichever processes they run; the lowest of their rates counts. A 429
    or a Retry-After that one of them receives quiets all. `queue` is an entered Queue, of any pool;
    a SharedBudget may be used by several sessions. While the NATS server is not reachable, nothing
    is sent.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = checks.instance("queue", queue, Queue, "a Queue")

    def __repr__(self) -> str:
        return f"<SharedBudget: {self._queue!r}>"

    @asynccontextmanager
    async def share(
        self, account: str, slots: Slots, spacing: float, /
    ) -> AsyncGenerator[None, None]:
        """Reserve slots for a session. Used by LumaSession. Raises QueueError."""
        reserver = _Reserver(self._queue, account[:32], slots, spacing)
        try:
            await reserver.open()
        except NATS_ERRORS as error:
            raise self._queue.connection.denials.error() or QueueError(
                f"the shared budget cannot be used ({reason(error)}); see the log of the server"
            ) from None
        task = asyncio.create_task(reserver.run())
        try:
            yield
        finally:
            await cancel([task])
            await reserver.close()


class _Reserver:
    """Reserves slots for one session."""

    def __init__(self, queue: Queue, account: str, slots: Slots, spacing: float) -> None:
        self._queue = queue
        self._subject = f"{STREAM}.{account}"
        self._quiet_subject = f"{QUIET_SUBJECT}.{account}"
        self._slots = slots
        self._spacing = spacing
        self._name = secrets.token_hex(6)
        self._clock = ServerClock()
        self._synced_at = 0.0
        self._needs_barrier = False
        self._known: tuple[Timetable | None, int] | None = None  # the record and its sequence
        self._own_next = 0.0
        self._quiet_until = 0.0  # to be shared
        self._wanted = asyncio.Event()
        self._invalid = InvalidMessages("a timetable")
        self._is_unavailable = False
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        await streams.ensure_budget(self._queue.js, STREAM)
        for _ in range(FIRST_SAMPLES):
            await self._sync_clock()
        if not self._clock.is_known:
            raise QueueError("a shared budget needs nats-server 2.10; install a newer one")
        self._subscription = await self._queue.client.subscribe(  # pyright: ignore[reportUnknownMemberType]
            self._quiet_subject, cb=self._on_quiet
        )
        self._slots.on_wanted = self._wanted.set
        self._slots.on_quiet = self._share_quiet

    async def close(self) -> None:
        with suppress(LumaError, *NATS_ERRORS):
            await self._subscription.unsubscribe()

    async def run(self) -> None:
        """Reserve slots whenever the session wants to send, until cancelled."""
        while True:
            await self._until_wanted()
            try:
                if self._loop.time() - self._synced_at > SYNC_CLOCK_EVERY:
                    await self._sync_clock()
                delay = await self._reserve()
            except (LumaError, *NATS_ERRORS) as error:
                self._on_error(error)
                self._known = None
                await asyncio.sleep(RETRY_DELAY)
                with suppress(LumaError, *NATS_ERRORS):
                    await streams.ensure_budget(self._queue.js, STREAM)
                continue
            if self._is_unavailable:
                logger.warning("the shared budget is available again")
                self._is_unavailable = False
            await asyncio.sleep(delay)

    async def _until_wanted(self) -> None:
        """Wait until a slot is wanted now, or a quiet time is to be shared."""
        while True:
            self._wanted.clear()
            now = self._loop.time()
            self._slots.drop_missed(now)
            delay = self._slots.wanted_at - now
            if self._quiet_until or (delay <= 0 and self._missing_count() > 0):
                return
            with suppress(TimeoutError):
                # Slots pass unused, too: check again.
                wait_for = RETRY_DELAY if delay <= 0 else delay
                async with asyncio.timeout(None if delay == inf else wait_for):
                    await self._wanted.wait()

    def _missing_count(self) -> int:
        """Return how many slots to reserve."""
        target = 1
        if self._slots.is_backlogged:
            timetable = self._known[0] if self._known else None
            part = share(timetable or Timetable(), self._wish(1), self._clock.now())
            target = max(1, ceil(PREFETCH * part / self._spacing))
        return target - len(self._slots)

    def _wish(self, count: int) -> Wish:
        return Wish(
            self._name, self._slots.held, self._spacing, count, self._own_next, self._needs_barrier
        )

    async def _reserve(self) -> float:
        """Try to reserve slots once; return the seconds until the next attempt."""
        if self._known is None:
            self._known = await self._read()
        timetable, sequence = self._known
        now = self._clock.now()
        planned = plan(timetable, self._wish(max(1, self._missing_count())), now)
        own_quiet = self._quiet_until
        if own_quiet and timetable is not None:  # does not wait for a slot
            planned = Reservation(with_quiet(timetable, own_quiet, now), (), self._own_next)
        if isinstance(planned, Later):
            return max(MIN_DELAY, planned.at - now)
        self._known = await self._replace(planned.timetable, sequence)
        if self._known is not None:
            self._needs_barrier = False
            self._own_next = planned.own_next
            if own_quiet and planned.timetable.quiet_until >= own_quiet:
                await self._announce_quiet(planned.timetable)
            self._slots.add(self._clock.to_loop_time(slot) for slot in planned.slots)
        return 0.0

    async def _read(self) -> tuple[Timetable | None, int]:
        try:
            message = await self._queue.js.get_last_msg(STREAM, self._subject)
        except nats.js.errors.NotFoundError:
            return None, 0
        return self._decode(message.data or b""), message.seq or 0

    async def _announce_quiet(self, timetable: Timetable) -> None:
        if self._quiet_until <= timetable.quiet_until:
            self._quiet_until = 0.0
        payload = msgspec.json.encode(Timetable(quiet_until=timetable.quiet_until))
        await self._queue.client.publish(self._quiet_subject, payload)

    async def _on_quiet(self, message: Msg) -> None:
        self._decode(message.data)

    def _decode(self, payload: bytes) -> Timetable | None:
        """Decode a record, and honour its quiet time."""
        try:
            timetable = _decoder.decode(payload)
        except (ValueError, RecursionError) as error:
            self._invalid.log(self._subject, error)
            return None
        until = quiet_until(timetable, self._clock.now())
        self._slots.receive_quiet(self._clock.to_loop_time(until), self._loop.time())
        return timetable

    def _share_quiet(self, until: float) -> None:
        self._quiet_until = self._clock.to_unix_time(until)
        self._wanted.set()

    async def _replace(
        self, timetable: Timetable, sequence: int
    ) -> tuple[Timetable | None, int] | None:
        """Replace the record; return the new one, or None if another session was faster."""
        headers = {api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(sequence)}
        payload = msgspec.json.encode(timetable)
        try:
            stored = await self._queue.js.publish(self._subject, payload, headers=headers)
        except nats.js.errors.APIError as error:
            if is_conflict(error):
                return None
            raise
        return timetable, stored.seq

    async def _sync_clock(self) -> None:
        """Compare the server's clock with that of the event loop."""
        sent_at = self._loop.time()
        info = await stream_info(self._queue.client, STREAM)
        if self._clock.add(info.ts, sent_at):
            self._needs_barrier = True
        self._synced_at = self._loop.time()

    def _on_error(self, error: Exception) -> None:
        if not self._is_unavailable:
            logger.warning(
                "the shared budget is not available (%s): no requests are sent; retrying",
                reason(error),
            )
            self._is_unavailable = True
