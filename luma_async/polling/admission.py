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
from luma_async.polling.outages import Episode
from luma_async.polling.stats import Stats
from luma_async.scheduling.changes import Told
from luma_async.scheduling.error_policy import Verdict
from luma_async.scheduling.throttle import Gate, Limits
from luma_async.text import format_duration, one_line

logger: logging.Logger = logging.getLogger("luma_async")

WELL_FOR = 30.0
LONGEST_QUIET = 86_400.0


def closed() -> SessionClosed:
    """Make the error of whoever uses a session after its end."""
    return SessionClosed("the session was closed; open another one")


class Turnstile:
    """Lets requests depart as the budget allows; all calls of a session share one.

    `patience` is the most seconds that a direct call keeps away before it tries again.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        patience: float,
        dice: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self.gate: Gate = Gate(limits)
        self.stats: Stats = Stats()
        self.trouble: LumaError | None = None
        self._failing = Episode()
        self._refused = Episode()
        self.patience = patience
        self._dice = dice
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._line: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self.quiet_because: LumaError | None = None
        self._under_way: set[anyio.CancelScope] = set()
        self._closed = False
        self._answered_at = -inf

    @property
    def slots(self) -> int:
        """How many requests may be under way at once."""
        return self.gate.limits.max_in_flight

    def has_line(self) -> bool:
        """Whether direct calls stand in line."""
        while self._line and (first := next(iter(self._line))).done():
            del self._line[first]
        return bool(self._line)

    def admit(self, now: float) -> None:
        """Let the head of the line depart."""
        self.gate = self.gate.enter(now)
        ticket, _ = self._line.popitem(last=False)
        ticket.set_result(None)

    def enter(self, now: float, ids: int) -> None:
        """Count a poll about `ids` ids that departs."""
        self.gate = self.gate.enter(now)
        self.stats = self.stats.asked(ids)

    def leave(self) -> None:
        """Give the slot of one request back."""
        self.gate = self.gate.leave()

    def obey(self, seconds: float | None) -> None:
        """Keep the whole session away for as long as the relay asks, a day at most."""
        if seconds:
            quiet_until = self._loop.time() + min(seconds, LONGEST_QUIET)
            self.gate = self.gate.rest_until(quiet_until)

    def succeeded(self) -> None:
        """Note that the relay answered."""
        self.gate = self.gate.succeeded()
        self.trouble = None
        self._answered_at = now = self._loop.time()
        if self._failing.is_on or self._refused.is_on:
            self._failing = _answered(self._failing, now)
            self._refused = _answered(self._refused, now)

    @property
    def is_well(self) -> bool:
        """Whether the relay has answered anything of late."""
        return self._loop.time() < self._answered_at + WELL_FOR

    def note(self, error: LumaError, verdict: Verdict) -> None:
        """Count a request that brought no answer, and remember why, without the answer's bytes.

        The log is told once in an episode; of a missing batch call by whoever does without.
        """
        self.trouble = error.with_traceback(None)
        self.stats = self.stats.erred(throttled=isinstance(error, RateLimitedError))
        if verdict is Verdict.ABORT:
            self._refused = self._struck(self._refused, error, verdict)
        elif verdict is not Verdict.SINGLES:
            self._failing = self._struck(self._failing, error, verdict)

    def _struck(self, episode: Episode, error: LumaError, verdict: Verdict) -> Episode:
        if not episode.is_on:
            what = one_line(str(error)) or type(error).__name__
            logger.warning("a request failed: %s; %s", what, _remedy(error, verdict))
        return episode.struck(self._loop.time())

    def keep_away(self, error: LumaError, departed: float) -> None:
        """Keep the whole session away for a while, the longer the more failures in a row.

        `departed` is when the request did that met the error.
        """
        self.quiet_because = error
        throttled = isinstance(error, RateLimitedError)
        self.gate = self.gate.failed(
            self._loop.time(), self._dice(), departed=departed, throttled=throttled
        )

    def refused(self) -> None:
        """Keep the whole session away for a moment after a request that the relay refuses."""
        self.gate = self.gate.refused(self._loop.time(), self._dice())

    def close(self) -> None:
        """Refuse whoever stands in line or comes later, and end the direct calls under way."""
        self._closed = True
        for ticket in self._line:
            if not ticket.done():
                ticket.set_exception(closed())
        self._line.clear()
        for scope in self._under_way:
            scope.cancel()

    async def admission(self, *, again: bool, patient: bool) -> None:
        """Stand in line, at its head if it is not the first time; the slot is ours on return.

        Who is not patient stands there for as long as one request may take, and hears why then.
        """
        if patient:
            await self._turn(again=again)
            return
        with anyio.move_on_after(self.patience) as scope:
            await self._turn(again=again)
        if scope.cancelled_caught:
            raise self.quiet_because or RequestTimeout("no request could depart in time")

    async def _turn(self, *, again: bool) -> None:
        if self._closed:
            raise closed()
        ticket: asyncio.Future[None] = self._loop.create_future()
        self._line[ticket] = None
        if again:
            self._line.move_to_end(ticket, last=False)
        self._wake()
        try:
            await ticket
        except asyncio.CancelledError:
            self._line.pop(ticket, None)
            if ticket.done() and not ticket.cancelled() and not ticket.exception():
                self.leave()
            self._wake()
            raise
        if self._closed:
            self.leave()
            raise closed()

    async def send(self, ask: Callable[[], Awaitable[Told]], ids: int) -> Told:
        """Make a request about `ids` ids that was admitted; `close` ends it."""
        self.stats = self.stats.asked(ids)
        with anyio.CancelScope() as scope:
            self._under_way.add(scope)
            try:
                answer = await ask()
            finally:
                self._under_way.discard(scope)
                self.leave()
                self._wake()
            self.succeeded()
            self.obey(answer.retry_after)
            return answer
        raise closed()


def _answered(episode: Episode, now: float) -> Episode:
    after = episode.answered(now)
    if episode.is_on and not after.is_on:
        counts = episode.failed, episode.requests
        logger.info(
            "all well for %s; %d of %d requests had failed", format_duration(episode.calm), *counts
        )
    return after


def _remedy(error: LumaError, verdict: Verdict) -> str:
    """Say what is done about an error."""
    if verdict is Verdict.ABORT:
        return "whoever waits is told; mend the key or the account"
    if verdict in (Verdict.SPLIT, Verdict.SHRINK):
        return "asking again, about fewer ids at a time"
    if error.retry_after:
        return (
            f"left alone for {format_duration(min(error.retry_after, LONGEST_QUIET))}, as it asks"
        )
    return "asking again, with growing distance"
