"""Rate limit, concurrency limit and cool-down of a session. Pure: `now` is an argument.

A Throttle is an immutable value: each method returns the next one. It bounds the requests in flight
(`max_in_flight`), the time between two sends (`max_rate`), and holds back all requests until
`cooldown_until`, which only grows, after errors or a Retry-After.

Sends are spaced, not counted in windows: a counted window allows a burst at its edge, and the
relay's second does not begin when ours does. A second counts as `SPACING_SECOND`, so that network
jitter does not put one request too many into a second of the relay's. Of this slack a late timer
may take `TIMER_TOLERANCE` back. N + 1 sends then span at least `SPACING_SECOND - TIMER_TOLERANCE`
seconds, which is more than one.
"""

from math import inf

from msgspec import Struct
from msgspec.structs import replace

from luma_async.validation import positive, whole

SPACING_SECOND = 1.05  # seconds
TIMER_TOLERANCE = 0.02  # seconds


class Limits(Struct, frozen=True):
    """Limit what all calls of a session together may send to the relay.

    `max_batch` is ids a request (100), `max_in_flight` concurrent requests (4), `max_rate` requests
    in any second (10.0), `max_body` bytes of a response, before and after decompression (8 MiB).
    ValueError for numbers that are not positive.
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
        """The minimum of seconds between two sends."""
        return SPACING_SECOND / self.max_rate


class ExponentialBackoff(Struct, frozen=True):
    """Exponential backoff with full jitter: clients that failed together do not retry together.

    The delay is random, `base` seconds at most after the first failure, doubled by each further
    one, `cap` seconds at most.
    """

    base: float = 0.5
    cap: float = 20.0

    def delay(self, failures: int, dice: float) -> float:
        """Return the seconds to wait after `failures` in a row; `dice` is random in [0, 1)."""
        return dice * min(self.cap, self.base * 2.0 ** min(failures - 1, 32))


class Throttle(Struct, frozen=True):
    """The limits and what uses them up: requests in flight, the next send, the cool-down."""

    limits: Limits
    retry: ExponentialBackoff = ExponentialBackoff()
    throttled: ExponentialBackoff = ExponentialBackoff(base=1.0)
    in_flight: int = 0
    next_send_at: float = -inf
    cooldown_until: float = -inf
    failures: int = 0
    failed_at: float = -inf

    def next_slot_at(self) -> float:
        """Return when the next request may be sent; inf while `max_in_flight` are in flight."""
        if self.in_flight >= self.limits.max_in_flight:
            return inf
        return max(self.cooldown_until, self.next_send_at - TIMER_TOLERANCE)

    def acquire(self, now: float) -> "Throttle":
        """Return the throttle after a request was sent at `now`."""
        spaced = max(now, self.next_send_at) + self.limits.spacing
        return replace(self, in_flight=self.in_flight + 1, next_send_at=spaced)

    def release(self) -> "Throttle":
        """Return the throttle after a request ended, with or without a response."""
        return replace(self, in_flight=self.in_flight - 1)

    def after_success(self) -> "Throttle":
        """Return the throttle after a response: the next failure counts as the first."""
        return replace(self, failures=0) if self.failures else self

    def after_failure(
        self, now: float, dice: float, *, departed: float = inf, throttled: bool = False
    ) -> "Throttle":
        """Return the throttle after a failure: all requests wait for a growing delay.

        A request that was sent (`departed`) before the last failure was known counts as the same
        failure: an outage that fails all requests in flight counts once.
        """
        if departed < self.failed_at:
            return self
        failures = self.failures + 1
        policy = self.throttled if throttled else self.retry
        counted = replace(self, failures=failures, failed_at=now)
        return counted.cool_down_until(now + policy.delay(failures, dice))

    def after_refusal(self, now: float, dice: float) -> "Throttle":
        """Return the throttle after a rejected request: all requests wait for a short delay."""
        return self.cool_down_until(now + self.retry.delay(1, dice))

    def cool_down_until(self, when: float) -> "Throttle":
        """Return the throttle with a cool-down until `when` at least."""
        return replace(self, cooldown_until=max(self.cooldown_until, when))
