"""The poller: sends the batches that are due, and passes responses to the waits.

There is no task that sleeps between polls. `_run_due` is a callback: it sends what is due now and
sets one timer for the next request. It runs when that timer fires, when a request returns and, once
in a turn of the loop, when ids are added. A poller without waits has no task, no timer, no request.

Each request is a task of its own, in the context of the code that opened the session, cancelled
when no id of it has a watcher any more. Direct calls (`get`, `get_many`) run in their caller's
task; they wait in the same queue and take turns with the polls.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from math import inf

from msgspec.structs import replace

from luma_async.errors import LumaError
from luma_async.polling.admission import AdmissionQueue, session_closed
from luma_async.polling.chunks import CHUNK_SIZE, chunks, run_in_turns
from luma_async.polling.deadlines import Deadlines
from luma_async.polling.endpoint_learning import EndpointLearner
from luma_async.polling.error_handling import ErrorHandler
from luma_async.polling.health import RelayHealth
from luma_async.polling.hooks import ChangeEvent, ChangeNotifier, Hook, log_notable
from luma_async.polling.interfaces import Relay, Watcher
from luma_async.polling.loop_affinity import LoopAffinity
from luma_async.polling.requests_in_flight import RequestsInFlight
from luma_async.polling.stats import Stats
from luma_async.protocol.rows import RowText
from luma_async.scheduling.batches import Batch
from luma_async.scheduling.changes import Grace, PollAnswer
from luma_async.scheduling.hazard import DurationCounts
from luma_async.scheduling.key_rejections import KeyRejections
from luma_async.scheduling.missing_evidence import Sign
from luma_async.scheduling.pace import Learned, Pace
from luma_async.scheduling.scheduler import Scheduler
from luma_async.scheduling.slots import Slots
from luma_async.scheduling.throttle import Limits, Throttle

logger: logging.Logger = logging.getLogger("luma_async")


class Poller:
    """Poll one relay for all waits of a session, and admit its direct calls."""

    def __init__(
        self,
        relay: Relay,
        pace: Pace,
        limits: Limits,
        grace: Grace,
        *,
        request_timeout: float,
        roll: Callable[[], float] = random.random,
        on_change: Hook[ChangeEvent] | None = None,
        slots: Slots | None = None,
    ) -> None:
        self.throttle: Throttle = Throttle(limits, roll, slots)
        self.health: RelayHealth = RelayHealth()
        self.key_rejections: KeyRejections = KeyRejections(limits.spacing)
        self.queue: AdmissionQueue = AdmissionQueue(
            self.throttle, self.health, self._run_due_soon, max_cooldown=request_timeout
        )
        self._relay = relay
        self.roll = roll
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.affinity: LoopAffinity = LoopAffinity()
        self._context = copy_context()
        self.deadlines: Deadlines = Deadlines(self.loop, self._context)
        self.scheduler: Scheduler[Watcher] = self._new_scheduler(pace, grace, 0.5 + roll() / 2)
        self._requests = RequestsInFlight(self.loop, self._context, request_timeout, self._on_done)
        self._changes = ChangeNotifier(on_change)
        self.endpoints: EndpointLearner = EndpointLearner(self)
        self._errors = ErrorHandler(self)
        self._watchers: dict[Watcher, None] = {}
        self._poll_first = False
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._closed = False
        if slots is not None:
            slots.on_reserved = self._run_due_soon

    def __repr__(self) -> str:
        return f"<Poller: {self.scheduler!r}, {self.throttle.in_flight} requests in flight>"

    def check_open(self) -> None:
        """Raise SessionClosed after `close`."""
        if self._closed:
            raise session_closed()

    @property
    def batch_size(self) -> int:
        """The number of ids that a request may carry now."""
        return self.scheduler.capabilities.max_ids(self.loop.time())

    def snapshot(self) -> Stats:
        """Return the stats of now."""
        now = self.loop.time()
        oldest = self.scheduler.oldest_watched_since()
        pace = self.scheduler.timing.pace
        return replace(
            self.health.stats,
            open=len(self.scheduler),
            oldest=0.0 if oldest is None else now - oldest,
            in_flight=self.throttle.in_flight,
            quiet_for=max(0.0, self.throttle.cooldown_until - now),
            learned=pace if isinstance(pace, Learned) and pace.seen != DurationCounts() else None,
        )

    def subscribe(
        self, watcher: Watcher, ids: Iterable[str], until: float = inf
    ) -> dict[str, RowText]:
        """Poll these ids until each has ended or is unsubscribed. Return the known rows."""
        self.check_open()
        self._watchers[watcher] = None
        known = self.scheduler.subscribe(watcher, ids, self.loop.time(), until=until)
        self._run_due_soon()
        return known

    def unsubscribe(self, watcher: Watcher, ids: Iterable[str]) -> Iterator[None]:
        """Stop polling these ids for the watcher, in chunks.

        They leave in their order, so the removal never overtakes a wait that begins again. The
        iterator returned takes the next step at once.
        """
        self._watchers.pop(watcher, None)
        return self.drop(watcher, ids)

    def drop(self, watcher: Watcher, ids: Iterable[str]) -> Iterator[None]:
        """Stop polling these ids for a watcher that keeps others."""
        steps = self._unsubscribe_steps(watcher, ids)
        run_in_turns(self.loop, steps)
        return steps

    def _unsubscribe_steps(self, watcher: Watcher, ids: Iterable[str]) -> Iterator[None]:
        for part in chunks(ids):
            for batch in self.scheduler.unsubscribe(watcher, part):
                self._requests.cancel(batch)
            if len(part) == CHUNK_SIZE:
                yield
        if not self.scheduler and not self.queue.has_waiters():
            self._cancel_timers()

    def abort(self, cause: Exception) -> None:
        """Abort all watchers, and remove them."""
        for watcher in list(self._watchers):
            watcher.abort(cause)
            self.unsubscribe(watcher, watcher.watched_ids)

    async def close(self) -> None:
        """Abort all waits, and cancel all requests."""
        self._closed = True
        watchers = list(self._watchers)
        for watcher in watchers:
            watcher.abort(session_closed())
        self.queue.close()
        for watcher in watchers:
            for _ in self.unsubscribe(watcher, watcher.watched_ids):
                await asyncio.sleep(0)
        self._cancel_timers()
        await self._requests.wait_idle()
        self.scheduler.clear()

    def _run_due_soon(self) -> None:
        if self._soon is None and not self._closed:
            self._soon = self.loop.call_soon(self._run_due, context=self._context)

    def _cancel_timers(self) -> None:
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        self._timer = self._soon = None

    def _run_due(self) -> None:
        try:
            self._send_due()
        except Exception as error:
            self._fail_all(error)
            self._run_due_soon()

    def _send_due(self) -> None:
        self._cancel_timers()
        now = self.loop.time()
        self.queue.reject_impatient(now)
        while (send_at := self._next_send_at()) <= now:
            self._send_next(now)
        if send_at < inf:
            self._timer = self.loop.call_at(send_at, self._run_due, context=self._context)

    def _next_send_at(self) -> float:
        """Return when to send the next request; inf if none is due or no slot is free."""
        wanted_at = self.throttle.next_slot_at()
        if wanted_at < inf and not self.queue.has_waiters():
            wanted_at = max(wanted_at, self.scheduler.next_due())
        return self.throttle.next_send_at(wanted_at, self.loop.time(), len(self.scheduler))

    def _send_next(self, now: float) -> None:
        """Send one request; direct calls and polls take turns."""
        if self.queue.has_waiters() and not (self._poll_first and self.scheduler.next_due() <= now):
            self._poll_first = True
            self.queue.admit(now)
            return
        self._poll_first = False
        batch = self.scheduler.take_batch(now)
        if batch is not None:
            self.throttle.acquire(now)
            self.health.record_request(len(batch.items))
            try:
                self._send(batch)
            except BaseException:
                self.throttle.release()
                raise

    def _send(self, batch: Batch[Watcher]) -> None:
        ids = batch.ids
        known, now = self.scheduler.capabilities, self.loop.time()
        batch.choose_endpoint(has_single=known.has_single(now), has_batch=known.max_ids(now) > 1)
        ask = self._relay.get_many(ids) if batch.use_batch_endpoint else self._relay.get(ids[0])
        self._requests.send(batch, ask)

    def _on_done(self, batch: Batch[Watcher], outcome: PollAnswer | BaseException | None) -> None:
        self.throttle.release()
        if outcome is None:
            return
        try:
            self._process(batch, outcome)
        except Exception as error:
            self._fail_all(error)
        if not self._closed:
            self._run_due()

    def _process(self, batch: Batch[Watcher], outcome: PollAnswer | BaseException) -> None:
        if isinstance(outcome, asyncio.CancelledError):
            self.scheduler.back_off(batch, self.loop.time())
        elif isinstance(outcome, BaseException):
            self._errors.handle(batch, outcome)
        else:
            self._on_answer(batch, outcome)

    def _fail_all(self, error: Exception) -> None:
        """Abort all waits after an unexpected error, and begin with an empty scheduler."""
        logger.exception("unexpected error in the poller; all waits are aborted")
        for watcher in self._watchers:
            watcher.abort(error)
        self._watchers.clear()
        self._requests.drop_all()
        failed = self.scheduler
        failed.clear()
        self.scheduler = self._new_scheduler(failed.timing.pace, failed.grace, failed.phase)
        self.scheduler.capabilities = failed.capabilities

    def _new_scheduler(self, pace: Pace, grace: Grace, phase: float) -> Scheduler[Watcher]:
        limits = self.throttle.limits
        return Scheduler(
            pace, limits.max_batch, grace,
            phase=phase, spacing=limits.spacing, max_in_flight=limits.max_in_flight,
        )  # fmt: skip

    def _on_answer(self, batch: Batch[Watcher], answer: PollAnswer) -> None:
        self.on_heard(batch, answer.retry_after)
        if len(batch.items) > 1:
            self.endpoints.record_batch(len(batch.items), answer.states)
        self.apply(batch, answer)

    def on_heard(self, batch: Batch[Watcher], retry_after: float | None) -> None:
        """Record that the relay responded about the tasks."""
        now = self.loop.time()
        self._requests.record_round_trip(now - batch.sent_at)
        self.health.record_response(now)
        self.endpoints.record_response()
        self.throttle.record_response(batch.sent_at, now)
        self.throttle.honour_retry_after(retry_after, now)

    def apply(
        self,
        batch: Batch[Watcher],
        answer: PollAnswer,
        sign: Sign | None = None,
        error: LumaError | None = None,
    ) -> None:
        """Apply a response to its batch, and pass the changes to their watchers."""
        known = self.scheduler.capabilities
        changes = self.scheduler.complete(batch, answer, self.loop.time(), sign=sign, error=error)
        if self.scheduler.capabilities is not known:
            self.endpoints.log_lesson()
        if changes and self._changes.has_listener:
            self.loop.call_soon(self._changes.notify, changes, context=self._context)
        self.health.record_ends([(one.state, one.max_lag) for one in changes if one.ended])
        for change in changes:
            if change.forbidden or change.task_id in answer.unknown_states:
                log_notable(change)
            for watcher in change.watchers:
                watcher.on_change(change)
            if not (change.ended or any(one.needs_rows for one in change.watchers)):
                self.scheduler.forget_row(change.task_id)
