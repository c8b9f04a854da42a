"""Rate limit, concurrency limit and cool-down of a session. Pure: `now` is an argument.

A Throttle bounds the requests in flight (`max_in_flight`) and the time between two sends
(`max_rate`), and holds back all requests until `cooldown_until`, which only grows, after errors or
a Retry-After.

Sends are spaced, not counted in windows: a counted window allows a burst at its edge, and the
relay's second does not begin when ours does. A second counts as `SPACING_SECOND`, so that network
jitter does not put one request too many into a second of the relay's. Of this slack a late timer
may take `TIMER_TOLERANCE` back. N + 1 sends then span at least `SPACING_SECOND - TIMER_TOLERANCE`
seconds, which is more than one.
"""

from collections.abc import Callable
from math import inf

from msgspec import Struct

from luma_async.errors import LumaError, RateLimitedError
from luma_async.scheduling.slots import Slots
from luma_async.validation import positive, whole

SPACING_SECOND = 1.05  # seconds
TIMER_TOLERANCE = 0.02  # seconds
MAX_RETRY_AFTER = 86_400.0  # seconds
PROBE_EVERY = 600.0  # seconds, in a longer Retry-After


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

    def delay(self, failures: int, roll: float) -> float:
        """Return the seconds to wait after `failures` in a row; `roll` is random in [0, 1)."""
        return roll * min(self.cap, self.base * 2.0 ** min(failures - 1, 32))


_TRANSIENT = ExponentialBackoff()
_THROTTLED = ExponentialBackoff(base=1.0)


class Throttle:
    """The limits and what uses them up: requests in flight, the next send, the cool-down.

    `slots` are those of a budget that other sessions share, if there is one.
    `roll` returns random numbers in [0, 1). `cooldown_cause` is the error behind the last cool-down
    that an error caused. `quiet_until` is when a Retry-After is over. In one that is longer than
    `PROBE_EVERY` seconds, one request is sent in each such time, because the relay may recover
    earlier. If it is answered, the Retry-After is over.
    """

    __slots__ = (
        "_failed_at", "_failures", "_next_send_at", "_quiet_since", "_roll", "_sent_at",
        "cooldown_cause", "cooldown_until", "in_flight", "limits", "quiet_until", "slots",
    )  # fmt: skip

    def __init__(
        self, limits: Limits, roll: Callable[[], float], slots: Slots | None = None
    ) -> None:
        self.limits: Limits = limits
        self.slots: Slots | None = slots
        self.in_flight: int = 0
        self.cooldown_until: float = -inf
        self.cooldown_cause: LumaError | None = None
        self.quiet_until: float = -inf
        self._quiet_since = -inf
        self._sent_at = -inf
        self._roll = roll
        self._next_send_at = -inf
        self._failures = 0
        self._failed_at = -inf
        if slots is not None:
            slots.on_shared_quiet = lambda until, now: self.honour_retry_after(until - now, now)

    def next_slot_at(self) -> float:
        """Return when the next request may be sent; inf while `max_in_flight` are in flight."""
        if self.in_flight >= self.limits.max_in_flight:
            return inf
        open_at = self.cooldown_until
        if not self.in_flight and open_at == self.quiet_until:
            open_at = min(open_at, max(self._sent_at, self._quiet_since) + PROBE_EVERY)
        return max(open_at, self._next_send_at - TIMER_TOLERANCE)

    def next_send_at(self, wanted_at: float, now: float, held: int) -> float:
        """Return when a request that is wanted at `wanted_at` may be sent by a shared budget.

        `held` is the number of open ids. Without a shared budget, that is at `wanted_at`.
        """
        return wanted_at if self.slots is None else self.slots.next_at(wanted_at, now, held)

    def acquire(self, now: float) -> None:
        """Take a slot for a request that is sent at `now`."""
        self.in_flight += 1
        if self.slots is not None:
            self.slots.take(now)
        self._sent_at = now
        self._next_send_at = max(now, self._next_send_at) + self.limits.spacing

    def release(self) -> None:
        """Free the slot of a request that ended, with or without a response."""
        self.in_flight -= 1

    def record_response(self, sent_at: float, now: float) -> None:
        """Record a response to a request sent at `sent_at`: the next failure counts as the first.

        A Retry-After that began before this request was sent is over; other cool-downs continue.
        """
        self._failures = 0
        if now >= self.cooldown_until:
            self.cooldown_cause = None
        if sent_at > self._quiet_since and self.cooldown_until == self.quiet_until:
            self.cooldown_until = min(self.cooldown_until, now)

    def back_off(self, error: LumaError, sent_at: float, now: float) -> None:
        """Hold back all requests for a random delay that grows with the failures in a row.

        A request that was sent (`sent_at`) before the last failure was known counts as the same
        failure: an outage that fails all requests in flight counts once.
        """
        self.cooldown_cause = error
        if sent_at < self._failed_at:
            return
        self._failures += 1
        self._failed_at = now
        backoff = _THROTTLED if isinstance(error, RateLimitedError) else _TRANSIENT
        self.cool_down_until(now + backoff.delay(self._failures, self._roll()))
        if self.slots is not None and backoff is _THROTTLED:
            self.slots.share_quiet(self.cooldown_until)

    def pause_briefly(self, now: float) -> None:
        """Hold back all requests for a short random delay after a rejected request."""
        self.cool_down_until(now + _TRANSIENT.delay(1, self._roll()))

    def honour_retry_after(self, seconds: float | None, now: float) -> None:
        """Hold back all requests for a Retry-After in seconds, `MAX_RETRY_AFTER` at most."""
        if seconds:
            self.quiet_until = max(self.quiet_until, now + min(seconds, MAX_RETRY_AFTER))
            self._quiet_since = now
            self.cool_down_until(self.quiet_until)
            if self.slots is not None:
                self.slots.share_quiet(self.quiet_until)

    def cool_down_until(self, when: float) -> None:
        """Hold back all requests until `when`; an earlier cool-down does not shorten it."""
        self.cooldown_until = max(self.cooldown_until, when)
