"""The poller: sends the batches that are due, and passes responses to the waits.

There is no task that sleeps between polls. `_run_due` is a callback: it sends what is due now and
sets one timer for the next request. It runs when that timer fires, when a request returns and, once
in a turn of the loop, when ids are added. A poller without waits has no task, no timer, no request.

Each request is a task of its own, in the context of the code that opened the session, and is
cancelled when no id of it has a watcher any more. Direct calls (`get`, `get_many`) run in their
caller's task; they wait in the same queue and take turns with the polls.
"""

import asyncio
import logging
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from functools import partial
from math import inf

from msgspec.structs import replace

from luma_async.errors import APIError, LumaError, NoSuchRouteError, unforeseen
from luma_async.polling.admission import AdmissionQueue, session_closed
from luma_async.polling.chunks import CHUNK_SIZE, chunks
from luma_async.polling.health import RelayHealth
from luma_async.polling.hooks import ChangeEvent, ChangeNotifier, Hook
from luma_async.polling.interfaces import Relay, Watcher
from luma_async.polling.stats import Stats
from luma_async.protocol.responses import Response
from luma_async.protocol.rows import RowText
from luma_async.scheduling.changes import Grace, PollAnswer
from luma_async.scheduling.error_policy import Action, decide
from luma_async.scheduling.hazard import DurationCounts
from luma_async.scheduling.items import Batch
from luma_async.scheduling.pace import Learned, Pace
from luma_async.scheduling.scheduler import Scheduler
from luma_async.scheduling.throttle import ExponentialBackoff, Limits, Throttle

logger: logging.Logger = logging.getLogger("luma_async")

FAST_RETRIES = 4
PROXY_GRACE_FACTOR = 10.0  # grace for a refusal that may come from a proxy


class Poller:
    """Poll one relay for all waits of a session, and admit its direct calls."""

    def __init__(
        self,
        relay: Relay,
        pace: Pace,
        limits: Limits,
        grace: Grace,
        *,
        max_cooldown: float,
        roll: Callable[[], float] = random.random,
        on_change: Hook[ChangeEvent] | None = None,
    ) -> None:
        self.throttle: Throttle = Throttle(limits, roll)
        self.health: RelayHealth = RelayHealth()
        self.queue: AdmissionQueue = AdmissionQueue(
            self.throttle, self.health, max_cooldown=max_cooldown, on_ready=self._run_due_soon
        )
        self._relay = relay
        self._roll = roll
        self._loop = asyncio.get_running_loop()
        self._home = os.getpid(), threading.get_ident()
        self._context = copy_context()
        self._scheduler: Scheduler[Watcher] = Scheduler(
            pace, limits.max_batch, grace, phase=0.5 + roll() / 2, spacing=limits.spacing
        )
        self._changes = ChangeNotifier(on_change)
        self._retry = ExponentialBackoff()
        self._watchers: dict[Watcher, None] = {}
        self._tasks: dict[Batch[Watcher], asyncio.Task[PollAnswer]] = {}
        self._poll_first = False
        self._warned_no_batch = False
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Poller: {self._scheduler!r}, {self.throttle.in_flight} requests in flight>"

    def check_home(self) -> None:
        """Raise RuntimeError in another process, thread or loop than the one it was opened in."""
        process, thread = self._home
        if os.getpid() != process:
            raise RuntimeError("the session was opened before a fork; open one in each process")
        if threading.get_ident() != thread:
            raise RuntimeError(
                "the session lives in another thread; hand the call to its loop by "
                "asyncio.run_coroutine_threadsafe"
            )
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("the session belongs to another event loop; open one in each loop")

    def check_open(self) -> None:
        """Raise SessionClosed after `close`."""
        if self._closed:
            raise session_closed()

    @property
    def batch_size(self) -> int:
        """The number of ids that a request may carry now."""
        return self._scheduler.batch_size.current(self._loop.time())

    def snapshot(self) -> Stats:
        """Return the stats of now."""
        now = self._loop.time()
        oldest = self._scheduler.oldest_watched_since()
        pace = self._scheduler.schedule.pace
        return replace(
            self.health.stats,
            open=len(self._scheduler),
            oldest=0.0 if oldest is None else now - oldest,
            in_flight=self.throttle.in_flight,
            quiet_for=max(0.0, self.throttle.cooldown_until - now),
            learned=pace if isinstance(pace, Learned) and pace.seen != DurationCounts() else None,
        )

    def subscribe(
        self, watcher: Watcher, ids: Iterable[str], until: float = inf
    ) -> dict[str, RowText]:
        """Poll these ids until each has ended or `unsubscribe` is called.

        Return the last row of those that have other watchers already.
        """
        self.check_open()
        self._watchers[watcher] = None
        known = self._scheduler.subscribe(watcher, ids, self._loop.time(), until=until)
        self._run_due_soon()
        return known

    def unsubscribe(self, watcher: Watcher, ids: Iterable[str]) -> Iterator[None]:
        """Stop polling these ids for the watcher.

        Many are let go slice by slice, in their order, so that a wait which begins again is never
        behind the letting go. The iterator returned takes the next step at once.
        """
        self._watchers.pop(watcher, None)
        return self.drop(watcher, ids)

    def drop(self, watcher: Watcher, ids: Iterable[str]) -> Iterator[None]:
        """Stop polling these ids for a watcher that keeps others."""
        steps = self._unsubscribe_steps(watcher, ids)
        self._step(steps)
        return steps

    def _unsubscribe_steps(self, watcher: Watcher, ids: Iterable[str]) -> Iterator[None]:
        for part in chunks(ids):
            for batch in self._scheduler.unsubscribe(watcher, part):
                self._tasks[batch].cancel()
            if len(part) == CHUNK_SIZE:
                yield
        if not self._scheduler and not self.queue.has_waiters():
            self._cancel_timers()

    def _step(self, steps: Iterator[None]) -> None:
        for _ in steps:
            self._loop.call_soon(self._step, steps)
            return

    def abort(self, cause: Exception) -> None:
        """Abort all watchers, and remove them."""
        for watcher in list(self._watchers):
            watcher.abort(cause)
            self.unsubscribe(watcher, watcher.watched_ids)

    def record_batch_result(self, action: Action | None, ids: int) -> None:
        """Learn the batch size from a batch of `ids` ids; None means that it was answered."""
        if action is Action.NO_BATCH_ENDPOINT and not self._warned_no_batch:
            logger.warning("the relay has no batch endpoint; polling one id per request for now")
            self._warned_no_batch = True
        elif action is None and ids > 1:
            self._warned_no_batch = False
        self._scheduler.batch_size = self._scheduler.batch_size.after(
            action, ids, self._loop.time()
        )

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
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        self._scheduler.clear()

    def _run_due_soon(self) -> None:
        if self._soon is None and not self._closed:
            self._soon = self._loop.call_soon(self._run_due, context=self._context)

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
        now = self._loop.time()
        while (send_at := self._next_send_at()) <= now:
            self._send_next(now)
        if send_at < inf:
            self._timer = self._loop.call_at(send_at, self._run_due, context=self._context)

    def _next_send_at(self) -> float:
        """Return when to send the next request; inf if none is due or no slot is free."""
        opens_at = self.throttle.next_slot_at()
        if opens_at == inf or self.queue.has_waiters():
            return opens_at
        return max(opens_at, self._scheduler.next_due())

    def _send_next(self, now: float) -> None:
        """Send one request; direct calls and polls take turns."""
        if self.queue.has_waiters() and not (
            self._poll_first and self._scheduler.next_due() <= now
        ):
            self._poll_first = True
            self.queue.admit(now)
            return
        self._poll_first = False
        batch = self._scheduler.take_batch(now)
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
        batch.use_batch_endpoint |= batch.try_batch_endpoint and self.batch_size > 1
        ask = self._relay.get_many(ids) if batch.use_batch_endpoint else self._relay.get(ids[0])
        task = asyncio.ensure_future(ask, loop=self._loop)
        task.add_done_callback(partial(self._on_done, batch), context=self._context)
        self._tasks[batch] = task

    def _on_done(self, batch: Batch[Watcher], task: "asyncio.Future[PollAnswer]") -> None:
        self.throttle.release()
        if self._tasks.pop(batch, None) is None:
            return
        try:
            self._process(batch, task)
        except Exception as error:
            self._fail_all(error)
        if not self._closed:
            self._run_due()

    def _process(self, batch: Batch[Watcher], task: "asyncio.Future[PollAnswer]") -> None:
        if task.cancelled():
            self._scheduler.back_off(batch, self._loop.time())
        elif error := task.exception():
            self._on_error(batch, error)
        else:
            self._on_answer(batch, task.result())

    def _fail_all(self, error: Exception) -> None:
        """Abort all waits after an unexpected error, and begin with an empty scheduler."""
        logger.exception("unexpected error in the poller; all waits are aborted")
        for watcher in self._watchers:
            watcher.abort(error)
        self._watchers.clear()
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        scheduler = self._scheduler
        scheduler.clear()
        self._scheduler = Scheduler(
            scheduler.schedule.pace,
            scheduler.batch_size.limit,
            scheduler.grace,
            phase=scheduler.phase,
            spacing=self.throttle.limits.spacing,
        )
        self._scheduler.batch_size = scheduler.batch_size

    def _on_answer(self, batch: Batch[Watcher], answer: PollAnswer) -> None:
        now = self._loop.time()
        self.health.record_response(now)
        self.throttle.record_response()
        self.throttle.honour_retry_after(answer.retry_after, now)
        self.record_batch_result(None, len(batch.items))
        self._apply(batch, answer)

    def _apply(self, batch: Batch[Watcher], answer: PollAnswer, *, doubt: float = 1.0) -> None:
        changes = self._scheduler.complete(batch, answer, self._loop.time(), doubt=doubt)
        if changes and self._changes.has_listener:
            self._loop.call_soon(self._changes.notify, changes, context=self._context)
        for change in changes:
            if change.ended:
                self.health.stats = self.health.stats.after_end(change.state, change.max_lag)
            for watcher in change.watchers:
                watcher.on_change(change)

    def _on_error(self, batch: Batch[Watcher], error: BaseException) -> None:
        if not isinstance(error, LumaError):
            logger.error("unexpected error in a poll; retrying", exc_info=error)
            error = unforeseen(error)
        now = self._loop.time()
        self.throttle.honour_retry_after(error.retry_after, now)
        action = decide(error, many=len(batch.items) > 1, tries=batch.attempt)
        in_json = isinstance(error, APIError) and error.in_json
        if action is Action.NOT_FOUND and in_json:
            self._on_answer(batch, Response())
            return
        self.health.record_error(error, action, now)
        self.record_batch_result(action, len(batch.items))
        if isinstance(error, NoSuchRouteError) and len(batch.items) == 1:
            self._no_route(batch)
        match action:
            case Action.ABORT:
                self._scheduler.back_off(batch, now)
                self.abort(error)
            case Action.NO_BATCH_ENDPOINT:
                self.throttle.back_off(error, batch.sent_at, now)
                self._scheduler.back_off(batch, now)
            case Action.NOT_FOUND:
                self.throttle.back_off(error, batch.sent_at, now)
                self._apply(batch, Response(), doubt=PROXY_GRACE_FACTOR)
            case Action.SHRINK_BATCH | Action.BISECT:
                refused = isinstance(error, APIError) and batch.attempt == 1
                if refused and in_json:
                    self.throttle.pause_briefly(now)
                else:
                    self.throttle.back_off(error, batch.sent_at, now)
                self._scheduler.bisect(batch, refused=refused)
            case _:
                self._retry_later(batch, error)

    def _no_route(self, batch: Batch[Watcher]) -> None:
        """Handle a missing single endpoint: a proxy answers, and the batch endpoint may exist."""
        now, batch_size = self._loop.time(), self._scheduler.batch_size
        self._scheduler.batch_size = (
            batch_size.without_batch(now)
            if batch.use_batch_endpoint
            else batch_size.batch_restored()
        )

    def _retry_later(self, batch: Batch[Watcher], error: LumaError) -> None:
        """Back off a failed batch: first retries come early, later ones no sooner than a poll."""
        now = self._loop.time()
        if batch.is_quarantined and self.health.answered_recently(now):
            self.throttle.pause_briefly(now)
        else:
            self.throttle.back_off(error, batch.sent_at, now)
        wait = self._retry.delay(batch.attempt, self._roll())
        if batch.attempt > FAST_RETRIES:
            wait = max(
                wait, self._scheduler.schedule.base_delay(batch.watched_since, batch.sent_at)
            )
        self._scheduler.back_off(batch, now + wait)
