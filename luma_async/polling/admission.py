"""Admission of requests: a queue in front of the throttle of a session.

Polls and direct calls share one Throttle. Direct calls wait in FIFO order; the poller admits the
first one when the throttle allows a request, and is called back (`on_ready`) when that may be.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from copy import copy
from math import inf
from typing import Protocol, TypeVar

import anyio
from msgspec import Struct

from luma_async.errors import LumaError, RateLimitedError, RequestTimeout, SessionClosed
from luma_async.polling.health import RelayHealth
from luma_async.scheduling.throttle import Throttle


class Answer(Protocol):
    """What the throttle needs of a response."""

    @property
    def retry_after(self) -> float | None:
        """Retry-After in seconds, or None."""
        ...


A = TypeVar("A", bound=Answer)


def session_closed() -> SessionClosed:
    """Return the error for calls after the session was closed."""
    return SessionClosed("the session was closed; open another one")


class Patience(Struct, frozen=True):
    """For how long a direct call waits, in seconds: for a slot in all, and for a cool-down.

    `retry_after` is the longest Retry-After, `cooldown` the longest cool-down of any cause.
    """

    seconds: float | None = None
    retry_after: float = inf
    cooldown: float = inf

    def is_exceeded(self, throttle: Throttle, now: float) -> bool:
        """Return whether the cool-down of now is too long."""
        cooldown = throttle.cooldown_until - now
        return cooldown > self.cooldown or (
            min(cooldown, throttle.quiet_until - now) > self.retry_after
        )


def cooldown_error(throttle: Throttle, now: float) -> LumaError:
    """Return the error of a call that does not wait for a cool-down, as a new one for each call."""
    cause, seconds = throttle.cooldown_cause, throttle.cooldown_until - now
    is_retry_after = throttle.cooldown_until == throttle.quiet_until
    if cause is not None and (not is_retry_after or isinstance(cause, RateLimitedError)):
        return copy(cause)
    return RateLimitedError(429, message="the relay asks for a pause", retry_after=seconds)


class AdmissionQueue:
    """Admit direct calls in FIFO order as the throttle of the session allows.

    `max_cooldown` is the longest cool-down in seconds that a call waits for before it tries again.
    """

    def __init__(
        self,
        throttle: Throttle,
        health: RelayHealth,
        on_ready: Callable[[], None],
        *,
        max_cooldown: float,
    ) -> None:
        self.max_cooldown = max_cooldown
        self._throttle = throttle
        self._health = health
        self._on_ready = on_ready
        self._loop = asyncio.get_running_loop()
        self._waiters: OrderedDict[asyncio.Future[None], Patience] = OrderedDict()
        self._checked_until = -inf
        self._in_flight: set[anyio.CancelScope] = set()
        self._closed = False

    def has_waiters(self) -> bool:
        """Whether direct calls are waiting."""
        while self._waiters and (first := next(iter(self._waiters))).done():
            del self._waiters[first]
        return bool(self._waiters)

    def admit(self, now: float) -> None:
        """Admit the direct call that has waited longest."""
        self._throttle.acquire(now)
        ticket, _ = self._waiters.popitem(last=False)
        ticket.set_result(None)

    def close(self) -> None:
        """Reject waiting and later calls with SessionClosed, and cancel those in flight."""
        self._closed = True
        for ticket in self._waiters:
            if not ticket.done():
                ticket.set_exception(session_closed())
        for scope in self._in_flight:
            scope.cancel()

    async def admission(self, patience: Patience, *, again: bool) -> None:
        """Wait until the throttle allows a request, at the head of the queue if it is a retry.

        Raise the cause of a cool-down that begins meanwhile and is too long for the call.
        """
        with anyio.move_on_after(patience.seconds) as scope:
            await self._wait_in_line(patience, again=again)
        if scope.cancelled_caught:
            cause = self._throttle.cooldown_cause
            raise (
                copy(cause)
                if cause
                else RequestTimeout(
                    "the rate limit allowed no request in time; raise max_rate or max_in_flight"
                )
            )

    def reject_impatient(self, now: float) -> None:
        """Reject the calls for which a cool-down that has begun is too long."""
        if self._throttle.cooldown_until == self._checked_until:
            return
        self._checked_until = self._throttle.cooldown_until
        for ticket, patience in self._waiters.items():
            if not ticket.done() and patience.is_exceeded(self._throttle, now):
                ticket.set_exception(cooldown_error(self._throttle, now))

    async def _wait_in_line(self, patience: Patience, *, again: bool) -> None:
        if self._closed:
            raise session_closed()
        ticket: asyncio.Future[None] = self._loop.create_future()
        self._waiters[ticket] = patience
        if again:
            self._waiters.move_to_end(ticket, last=False)
        self._on_ready()
        try:
            await ticket
        except (asyncio.CancelledError, LumaError):
            self._waiters.pop(ticket, None)
            if ticket.done() and not ticket.cancelled() and not ticket.exception():
                self._throttle.release()
            self._on_ready()
            raise
        if self._closed:
            self._throttle.release()
            raise session_closed()

    async def send(self, ask: Callable[[], Awaitable[A]], ids: int) -> A:
        """Send an admitted request with `ids` ids; `close` cancels it."""
        self._health.record_request(ids)
        sent_at = self._loop.time()
        with anyio.CancelScope() as scope:
            self._in_flight.add(scope)
            try:
                answer = await ask()
            finally:
                self._in_flight.discard(scope)
                self._throttle.release()
                self._on_ready()
            now = self._loop.time()
            self._health.record_response(now)
            self._throttle.record_response(sent_at, now)
            self._throttle.honour_retry_after(answer.retry_after, now)
            return answer
        raise session_closed()
