"""When an id is due, and when the next request is sent, for `Learned`.

It decides three things:

- An id is due when its mean lateness (see `hazard`) reaches a threshold, the same for all ids.
- Where all open ids fit into one request, it is sent when their urgencies sum up to their number.
  Urgency grows with the square of the time since the last poll and is 1 when the id is due.
  Otherwise it is sent when the first id is due, and carries those due next.
- The threshold is the one at which polls would be as far apart on average as those of `Every`,
  raised or lowered by the balance of requests: those charged against those of `IntervalSimulation`.
  So as many are sent in the long run; the balance is bounded, and what is beyond it is dropped.

Where requests are frequent, a new id does not cause a request of its own. It waits for the next
one, but not longer than `Every` leaves between two requests, and half an interval at most. New ids
whose watcher leaves soon do not wait.

No id is unpolled for longer than MAX_INTERVALS_SILENT intervals, so that a wrong estimate can delay
news and never lose it; for no longer than one interval until MIN_ENDS_TO_TRUST tasks have ended.
"""

from collections.abc import Sequence
from math import exp, inf, sqrt

from luma_async.scheduling.hazard import OLDEST, DurationCounter, Hazard, cell_of
from luma_async.scheduling.interval_simulation import IntervalSimulation
from luma_async.scheduling.pace import MAX_INTERVALS_SILENT, Learned, Pace
from luma_async.scheduling.request_timing import RequestTiming

RELEARN_GROWTH = 0.05  # new ends as a share of all, after which the hazard is learned again
MIN_ENDS_TO_TRUST = 20.0
MIN_DELAY_SHARE = 0.01  # of the longest delay
MAX_BALANCE = 30.0  # requests
BALANCE_GAIN = 3.0  # at the largest balance the threshold is e^3 times as high, or as low


class UrgencySum:
    """The summed urgency of ids, as a function of the seconds x since a request was sent.

    The urgency of an id is w·(x - p)²: it was polled at p, and w = 1 / delay², so that it is 1 when
    the id is due. The sum over all ids is square·x² - 2·linear·x + constant.
    """

    __slots__ = ("_constant", "_count", "_linear", "_square")

    def __init__(self) -> None:
        self._count = 0
        self._square = self._linear = self._constant = 0.0

    def add(self, count: int, weight: float, polled_at: float) -> None:
        """Add ids of equal weight that were polled at the same time."""
        weight *= count
        self._count += count
        self._square += weight
        self._linear += weight * polled_at
        self._constant += weight * polled_at * polled_at

    def full_after(self) -> float | None:
        """Return when the sum equals the number of ids: inf without ids, None if it is larger."""
        # The later root of square·x² - 2·linear·x + constant = count.
        discriminant = self._linear * self._linear - self._square * (self._constant - self._count)
        if discriminant < 0.0:
            return None
        return (self._linear + sqrt(discriminant)) / self._square if self._square else inf


class LearnedTiming(RequestTiming):
    """The timing of `Learned`; `known` is the true hazard, given by benchmarks alone."""

    __slots__ = (
        "_charged",
        "_counter",
        "_expedited",
        "_fits_one_batch",
        "_hazard",
        "_interval",
        "_jitter",
        "_known",
        "_lateness_threshold",
        "_latest",
        "_longest",
        "_next_jitter",
        "_sent_at",
        "_simulation",
        "_urgency",
    )  # fmt: skip

    def __init__(
        self, pace: Learned, max_ids: int, spacing: float, *, known: Hazard | None = None
    ) -> None:
        self._interval = pace.interval
        self._known = known
        self._counter = DurationCounter(pace.seen)
        self._simulation = IntervalSimulation(pace.interval, max_ids, spacing)
        self._charged = 0.0
        self._fits_one_batch = False
        self._sent_at = self._latest = -inf
        self._expedited = inf
        self._jitter = self._next_jitter = 1.0
        self._urgency = UrgencySum()
        self._learn()
        self._set_lateness_threshold(0.0)

    def __repr__(self) -> str:
        charged = f"{self._charged:.0f} requests charged, {self._simulation.requests} by Every"
        return f"<LearnedTiming: {self.pace!r}, {charged}>"

    @property
    def pace(self) -> Learned:
        """The pace, with what it has learned."""
        return Learned(self._interval, self._counter.counts())

    @property
    def linger_until(self) -> float:
        """Until when a new id waits to share a request with others."""
        return self._sent_at + min(self._simulation.between, self._interval / 2.0)

    @property
    def uses_task_age(self) -> bool:
        """Whether an id is as old as its task."""
        return True

    def group_key(self, created_at: float, sent_at: float) -> float:
        """Return the cell of age."""
        return cell_of(sent_at - created_at)

    def delay(self, created_at: float, sent_at: float, count: int = 1) -> float:
        """Return when news of these ids would be too late; count them into the next batch."""
        if self._counter.news > RELEARN_GROWTH * self._counter.ends:
            self._learn()
        age = min(sent_at - created_at, 2.0**OLDEST)
        seconds = self._seconds_until_due(age)
        urgency = 1.0
        if seconds >= self._longest:
            lateness = self._hazard.mean_lateness(age, seconds)
            urgency = min(1.0, lateness / self._lateness_threshold)
        self._urgency.add(count, urgency / (seconds * seconds), sent_at - self._sent_at)
        return seconds

    def _seconds_until_due(self, age: float) -> float:
        """Return after how many seconds the mean lateness reaches the threshold."""
        seconds = self._hazard.interval_for(age, self._lateness_threshold, self._longest)
        return max(seconds, MIN_DELAY_SHARE * self._longest) * self._jitter

    def base_delay(self, created_at: float, sent_at: float) -> float:
        """Return the interval."""
        return self._interval

    def start_busy_period(self, phase: float) -> None:
        """Shorten the delays after the next request: clients started together spread out."""
        self._next_jitter = min(phase, 1.0)

    def expedite(self, due: float) -> None:
        """Send by `due`, not charged to the balance: `Every` would not have sent it."""
        self._expedited = min(self._expedited, due)

    def send_at(self, first: float) -> float:
        """Return when to send the next request.

        All ids fit into one request: when their summed urgency equals their number. Else: when the
        first id is due.
        """
        if not self._fits_one_batch or first == inf:
            return first
        full_after = self._urgency.full_after()
        if full_after is None:
            return first
        return min(self._latest, self._expedited, self._sent_at + full_after)

    def on_added(self, added: int, now: float) -> None:
        """Add the ids to the simulation."""
        self._simulation.add(added, now)

    def on_removed(self, ended_at: Sequence[float | None]) -> None:
        """Remove the ids from the simulation.

        After one that did not end, ids go by their own dues.
        """
        self._simulation.remove(*ended_at)
        self._fits_one_batch = self._fits_one_batch and None not in ended_at

    def on_sent(self, now: float, *, open_ids: int, max_ids: int, whole: bool, again: bool) -> None:
        """Update the balance and the threshold, and begin a new sum of urgencies.

        Requests saved while the relay did not respond are not sent later.
        """
        self._simulation.max_ids = max_ids
        self._simulation.advance(now)
        bound = MAX_BALANCE * max(1.0, open_ids / max_ids)
        charged = self._charged + (not again and now < self._expedited)
        balance = charged - self._simulation.requests
        balance = max(0.0 if again else -bound, min(balance, bound))
        self._charged = self._simulation.requests + balance
        self._set_lateness_threshold(balance / bound)
        self._latest = now + self._longest
        self._expedited = inf
        self._jitter, self._next_jitter = self._next_jitter, 1.0
        self._sent_at = now
        self._fits_one_batch = whole and open_ids <= max_ids
        self._urgency = UrgencySum()

    def on_answer(self, sent_at: float, now: float) -> None:
        """Pass the round trip on to the simulation."""
        self._simulation.advance(now)
        self._simulation.observe_round_trip(now - sent_at)

    def observe_open(self, created_at: float, last: float, sent_at: float, count: int) -> None:
        """Learn from ids that are still open, unless they are older than any cell."""
        if last < sent_at < created_at + 2.0**OLDEST:
            self._counter.observe_open(last - created_at, sent_at - created_at, count)

    def observe_end(self, created_at: float, last: float, sent_at: float, count: int) -> None:
        """Learn from tasks that ended, unless they are older than any cell."""
        if last < sent_at < created_at + 2.0**OLDEST:
            self._counter.observe_end(last - created_at, sent_at - created_at, count)

    def _learn(self) -> None:
        self._hazard = self._known or self._counter.hazard()
        self._counter.news = 0.0

    def _set_lateness_threshold(self, share: float) -> None:
        """Set the threshold and the longest delay; `share` is the balance, from -1 to 1."""
        # Polls at equal mean lateness W are `gap` apart on average where W = (gap·mean √h)² / 2.
        gap = self._simulation.gap
        equal = (gap * self._hazard.mean_sqrt_hazard) ** 2 / 2.0
        self._lateness_threshold = equal * exp(BALANCE_GAIN * share)
        knows = self._known or self._counter.ends >= MIN_ENDS_TO_TRUST
        self._longest = (MAX_INTERVALS_SILENT if knows else 1.0) * max(gap, self._interval)


def timing_for(pace: Pace, max_ids: int, spacing: float) -> RequestTiming:
    """Return the timing of a pace."""
    if isinstance(pace, Learned):
        return LearnedTiming(pace, max_ids, spacing)
    return RequestTiming(pace)
