"""The clock of the NATS server, by the time in its answers: that of this machine may be wrong."""

import asyncio
import time
from collections import deque
from datetime import datetime

from msgspec import Struct

MAX_SAMPLES = 8
STEP_TOLERANCE = 0.02  # seconds


class _Sample(Struct, frozen=True):
    """One answer: the offset is Unix time minus the event loop's time."""

    offset: float
    round_trip: float

    def contradicts(self, other: "_Sample") -> bool:
        """Return whether the server's clock was set between two answers."""
        error = (self.round_trip + other.round_trip) / 2 + STEP_TOLERANCE
        return abs(self.offset - other.offset) > error


class ServerClock:
    """Estimates the server's time. The answer with the shortest round trip counts."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=MAX_SAMPLES)

    @property
    def is_known(self) -> bool:
        """Whether the server has reported its time."""
        return bool(self._samples)

    def add(self, moment: datetime | None, sent_at: float) -> bool:
        """Add the time of an answer that has just arrived; None if it had none.

        `sent_at` is when the request was sent, by the loop's clock. Returns whether the server's
        clock was set since the last answer.
        """
        if moment is None:
            return False
        now = asyncio.get_running_loop().time()
        sample = _Sample(moment.timestamp() - (sent_at + now) / 2, now - sent_at)
        was_set = self.is_known and sample.contradicts(self._best)
        if was_set:
            self._samples.clear()
        self._samples.append(sample)
        return was_set

    def now(self) -> float:
        """Return the present Unix time of the server; that of this machine if it is not known."""
        if not self.is_known:
            return time.time()
        return self._best.offset + asyncio.get_running_loop().time()

    def to_loop_time(self, moment: float) -> float:
        """Return a Unix time of the server as a time of the event loop's clock."""
        return asyncio.get_running_loop().time() + (moment - self.now())

    def to_unix_time(self, moment: float) -> float:
        """Return a time of the event loop's clock as a Unix time of the server."""
        return self.now() + (moment - asyncio.get_running_loop().time())

    @property
    def _best(self) -> _Sample:
        return min(self._samples, key=lambda sample: sample.round_trip)
