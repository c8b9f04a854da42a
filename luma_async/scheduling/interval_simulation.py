"""Simulate how many requests `Every(interval)` would have sent by now: the budget of `Learned`.

`Learned(5.0)` promises to send as many requests as `Every(5.0)`. How many that are depends on when
ids are added and removed, on the batch size, on response times and on max_rate, so it is simulated,
with counts only: a queue of groups, each with the time of its last poll. A request takes the ids
polled longest ago, as many as fit, and puts them at the end of the queue. An id that has ended is
counted until the simulated poller would have seen its end.
"""

from collections import deque
from math import inf

from luma_async.scheduling.pace import MAX_LINGER
from luma_async.scheduling.throttle import TIMER_TOLERANCE

EWMA_WEIGHT = 0.05  # of the newest value in a moving average
FIRST_ROUND_TRIP = 0.1  # seconds, until one was measured
MAX_CATCH_UP = 4.0  # intervals


class IntervalSimulation:
    """Simulate the requests of `Every(interval)`, as the budget for `Learned`.

    `requests` is how many would have been sent. `gap` is the seconds between two polls of an id,
    `between` the seconds between two requests, both as moving averages.
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
        "max_ids",
        "requests",
    )  # fmt: skip

    def __init__(self, interval: float, max_batch: int, spacing: float) -> None:
        self.interval: float = interval
        self.max_ids: int = max_batch
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

    def add(self, added: int, now: float) -> None:
        """Add ids that are watched for the first time."""
        if added:
            self.advance(now)
            self._open += added
            self._new += added
            self._new_since = min(self._new_since, self._new_due(now))
            self.advance(now)

    def remove(self, *ended_at: float | None) -> None:
        """Remove ids that have ended at about these times; None: it has no watcher any more."""
        self._remove(len(ended_at))
        self._ended += sum(at is not None and self._last < at for at in ended_at)

    def observe_round_trip(self, round_trip: float) -> None:
        """Take the seconds of one more round trip into the average."""
        self._round_trip += EWMA_WEIGHT * (round_trip - self._round_trip)

    def advance(self, now: float) -> None:
        """Send all requests that would have been sent by now."""
        while (at := self._next_at()) <= now:
            self._send(max(at, now - MAX_CATCH_UP * self.interval))

    def _new_due(self, now: float) -> float:
        """Return when an id added now is polled: at once, or when the next request returns."""
        while self._returns and self._returns[0] <= now:
            self._returns.popleft()
        return min(self._returns[0], now + MAX_LINGER) if self._returns else now

    def _remove(self, count: int) -> None:
        self._open = max(0, self._open - count)
        while count and self._waiting:
            asked, ids = self._waiting.popleft()
            if ids > count:
                self._waiting.appendleft((asked, ids - count))
            count -= min(ids, count)
        self._new = max(0, self._new - count)
        self._new_since = self._new_since if self._new else inf

    def _next_at(self) -> float:
        due = inf
        if self._waiting:
            due = self._waiting[0][0] + self.interval
        elif self._ended:
            due = self._last + self.interval
        return max(min(due, self._new_since), self._spaced - TIMER_TOLERANCE)

    def _send(self, now: float) -> None:
        ended = min(self._ended, self.max_ids)
        self._ended -= ended
        taken = min(self._new, self.max_ids - ended)
        self._new -= taken
        self._new_since = now if self._new else inf
        taken += self._fill(self.max_ids - ended - taken, now)
        if taken:
            self._waiting.append((now, taken))
        self.between += EWMA_WEIGHT * (min(now - self._last, self.interval) - self.between)
        self._last = now
        self._spaced = max(now, self._spaced) + self._spacing
        self._returns.append(now + self._round_trip)
        self.requests += 1

    def _fill(self, room: int, now: float) -> int:
        """Take the ids polled longest ago; return how many."""
        left = room
        while left and self._waiting:
            asked, ids = self._waiting.popleft()
            if ids > left:
                self._waiting.appendleft((asked, ids - left))
                ids = left
            left -= ids
            gap = min(now - asked, 2.0 * max(self.gap, self.interval))
            self.gap += EWMA_WEIGHT * ids / self._open * (gap - self.gap)
        return room - left
