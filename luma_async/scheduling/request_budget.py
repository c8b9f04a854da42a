"""What would Every have spent? The budget of a pace that places its requests elsewhere.

`Learned(5.0)` promises to spend what `Every(5.0)` would. What that is follows from when ids come
and go, from the seats, from how long answers take and from max_rate; so it is played, beside the
real thing: only counts, no ids. Batches of ids stand in line, each with the time at which it was
last asked about; a departure takes the oldest, as many as it has seats for, and puts them at the
end. An id that has ended stays aboard until the shadow would have found that out.
"""

from collections import deque
from math import inf

from luma_async.scheduling.pace import MAX_LINGER
from luma_async.scheduling.throttle import TIMER_TOLERANCE

EWMA_WEIGHT = 0.05
FIRST_ROUND_TRIP = 0.1
MAX_CATCH_UP = 4.0


class FixedIntervalBudget:
    """A book that only counts, asked by `Every(interval)`.

    `requests` is how many would have departed so far. `gap`, in seconds, is how far apart two looks
    at an id are, `between` how far apart two requests, each averaged over the last ones.
    """

    __slots__ = (
        "_ended",
        "_last",
        "_new",
        "_new_since",
        "_open",
        "_returns",
        "_round_trip",
        "_spaced",
        "_spacing",
        "_waiting",
        "between",
        "gap",
        "interval",
        "requests",
        "seats",
    )  # fmt: skip

    def __init__(self, interval: float, max_batch: int, spacing: float) -> None:
        self.interval: float = interval
        self.seats: int = max_batch
        self.requests: int = 0
        self.gap: float = interval
        self.between: float = interval
        self._spacing = spacing
        self._round_trip = FIRST_ROUND_TRIP
        self._waiting: deque[tuple[float, int]] = deque()
        self._returns: deque[float] = deque()
        self._open = 0
        self._ended = 0
        self._new = 0
        self._new_since = inf
        self._last = self._spaced = -inf

    def add(self, fresh: int, now: float) -> None:
        """Note ids that somebody wants for the first time."""
        if fresh:
            self.advance(now)
            self._open += fresh
            self._new += fresh
            self._new_since = min(self._new_since, self._new_due(now))
            self.advance(now)

    def remove(self, ended_at: float | None = None) -> None:
        """Note that an id has ended at about that time, or that nobody wants it any more."""
        self._remove()
        self._ended += ended_at is not None and self._last < ended_at

    def observe_round_trip(self, round_trip: float) -> None:
        """Note how long an answer took."""
        self._round_trip += EWMA_WEIGHT * (round_trip - self._round_trip)

    def advance(self, now: float) -> None:
        """Let everything depart that would have by now."""
        while (at := self._next_at()) <= now:
            self._send(max(at, now - MAX_CATCH_UP * self.interval))

    def _new_due(self, now: float) -> float:
        """Return when an id leaves that comes now: at once, or with the next that returns."""
        while self._returns and self._returns[0] <= now:
            self._returns.popleft()
        return min(self._returns[0], now + MAX_LINGER) if self._returns else now

    def _remove(self) -> None:
        self._open = max(0, self._open - 1)
        if self._waiting:
            asked, ids = self._waiting.popleft()
            if ids > 1:
                self._waiting.appendleft((asked, ids - 1))
        elif self._new:
            self._new -= 1
            self._new_since = self._new_since if self._new else inf

    def _next_at(self) -> float:
        due = inf
        if self._waiting:
            due = self._waiting[0][0] + self.interval
        elif self._ended:
            due = self._last + self.interval
        return max(min(due, self._new_since), self._spaced - TIMER_TOLERANCE)

    def _send(self, now: float) -> None:
        gone = min(self._ended, self.seats)
        self._ended -= gone
        aboard = min(self._new, self.seats - gone)
        self._new -= aboard
        self._new_since = now if self._new else inf
        aboard += self._fill(self.seats - gone - aboard, now)
        if aboard:
            self._waiting.append((now, aboard))
        self.between += EWMA_WEIGHT * (min(now - self._last, self.interval) - self.between)
        self._last = now
        self._spaced = max(now, self._spaced) + self._spacing
        self._returns.append(now + self._round_trip)
        self.requests += 1

    def _fill(self, room: int, now: float) -> int:
        """Take those who were asked about longest ago; return how many."""
        left = room
        while left and self._waiting:
            asked, ids = self._waiting.popleft()
            if ids > left:
                self._waiting.appendleft((asked, ids - left))
                ids = left
            left -= ids
            gap = min(now - asked, 2.0 * max(self.gap, self.interval))
            self.gap += EWMA_WEIGHT * ids / max(ids, self._open) * (gap - self.gap)
        return room - left
