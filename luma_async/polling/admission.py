"""The gate with its queue: every request of a session passes here, polls and direct calls alike.

`Gate` says when a request may depart; the turnstile keeps the gate that is true now, the line of
direct calls that stand before it, and the count of what passed. It starts nothing by itself: who
pumps (`waiting`) lets the head of the line in, and is woken by `wake` when something may depart.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from math import inf

import anyio

from luma_async.errors import (
    LumaError,
    RateLimitedError,
    RequestTimeout,
    SessionClosed,
)
from luma_async.polling.outages import Outage
from luma_async.polling.stats import Stats
from luma_async.scheduling.changes import PollAnswer
from luma_async.scheduling.error_policy import Action
from luma_async.scheduling.throttle import Limits, Throttle
from luma_async.text import format_duration, one_line

logger: logging.Logger = logging.getLogger("luma_async")

RECENT = 30.0
MAX_RETRY_AFTER = 86_400.0


def session_closed() -> SessionClosed:
    """Make the error of whoever uses a session after its end."""
    return SessionClosed("the session was closed; open another one")


class AdmissionQueue:
    """Lets requests depart as the budget allows; all calls of a session share one.

    `patience` is the most seconds that a direct call keeps away before it tries again.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        max_cooldown: float,
        dice: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self.throttle: Throttle = Throttle(limits)
        self.stats: Stats = Stats()
        self.last_error: LumaError | None = None
        self._outage = Outage()
        self._key_outage = Outage()
        self.patience = max_cooldown
        self._dice = dice
        self._on_ready = wake
        self._loop = asyncio.get_running_loop()
        self._waiters: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self.cooldown_cause: LumaError | None = None
        self._in_flight: set[anyio.CancelScope] = set()
        self._closed = False
        self._answered_at = -inf

    @property
    def slots(self) -> int:
        """How many requests may be under way at once."""
        return self.throttle.limits.max_in_flight

    def has_waiters(self) -> bool:
        """Whether direct calls stand in line."""
        while self._waiters and (first := next(iter(self._waiters))).done():
            del self._waiters[first]
        return bool(self._waiters)

    def admit(self, now: float) -> None:
        """Let the head of the line depart."""
        self.throttle = self.throttle.acquire(now)
        ticket, _ = self._waiters.popitem(last=False)
        ticket.set_result(None)

    def acquire(self, now: float, ids: int) -> None:
        """Count a poll about `ids` ids that departs."""
        self.throttle = self.throttle.acquire(now)
        self.stats = self.stats.after_request(ids)

    def release(self) -> None:
        """Give the slot of one request back."""
        self.throttle = self.throttle.release()

    def honour_retry_after(self, seconds: float | None) -> None:
        """Keep the whole session away for as long as the relay asks, a day at most."""
        if seconds:
            quiet_until = self._loop.time() + min(seconds, MAX_RETRY_AFTER)
            self.throttle = self.throttle.cool_down_until(quiet_until)

    def record_success(self) -> None:
        """Note that the relay answered."""
        self.throttle = self.throttle.after_success()
        self.last_error = None
        self._answered_at = now = self._loop.time()
        if self._outage.is_on or self._key_outage.is_on:
            self._outage = _answered(self._outage, now)
            self._key_outage = _answered(self._key_outage, now)

    @property
    def recently_answered(self) -> bool:
        """Whether the relay has answered anything of late."""
        return self._loop.time() < self._answered_at + RECENT

    def record_error(self, error: LumaError, action: Action) -> None:
        """Count a request that brought no answer, and remember why, without the answer's bytes.

        The log is told once in an episode; of a missing batch call by whoever does without.
        """
        self.last_error = error.with_traceback(None)
        self.stats = self.stats.after_error(throttled=isinstance(error, RateLimitedError))
        if action is Action.ABORT:
            self._key_outage = self._record_failure(self._key_outage, error, action)
        elif action is not Action.NO_BATCH_ENDPOINT:
            self._outage = self._record_failure(self._outage, error, action)

    def _record_failure(self, episode: Outage, error: LumaError, action: Action) -> Outage:
        if not episode.is_on:
            what = one_line(str(error)) or type(error).__name__
            logger.warning("a request failed: %s; %s", what, _remedy(error, action))
        return episode.after_failure(self._loop.time())

    def back_off(self, error: LumaError, departed: float) -> None:
        """Keep the whole session away for a while, the longer the more failures in a row.

        `departed` is when the request did that met the error.
        """
        self.cooldown_cause = error
        throttled = isinstance(error, RateLimitedError)
        self.throttle = self.throttle.after_failure(
            self._loop.time(), self._dice(), departed=departed, throttled=throttled
        )

    def pause_briefly(self) -> None:
        """Keep the whole session away for a moment after a request that the relay refuses."""
        self.throttle = self.throttle.after_refusal(self._loop.time(), self._dice())

    def close(self) -> None:
        """Refuse whoever stands in line or comes later, and end the direct calls under way."""
        self._closed = True
        for ticket in self._waiters:
            if not ticket.done():
                ticket.set_exception(session_closed())
        self._waiters.clear()
        for scope in self._in_flight:
            scope.cancel()

    async def admission(self, *, again: bool, patient: bool) -> None:
        """Stand in line, at its head if it is not the first time; the slot is ours on return.

        Who is not patient stands there for as long as one request may take, and hears why then.
        """
        if patient:
            await self._wait_in_line(again=again)
            return
        with anyio.move_on_after(self.patience) as scope:
            await self._wait_in_line(again=again)
        if scope.cancelled_caught:
            raise self.cooldown_cause or RequestTimeout("no request could depart in time")

    async def _wait_in_line(self, *, again: bool) -> None:
        if self._closed:
            raise session_closed()
        ticket: asyncio.Future[None] = self._loop.create_future()
        self._waiters[ticket] = None
        if again:
            self._waiters.move_to_end(ticket, last=False)
        self._on_ready()
        try:
            await ticket
        except asyncio.CancelledError:
            self._waiters.pop(ticket, None)
            if ticket.done() and not ticket.cancelled() and not ticket.exception():
                self.release()
            self._on_ready()
            raise
        if self._closed:
            self.release()
            raise session_closed()

    async def send(self, ask: Callable[[], Awaitable[PollAnswer]], ids: int) -> PollAnswer:
        """Make a request about `ids` ids that was admitted; `close` ends it."""
        self.stats = self.stats.after_request(ids)
        with anyio.CancelScope() as scope:
            self._in_flight.add(scope)
            try:
                answer = await ask()
            finally:
                self._in_flight.discard(scope)
                self.release()
                self._on_ready()
            self.record_success()
            self.honour_retry_after(answer.retry_after)
            return answer
        raise session_closed()


def _answered(episode: Outage, now: float) -> Outage:
    after = episode.after_answer(now)
    if episode.is_on and not after.is_on:
        counts = episode.failed, episode.requests
        logger.info(
            "all well for %s; %d of %d requests had failed",
            format_duration(episode.quiet_for),
            *counts,
        )
    return after


def _remedy(error: LumaError, action: Action) -> str:
    """Say what is done about an error."""
    if action is Action.ABORT:
        return "whoever waits is told; mend the key or the account"
    if action in (Action.BISECT, Action.SHRINK_BATCH):
        return "asking again, about fewer ids at a time"
    if error.retry_after:
        return (
            f"left alone for {format_duration(min(error.retry_after, MAX_RETRY_AFTER))}, as it asks"
        )
    return "asking again, with growing distance"
