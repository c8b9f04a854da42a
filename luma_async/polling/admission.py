"""Admission of requests: a queue in front of the throttle of a session.

Polls and direct calls share one Throttle. Direct calls wait in FIFO order; the poller admits the
first one when the throttle allows a request, and is called back (`on_ready`) when that may be.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from copy import copy
from typing import Protocol, TypeVar

import anyio

from luma_async.errors import LumaError, RequestTimeout, SessionClosed
from luma_async.polling.health import RelayHealth
from luma_async.scheduling.throttle import Throttle

MAX_LOOK_COOLDOWN = 1.0  # seconds, for which a request without retries waits


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
        self._waiters: OrderedDict[asyncio.Future[None], None] = OrderedDict()
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
        self._waiters.clear()
        for scope in self._in_flight:
            scope.cancel()

    async def admission(self, *, again: bool, patient: bool) -> None:
        """Wait until the throttle allows a request, at the head of the queue if it is a retry.

        An impatient call waits for `max_cooldown` at most, and not for a cool-down that is longer
        than MAX_LOOK_COOLDOWN; it raises the cause then.
        """
        if patient:
            await self._wait_in_line(again=again, patient=True)
            return
        with anyio.move_on_after(self.max_cooldown) as scope:
            await self._wait_in_line(again=again, patient=False)
        if scope.cancelled_caught:
            raise self._no_admission()

    def _no_admission(self) -> LumaError:
        """Return why a request was not admitted, as a new error: many calls may raise it."""
        cause = self._throttle.cooldown_cause
        return (
            copy(cause)
            if cause
            else RequestTimeout(
                "the rate limit allowed no request in time; raise max_rate or max_in_flight"
            )
        )

    async def _wait_in_line(self, *, again: bool, patient: bool) -> None:
        if self._closed:
            raise session_closed()
        ticket: asyncio.Future[None] = self._loop.create_future()
        self._waiters[ticket] = None
        if again:
            self._waiters.move_to_end(ticket, last=False)
        self._on_ready()
        try:
            await (ticket if patient else self._unless_cooldown(ticket))
        except (asyncio.CancelledError, LumaError):
            self._waiters.pop(ticket, None)
            if ticket.done() and not ticket.cancelled() and not ticket.exception():
                self._throttle.release()
            self._on_ready()
            raise
        if self._closed:
            self._throttle.release()
            raise session_closed()

    async def _unless_cooldown(self, ticket: asyncio.Future[None]) -> None:
        """Wait for the ticket; raise the cause of a long cool-down that begins meanwhile."""
        while not ticket.done():
            await asyncio.wait([ticket], timeout=MAX_LOOK_COOLDOWN)
            cooldown = self._throttle.cooldown_until - self._loop.time()
            if not ticket.done() and cooldown > MAX_LOOK_COOLDOWN:
                raise self._no_admission()
        ticket.result()

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
