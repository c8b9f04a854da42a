"""What would Every have spent? The budget of a pace that places its requests elsewhere.

`Learned(5.0)` promises to spend what `Every(5.0)` would. What that is follows from when ids come
and go, from the seats, from how long answers take and from max_rate; so it is played, beside the
real thing: only counts, no ids. Batches of ids stand in line, each with the time at which it was
last asked about; a departure takes the oldest, as many as it has seats for, and puts them at the
end. An id that has ended stays aboard until the shadow would have found that out.
"""

from collections import deque
from math import inf

from luma_async.scheduling.pace import PATIENCE
from luma_async.scheduling.throttle import SLIP

STEADY = 0.05
ROUND_TRIP = 0.1
LATE = 4.0


class Shadow:
    """A book that only counts, asked by `Every(interval)`.

    `requests` is how many would have departed so far. `gap`, in seconds, is how far apart two looks
    at an id are, `between` how far apart two requests, each averaged over the last ones.
    """

    __slots__ = (
        "_ended", "_fresh", "_fresh_at", "_last", "_open", "_returns", "_round_trip", "_spaced",
        "_spacing", "_waiting", "between", "gap", "interval", "requests", "seats",
    )  # fmt: skip

    def __init__(self, interval: float, seats: int, spacing: float) -> None:
        self.interval: float = interval
        self.seats: int = seats
        self.requests: int = 0
        self.gap: float = interval
        self.between: float = interval
        self._spacing = spacing
        self._round_trip = ROUND_TRIP
        self._waiting: deque[tuple[float, int]] = deque()
        self._returns: deque[float] = deque()
        self._open = 0
        self._ended = 0
        self._fresh = 0
        self._fresh_at = inf
        self._last = self._spaced = -inf

    def watch(self, fresh: int, now: float) -> None:
        """Note ids that somebody wants for the first time."""
        if fresh:
            self.run(now)
            self._open += fresh
            self._fresh += fresh
            self._fresh_at = min(self._fresh_at, self._departs_fresh(now))
            self.run(now)

    def forget(self, ended_at: float | None = None) -> None:
        """Note that an id has ended at about that time, or that nobody wants it any more."""
        self._remove()
        self._ended += ended_at is not None and self._last < ended_at

    def answered(self, round_trip: float) -> None:
        """Note how long an answer took."""
        self._round_trip += STEADY * (round_trip - self._round_trip)

    def run(self, now: float) -> None:
        """Let everything depart that would have by now."""
        while (at := self._next_at()) <= now:
            self._depart(max(at, now - LATE * self.interval))

    def _departs_fresh(self, now: float) -> float:
        """Return when an id leaves that comes now: at once, or with the next that returns."""
        while self._returns and self._returns[0] <= now:
            self._returns.popleft()
        return min(self._returns[0], now + PATIENCE) if self._returns else now

    def _remove(self) -> None:
        self._open = max(0, self._open - 1)
        if self._waiting:
            asked, ids = self._waiting.popleft()
            if ids > 1:
                self._waiting.appendleft((asked, ids - 1))
        elif self._fresh:
            self._fresh -= 1
            self._fresh_at = self._fresh_at if self._fresh else inf

    def _next_at(self) -> float:
        due = inf
        if self._waiting:
            due = self._waiting[0][0] + self.interval
        elif self._ended:
            due = self._last + self.interval
        return max(min(due, self._fresh_at), self._spaced - SLIP)

    def _depart(self, now: float) -> None:
        gone = min(self._ended, self.seats)
        self._ended -= gone
        aboard = min(self._fresh, self.seats - gone)
        self._fresh -= aboard
        self._fresh_at = now if self._fresh else inf
        aboard += self._board(self.seats - gone - aboard, now)
        if aboard:
            self._waiting.append((now, aboard))
        self.between += STEADY * (min(now - self._last, self.interval) - self.between)
        self._last = now
        self._spaced = max(now, self._spaced) + self._spacing
        self._returns.append(now + self._round_trip)
        self.requests += 1

    def _board(self, room: int, now: float) -> int:
        """Take those who were asked about longest ago; return how many."""
        left = room
        while left and self._waiting:
            asked, ids = self._waiting.popleft()
            if ids > left:
                self._waiting.appendleft((asked, ids - left))
                ids = left
            left -= ids
            gap = min(now - asked, 2.0 * max(self.gap, self.interval))
            self.gap += STEADY * ids / max(ids, self._open) * (gap - self.gap)
        return room - left
