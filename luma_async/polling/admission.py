"""Admission of requests: a queue in front of the throttle of a session.

Polls and direct calls share one Throttle. Direct calls wait in FIFO order; the poller admits the
first one when the throttle allows a request, and is called back (`on_ready`) when that may be.
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

RECENT = 30.0  # seconds
MAX_RETRY_AFTER = 86_400.0  # seconds


def session_closed() -> SessionClosed:
    """Return the error for calls after the session was closed."""
    return SessionClosed("the session was closed; open another one")


class AdmissionQueue:
    """Admit requests as the throttle of the session allows, and count them.

    `max_cooldown` is the longest cool-down in seconds that a direct call waits for before it tries
    again; `cooldown_cause` is the error behind the present one, `last_error` the last one met.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        max_cooldown: float,
        dice: Callable[[], float],
        on_ready: Callable[[], None],
    ) -> None:
        self.throttle: Throttle = Throttle(limits)
        self.stats: Stats = Stats()
        self.last_error: LumaError | None = None
        self._outage = Outage()
        self._key_outage = Outage()
        self.max_cooldown = max_cooldown
        self._dice = dice
        self._on_ready = on_ready
        self._loop = asyncio.get_running_loop()
        self._waiters: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self.cooldown_cause: LumaError | None = None
        self._in_flight: set[anyio.CancelScope] = set()
        self._closed = False
        self._answered_at = -inf

    @property
    def slots(self) -> int:
        """The maximum of requests in flight."""
        return self.throttle.limits.max_in_flight

    def has_waiters(self) -> bool:
        """Whether direct calls are waiting."""
        while self._waiters and (first := next(iter(self._waiters))).done():
            del self._waiters[first]
        return bool(self._waiters)

    def admit(self, now: float) -> None:
        """Admit the direct call that has waited longest."""
        self.throttle = self.throttle.acquire(now)
        ticket, _ = self._waiters.popitem(last=False)
        ticket.set_result(None)

    def acquire(self, now: float, ids: int) -> None:
        """Admit a poll with `ids` ids."""
        self.throttle = self.throttle.acquire(now)
        self.stats = self.stats.after_request(ids)

    def release(self) -> None:
        """Release the slot of a request."""
        self.throttle = self.throttle.release()

    def honour_retry_after(self, seconds: float | None) -> None:
        """Hold back all requests for a Retry-After in seconds, `MAX_RETRY_AFTER` at most."""
        if seconds:
            quiet_until = self._loop.time() + min(seconds, MAX_RETRY_AFTER)
            self.throttle = self.throttle.cool_down_until(quiet_until)

    def record_success(self) -> None:
        """Record a response: the outage ends."""
        self.throttle = self.throttle.after_success()
        self.last_error = None
        self._answered_at = now = self._loop.time()
        self._outage.record_response(now)
        self._key_outage.record_response(now)

    @property
    def recently_answered(self) -> bool:
        """Whether a response came within the last `RECENT` seconds."""
        return self._loop.time() < self._answered_at + RECENT

    def record_error(self, error: LumaError, action: Action) -> None:
        """Count a request without a response, and keep the error without its traceback.

        An outage is logged once. A missing batch endpoint is logged by the poller.
        """
        self.last_error = error.with_traceback(None)
        self.stats = self.stats.after_error(throttled=isinstance(error, RateLimitedError))
        if action is Action.NO_BATCH_ENDPOINT:
            return
        outage = self._key_outage if action is Action.ABORT else self._outage
        what = one_line(str(error)) or type(error).__name__
        outage.record_failure(self._loop.time(), f"{what}; {_remedy(error, action)}")

    def back_off(self, error: LumaError, departed: float) -> None:
        """Hold back all requests for a delay that grows with the failures in a row.

        `departed` is when the request was sent that failed.
        """
        self.cooldown_cause = error
        throttled = isinstance(error, RateLimitedError)
        self.throttle = self.throttle.after_failure(
            self._loop.time(), self._dice(), departed=departed, throttled=throttled
        )

    def pause_briefly(self) -> None:
        """Hold back all requests for a short delay after a rejected request."""
        self.throttle = self.throttle.after_refusal(self._loop.time(), self._dice())

    def close(self) -> None:
        """Reject waiting and later calls with SessionClosed, and cancel those in flight."""
        self._closed = True
        for ticket in self._waiters:
            if not ticket.done():
                ticket.set_exception(session_closed())
        self._waiters.clear()
        for scope in self._in_flight:
            scope.cancel()

    async def admission(self, *, again: bool, patient: bool) -> None:
        """Wait until the throttle allows a request, at the head of the queue if it is a retry.

        An impatient call waits for `max_cooldown` at most, and raises the cause then.
        """
        if patient:
            await self._wait_in_line(again=again)
            return
        with anyio.move_on_after(self.max_cooldown) as scope:
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
        """Send an admitted request with `ids` ids; `close` cancels it."""
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


def _remedy(error: LumaError, action: Action) -> str:
    """Return what the log says is done about an error."""
    if action is Action.ABORT:
        return "all waits end with WaitAborted; check the API key and the account"
    if action in (Action.BISECT, Action.SHRINK_BATCH):
        return "retrying with fewer ids per request"
    if error.retry_after:
        seconds = min(error.retry_after, MAX_RETRY_AFTER)
        return f"waiting for {format_duration(seconds)}, as the relay asks"
    return "retrying with increasing delay"
