"""May we? The budget that all calls of a session share.

A Gate is a value; entering, leaving and being told off each return the next one. It bounds three
things at once: requests under way (`max_in_flight`), departures (`max_rate`), and the whole session
after a relay asked for quiet (`not_before`, a deadline that only grows).

Departures are spaced, not counted: a window that is counted lets a burst leave at its edge, and the
relay's second is never ours. A second is taken as `SECOND` long, so that what a network does to the
spacing does not put one request too many into the relay's second; of that slack a late timer may
take `SLIP` back, so that a rate above what timers resolve is reached all the same. N + 1 departures
then span at least `SECOND - SLIP` seconds, which is more than one.
"""

from math import inf

from msgspec import Struct
from msgspec.structs import replace

from luma_async.validation import positive, whole

SPACING_SECOND = 1.05
TIMER_TOLERANCE = 0.02


class Limits(Struct, frozen=True):
    """What a session may ask of its relay, all calls together.

    `max_batch` is ids in a request, `max_in_flight` requests under way, `max_rate` requests in any
    second, `max_body` bytes in an answer, counted before and after decompression.
    """

    max_batch: int = 100
    max_in_flight: int = 4
    max_rate: float = 10.0
    max_body: int = 8 * 2**20

    def __post_init__(self) -> None:
        whole("max_batch", self.max_batch)
        whole("max_in_flight", self.max_in_flight)
        positive("max_rate", self.max_rate)
        whole("max_body", self.max_body)

    @property
    def spacing(self) -> float:
        """The seconds from one departure to the next, at least."""
        return SPACING_SECOND / self.max_rate


class ExponentialBackoff(Struct, frozen=True):
    """How long to keep away after failures in a row: growing, with full jitter.

    `base` seconds at most after the first, doubled by each further one, never above `cap`. Full
    jitter, because callers that failed together must not come back together.
    """

    base: float = 0.5
    cap: float = 20.0

    def delay(self, failures: int, dice: float) -> float:
        """Return the seconds to wait after `failures` in a row; `dice` is in [0, 1)."""
        return dice * min(self.cap, self.base * 2.0 ** min(failures - 1, 32))


class Throttle(Struct, frozen=True):
    """Who may depart now, and when the next one may."""

    limits: Limits
    retry: ExponentialBackoff = ExponentialBackoff()
    throttled: ExponentialBackoff = ExponentialBackoff(base=1.0)
    in_flight: int = 0
    next_send_at: float = -inf
    cooldown_until: float = -inf
    failures: int = 0
    failed_at: float = -inf

    def next_slot_at(self) -> float:
        """Return the time from which one request may depart; inf while all slots are taken."""
        if self.in_flight >= self.limits.max_in_flight:
            return inf
        return max(self.cooldown_until, self.next_send_at - TIMER_TOLERANCE)

    def acquire(self, now: float) -> "Throttle":
        """Return the gate after one request departed at `now`."""
        spaced = max(now, self.next_send_at) + self.limits.spacing
        return replace(self, in_flight=self.in_flight + 1, next_send_at=spaced)

    def release(self) -> "Throttle":
        """Return the gate after one request ended, however it ended."""
        return replace(self, in_flight=self.in_flight - 1)

    def after_success(self) -> "Throttle":
        """Return the gate after an answer: the next failure counts as the first."""
        return replace(self, failures=0) if self.failures else self

    def after_failure(
        self, now: float, dice: float, *, departed: float = inf, throttled: bool = False
    ) -> "Throttle":
        """Return the gate after a failure: the whole session keeps away for a growing while.

        A request that had `departed` before the last failure was known tells nothing new: one bad
        moment counts once, however many requests were under way.
        """
        if departed < self.failed_at:
            return self
        failures = self.failures + 1
        policy = self.throttled if throttled else self.retry
        counted = replace(self, failures=failures, failed_at=now)
        return counted.cool_down_until(now + policy.delay(failures, dice))

    def after_refusal(self, now: float, dice: float) -> "Throttle":
        """Return the gate after a refusal: the relay is well, and is not asked again at once."""
        return self.cool_down_until(now + self.retry.delay(1, dice))

    def cool_down_until(self, when: float) -> "Throttle":
        """Return the gate that opens no earlier than `when`, nor than it would have before."""
        return replace(self, cooldown_until=max(self.cooldown_until, when))
