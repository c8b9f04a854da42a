"""The one loop that waits: it asks the book and the gate what may be done, and does it.

No task sleeps between polls. `_pump` is a callback: it starts what may depart now and sets one
timer for the next departure. It runs when that timer fires, when a request returns and, once in a
loop turn, when somebody begins to wait. So nothing is started, stopped or restarted, and a poller
that nobody waits for has no task, no timer and no request.

Each request is a task of its own, in the context of whoever opened the session, and is cancelled
when the last one who wanted any of its ids has left. Direct calls (`get`, `get_many`) run in their
caller's task; they stand in line at the same gate and take turns with the polls.
"""

import asyncio
import logging
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import copy_context
from functools import partial
from math import inf
from types import MappingProxyType

from msgspec.structs import replace

from luma_async.errors import APIError, LumaError, NoSuchRouteError, unforeseen
from luma_async.polling.admission import Turnstile, closed
from luma_async.polling.chunks import SLICE, slices
from luma_async.polling.hooks import ChangeEvent, Changes, Hook
from luma_async.polling.interfaces import Relay, Watcher
from luma_async.polling.stats import Stats
from luma_async.scheduling.changes import Grace, Told
from luma_async.scheduling.error_policy import Verdict, judge
from luma_async.scheduling.hazard import Seen
from luma_async.scheduling.items import Call
from luma_async.scheduling.pace import Learned, Pace
from luma_async.scheduling.scheduler import Book
from luma_async.scheduling.throttle import Limits, Retry
from luma_async.structs import Generation, State

logger: logging.Logger = logging.getLogger("luma_async")

PATIENT_TRIES = 4
DOUBT = 10.0


class _Nothing:
    """The answer of a relay that does not know the id."""

    states: Mapping[str, State] = MappingProxyType({})
    retry_after: float | None = None

    def age(self, task_id: str) -> float:
        raise KeyError(task_id)

    def generation(self, task_id: str) -> Generation:
        raise KeyError(task_id)

    kept = generation


class Poller:
    """Polls one relay for all waits of a session, and lets direct calls through the same gate."""

    def __init__(
        self,
        relay: Relay,
        pace: Pace,
        limits: Limits,
        grace: Grace,
        *,
        patience: float,
        dice: Callable[[], float] = random.random,
        on_change: Hook[ChangeEvent] | None = None,
    ) -> None:
        self.turnstile: Turnstile = Turnstile(
            limits, patience=patience, dice=dice, wake=self._pump_soon
        )
        self._relay = relay
        self._dice = dice
        self._loop = asyncio.get_running_loop()
        self._home = os.getpid(), threading.get_ident()
        self._context = copy_context()
        self._book: Book[Watcher] = Book(
            pace, limits.max_batch, grace, phase=0.5 + dice() / 2, spacing=limits.spacing
        )
        self._changes = Changes(on_change)
        self._retry = Retry()
        self._watchers: dict[Watcher, None] = {}
        self._tasks: dict[Call[Watcher], asyncio.Task[Told]] = {}
        self._polls_turn = False
        self._told_singles = False
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Poller: {self._book!r}, {self.turnstile.gate.in_flight} requests in flight>"

    def check_home(self) -> None:
        """Raise a RuntimeError where this is not the process, thread and loop it was opened in."""
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
        """Raise a SessionClosed after the end."""
        if self._closed:
            raise closed()

    @property
    def seats(self) -> int:
        """How many ids a request may ask about now, as the relay has taught."""
        return self._book.seats.at(self._loop.time())

    def snapshot(self) -> Stats:
        """Return the stats, with what is open as of now."""
        now = self._loop.time()
        oldest = self._book.oldest()
        pace = self._book.timetable.pace
        return replace(
            self.turnstile.stats,
            open=len(self._book),
            oldest=0.0 if oldest is None else now - oldest,
            in_flight=self.turnstile.gate.in_flight,
            quiet_for=max(0.0, self.turnstile.gate.not_before - now),
            learned=pace if isinstance(pace, Learned) and pace.seen != Seen() else None,
        )

    def watch(
        self, watcher: Watcher, ids: Iterable[str], until: float = inf
    ) -> dict[str, Generation | bytes]:
        """Poll for these ids until each has ended, or `unwatch` is called, at `until` perhaps.

        Returns what was told already of those that somebody else waits for.
        """
        self.check_open()
        self._watchers[watcher] = None
        known = self._book.watch(watcher, ids, self._loop.time(), until=until)
        self._pump_soon()
        return known

    def unwatch(self, watcher: Watcher, ids: Iterable[str]) -> Iterator[None]:
        """Poll for these ids no more on behalf of the watcher.

        Many are let go slice by slice, in their order, so that a wait which begins again is never
        behind the letting go. The iterator returned takes the next step at once.
        """
        self._watchers.pop(watcher, None)
        return self.drop(watcher, ids)

    def drop(self, watcher: Watcher, ids: Iterable[str]) -> Iterator[None]:
        """Poll for these ids no more, as `unwatch` does, for a watcher that stays for others."""
        steps = self._let_go(watcher, ids)
        self._step(steps)
        return steps

    def _let_go(self, watcher: Watcher, ids: Iterable[str]) -> Iterator[None]:
        for part in slices(ids):
            for call in self._book.unwatch(watcher, part):
                self._tasks[call].cancel()
            if len(part) == SLICE:
                yield
        if not self._book and not self.turnstile.has_line():
            self._rest()

    def _step(self, steps: Iterator[None]) -> None:
        for _ in steps:
            self._loop.call_soon(self._step, steps)
            return

    def abort(self, cause: Exception) -> None:
        """Tell every watcher that its wait cannot go on, and forget them all."""
        for watcher in list(self._watchers):
            watcher.abort(cause)
            self.unwatch(watcher, watcher.asked)

    def learn(self, verdict: Verdict | None, ids: int) -> None:
        """Remember what became of a batch of `ids` ids; None means that it was answered."""
        if verdict is Verdict.SINGLES and not self._told_singles:
            logger.warning("the relay has no batch call; asking for one id at a time for now")
            self._told_singles = True
        elif verdict is None and ids > 1:
            self._told_singles = False
        self._book.seats = self._book.seats.learned(verdict, ids, self._loop.time())

    async def close(self) -> None:
        """End every wait and every request."""
        self._closed = True
        watchers = list(self._watchers)
        for watcher in watchers:
            watcher.abort(closed())
        self.turnstile.close()
        for watcher in watchers:
            for _ in self.unwatch(watcher, watcher.asked):
                await asyncio.sleep(0)
        self._rest()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        self._book.clear()

    def _pump_soon(self) -> None:
        if self._soon is None and not self._closed:
            self._soon = self._loop.call_soon(self._pump, context=self._context)

    def _rest(self) -> None:
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        self._timer = self._soon = None

    def _pump(self) -> None:
        try:
            self._depart()
        except Exception as error:
            self._crash(error)
            self._pump_soon()

    def _depart(self) -> None:
        self._rest()
        now = self._loop.time()
        while (departs := self._departs_at()) <= now:
            self._admit(now)
        if departs < inf:
            self._timer = self._loop.call_at(departs, self._pump, context=self._context)

    def _departs_at(self) -> float:
        """Return when the next request departs; inf where none wants to, or all slots are taken."""
        opens_at = self.turnstile.gate.opens_at()
        if opens_at == inf or self.turnstile.has_line():
            return opens_at
        return max(opens_at, self._book.next_at())

    def _admit(self, now: float) -> None:
        """Let one request depart; direct calls and polls take turns."""
        if self.turnstile.has_line() and not (self._polls_turn and self._book.next_at() <= now):
            self._polls_turn = True
            self.turnstile.admit(now)
            return
        self._polls_turn = False
        call = self._book.take(now)
        if call is not None:
            self.turnstile.enter(now, len(call.entries))
            try:
                self._poll(call)
            except BaseException:
                self.turnstile.leave()
                raise

    def _poll(self, call: Call[Watcher]) -> None:
        ids = call.ids
        call.by_batch |= call.in_vain and self.seats > 1
        ask = self._relay.get_many(ids) if call.by_batch else self._relay.get(ids[0])
        task = asyncio.ensure_future(ask, loop=self._loop)
        task.add_done_callback(partial(self._returned, call), context=self._context)
        self._tasks[call] = task

    def _returned(self, call: Call[Watcher], task: "asyncio.Future[Told]") -> None:
        self.turnstile.leave()
        if self._tasks.pop(call, None) is None:
            return
        try:
            self._take_in(call, task)
        except Exception as error:
            self._crash(error)
        if not self._closed:
            self._pump()

    def _take_in(self, call: Call[Watcher], task: "asyncio.Future[Told]") -> None:
        if task.cancelled():
            self._book.spoil(call, self._loop.time())
        elif error := task.exception():
            self._failed(call, error)
        else:
            self._answered(call, task.result())

    def _crash(self, error: Exception) -> None:
        """Tell everybody of a fault in this library or in a pace, and begin with an empty book."""
        logger.exception("the poller met a fault that nobody foresaw; all waits end")
        for watcher in self._watchers:
            watcher.abort(error)
        self._watchers.clear()
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        book = self._book
        book.clear()
        self._book = Book(
            book.timetable.pace,
            book.seats.limit,
            book.grace,
            phase=book.phase,
            spacing=self.turnstile.gate.limits.spacing,
        )
        self._book.seats = book.seats

    def _answered(self, call: Call[Watcher], told: Told) -> None:
        self.turnstile.succeeded()
        self.turnstile.obey(told.retry_after)
        self.learn(None, len(call.entries))
        self._settle(call, told)

    def _settle(self, call: Call[Watcher], told: Told, *, doubt: float = 1.0) -> None:
        changes = self._book.settle(call, told, self._loop.time(), doubt=doubt)
        if changes and self._changes.are_heard:
            self._loop.call_soon(self._changes.tell, changes, context=self._context)
        for change in changes:
            if change.ended:
                self.turnstile.stats = self.turnstile.stats.ended(change.state, change.unseen)
            for watcher in change.watchers:
                watcher.tell(change)

    def _failed(self, call: Call[Watcher], error: BaseException) -> None:
        if not isinstance(error, LumaError):
            logger.error("a poll failed in a way that nobody foresaw", exc_info=error)
            error = unforeseen(error)
        self.turnstile.obey(error.retry_after)
        verdict = judge(error, many=len(call.entries) > 1, tries=call.tries)
        in_json = isinstance(error, APIError) and error.in_json
        if verdict is Verdict.ABSENT and in_json:
            self._answered(call, _Nothing())
            return
        self.turnstile.note(error, verdict)
        self.learn(verdict, len(call.entries))
        if isinstance(error, NoSuchRouteError) and len(call.entries) == 1:
            self._no_route(call)
        match verdict:
            case Verdict.ABORT:
                self._book.spoil(call, self._loop.time())
                self.abort(error)
            case Verdict.SINGLES:
                self.turnstile.keep_away(error, call.departed)
                self._book.spoil(call, self._loop.time())
            case Verdict.ABSENT:
                self.turnstile.keep_away(error, call.departed)
                self._settle(call, _Nothing(), doubt=DOUBT)
            case Verdict.SHRINK | Verdict.SPLIT:
                refused = isinstance(error, APIError) and call.tries == 1
                if refused and in_json:
                    self.turnstile.refused()
                else:
                    self.turnstile.keep_away(error, call.departed)
                self._book.split(call, refused=refused)
            case _:
                self._again(call, error)

    def _no_route(self, call: Call[Watcher]) -> None:
        """Learn from a single id: where its own call is not there either, a proxy stands in."""
        now, seats = self._loop.time(), self._book.seats
        self._book.seats = seats.singly(now) if call.by_batch else seats.doubted()

    def _again(self, call: Call[Watcher], error: LumaError) -> None:
        """Hold a spoiled call: a few tries come early, further ones no sooner than a poll would."""
        if call.exiled and self.turnstile.is_well:
            self.turnstile.refused()
        else:
            self.turnstile.keep_away(error, call.departed)
        wait = self._retry.delay(call.tries, self._dice())
        if call.tries > PATIENT_TRIES:
            wait = max(wait, self._book.timetable.alone(call.since, call.departed))
        self._book.spoil(call, self._loop.time() + wait)
