"""When the next request is sent: a pace as the scheduler uses it.

`Schedule` is a pace that is a function of age: a request is sent when its first id is due.

`AdaptiveSchedule` is `Learned`. It decides three things:

- An id is due when its expected delay (see `hazard`) reaches a threshold, the same for all ids.
- Where all open ids fit into one request, it is sent when their urgencies sum up to their number.
  Urgency grows with the square of the time since the last poll and is 1 when the id is due.
  Otherwise it is sent when the first id is due, and carries those due next.
- The threshold is the one at which polls would be as far apart on average as those of `Every`,
  raised or lowered by the balance of requests: those sent against those of `FixedIntervalBudget`.
  So as many are sent in the long run; the balance is bounded, and what is beyond it is dropped.

A new id does not cause a request of its own where requests are frequent: it waits for the next one,
until as much time has passed since the last one as `Every` leaves between two, half an interval at
most. An urgent id is polled at once.

No id is unpolled for longer than MAX_INTERVALS_SILENT intervals, so that a wrong estimate can delay
news and never lose it; for no longer than one interval until MIN_ENDS_TO_TRUST tasks have ended.
"""

from math import exp, inf, sqrt

from luma_async.scheduling.hazard import OLDEST, DurationCounter, Hazard, cell_of
from luma_async.scheduling.pace import MAX_INTERVALS_SILENT, Backoff, Every, Learned, Pace, delay_of
from luma_async.scheduling.request_budget import FixedIntervalBudget

RELEARN_GROWTH = 0.05  # new ends as a share of all, after which the hazard is learned again
MIN_ENDS_TO_TRUST = 20.0
MIN_DELAY_SHARE = 0.01  # of the longest delay
BUDGET_GAIN = 0.1
MAX_BUDGET_DEBT = 30.0  # requests


class Schedule:
    """When ids are due and requests are sent, for a pace that is a function of age."""

    __slots__ = ("_pace",)

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    @property
    def pace(self) -> Pace:
        """The pace, with what it has learned."""
        return self._pace

    @property
    def linger_until(self) -> float:
        """Until when a new id waits to share a request with others."""
        return -inf

    @property
    def uses_task_age(self) -> bool:
        """Whether age is that of the task; if not, it is the time since the id was watched."""
        return False

    def group_key(self, created_at: float, sent_at: float) -> float:
        """Return a key that is equal for ids with equal delays, and for all ids of ages between."""
        monotonic = type(self._pace) in (Every, Backoff)
        return delay_of(self._pace, sent_at - created_at) if monotonic else created_at

    def delay(self, created_at: float, sent_at: float, count: int = 1) -> float:
        """Return the seconds until `count` ids of this age, polled at `sent_at`, are due again."""
        return delay_of(self._pace, sent_at - created_at)

    def base_delay(self, created_at: float, sent_at: float) -> float:
        """Return the seconds until an id that is polled alone is due again."""
        return delay_of(self._pace, sent_at - created_at)

    def start_busy_period(self, phase: float) -> None:
        """Begin a busy period; its first delays are cut to this share, from 0 to 1."""

    def expedite(self, due: float) -> None:
        """Send the next request by `due` at the latest."""

    def send_at(self, first: float) -> float:
        """Return when the next request is sent; `first` is when the first id is due."""
        return first

    def on_added(self, added: int, now: float) -> None:
        """Count ids that are watched for the first time."""

    def on_removed(self, ended_at: float | None = None) -> None:
        """Remove an id that has ended at about `ended_at`, or has no watcher any more."""

    def on_sent(self, now: float, *, open_ids: int, max_ids: int, whole: bool, again: bool) -> None:
        """Count a request that was sent.

        `whole`: no id that was due is left; `again`: it retries ids that got no response.
        """

    def on_answer(self, sent_at: float, now: float) -> None:
        """Count a response to a request sent at `sent_at`."""

    def observe_open(self, created_at: float, last: float, sent_at: float, count: int = 1) -> None:
        """Count `count` ids that were open at a poll, after the last one, at this age."""

    def observe_end(self, created_at: float, last: float, sent_at: float) -> None:
        """Count an id whose end was seen at a poll, after the last one."""


class AdaptiveSchedule(Schedule):
    """The schedule of `Learned`; `known` is the true hazard, given by benchmarks alone."""

    __slots__ = (
        "_batch_ids",
        "_budget",
        "_counter",
        "_delay_threshold",
        "_expedited",
        "_fits_one_batch",
        "_hazard",
        "_interval",
        "_jitter",
        "_known",
        "_latest",
        "_longest",
        "_next_jitter",
        "_sent_at",
        "_spent",
        "_urgency_poly",
    )  # fmt: skip

    def __init__(
        self, pace: Learned, max_ids: int, spacing: float, *, known: Hazard | None = None
    ) -> None:
        self._interval = pace.interval
        self._known = known
        self._counter = DurationCounter(pace.seen)
        self._budget = FixedIntervalBudget(pace.interval, max_ids, spacing)
        self._spent = 0.0
        self._fits_one_batch = True
        self._sent_at = self._latest = -inf
        self._expedited = inf
        self._jitter = self._next_jitter = 1.0
        self._batch_ids = 0
        self._urgency_poly = (0.0, 0.0, 0.0)
        self._learn()
        self._set_delay_threshold(0.0)

    def __repr__(self) -> str:
        spent = f"{self._spent:.0f} requests sent, {self._budget.requests} by Every"
        return f"<AdaptiveSchedule: {self.pace!r}, {spent}>"

    @property
    def pace(self) -> Learned:
        """The pace, with what it has learned."""
        return Learned(self._interval, self._counter.counts())

    @property
    def linger_until(self) -> float:
        """Until when a new id waits to share a request with others."""
        return self._sent_at + min(self._budget.between, self._interval / 2.0)

    @property
    def uses_task_age(self) -> bool:
        """Whether an id is as old as its task."""
        return True

    def group_key(self, created_at: float, sent_at: float) -> float:
        """Return the cell of age."""
        return cell_of(sent_at - created_at)

    def delay(self, created_at: float, sent_at: float, count: int = 1) -> float:
        """Return when the expected delay reaches the threshold; add to the urgency of the batch."""
        if self._counter.news > RELEARN_GROWTH * self._counter.ends:
            self._learn()
        age = min(sent_at - created_at, 2.0**OLDEST)
        seconds = self._hazard.delay(age, self._delay_threshold, self._longest)
        seconds = max(seconds, MIN_DELAY_SHARE * self._longest) * self._jitter
        urgency = 1.0
        if seconds >= self._longest:
            urgency = min(1.0, self._hazard.expected_delay(age, seconds) / self._delay_threshold)
        weight = count * urgency / (seconds * seconds)
        later = sent_at - self._sent_at
        square, linear, constant = self._urgency_poly
        self._urgency_poly = (
            square + weight,
            linear + weight * later,
            constant + weight * later * later,
        )
        self._batch_ids += count
        return seconds

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
        # The urgency of an id is w·(t - polled_at)². With t = sent_at + x the sum over all ids is
        # square·x² - 2·linear·x + constant; solve for the number of ids, take the later root.
        square, linear, constant = self._urgency_poly
        root = linear * linear - square * (constant - self._batch_ids)
        if root < 0.0:
            return first
        if not square:
            return min(self._latest, self._expedited)
        return min(self._latest, self._expedited, self._sent_at + (linear + sqrt(root)) / square)

    def on_added(self, added: int, now: float) -> None:
        """Add the ids to the budget."""
        self._budget.add(added, now)

    def on_removed(self, ended_at: float | None = None) -> None:
        """Remove the id from the budget; after one that did not end, ids go by their own dues."""
        self._budget.remove(ended_at)
        self._fits_one_batch = self._fits_one_batch and ended_at is not None

    def on_sent(self, now: float, *, open_ids: int, max_ids: int, whole: bool, again: bool) -> None:
        """Update the balance and the threshold, and begin a new sum of urgencies.

        Requests saved while the relay did not respond are not sent later.
        """
        self._budget.max_ids = max_ids
        self._budget.advance(now)
        bound = MAX_BUDGET_DEBT * max(1.0, open_ids / max_ids)
        spent = self._spent + (not again and now < self._expedited)
        balance = spent - self._budget.requests
        balance = max(0.0 if again else -bound, min(balance, bound))
        self._spent = self._budget.requests + balance
        self._set_delay_threshold(balance / bound)
        self._latest = now + self._longest
        self._expedited = inf
        self._jitter, self._next_jitter = self._next_jitter, 1.0
        self._sent_at = now
        self._fits_one_batch = whole and open_ids <= max_ids
        self._batch_ids = 0
        self._urgency_poly = (0.0, 0.0, 0.0)

    def on_answer(self, sent_at: float, now: float) -> None:
        """Pass the round trip on to the budget."""
        self._budget.advance(now)
        self._budget.observe_round_trip(now - sent_at)

    def observe_open(self, created_at: float, last: float, sent_at: float, count: int = 1) -> None:
        """Learn from ids that are still open, unless they are older than any cell."""
        if last < sent_at < created_at + 2.0**OLDEST:
            self._counter.observe_open(last - created_at, sent_at - created_at, count)

    def observe_end(self, created_at: float, last: float, sent_at: float) -> None:
        """Learn from a task that ended, unless it is older than any cell."""
        if last < sent_at < created_at + 2.0**OLDEST:
            self._counter.observe_end(last - created_at, sent_at - created_at)

    def _learn(self) -> None:
        self._hazard = self._known or self._counter.hazard()
        self._counter.news = 0.0

    def _set_delay_threshold(self, balance: float) -> None:
        gap = self._budget.gap
        self._delay_threshold = (
            (gap * self._hazard.mean_sqrt_hazard) ** 2
            / 2.0
            * exp(BUDGET_GAIN * MAX_BUDGET_DEBT * balance)
        )
        knows = self._known or self._counter.ends >= MIN_ENDS_TO_TRUST
        self._longest = (MAX_INTERVALS_SILENT if knows else 1.0) * max(gap, self._interval)


def schedule_for(pace: Pace, max_ids: int, spacing: float) -> Schedule:
    """Return the schedule of a pace."""
    return AdaptiveSchedule(pace, max_ids, spacing) if isinstance(pace, Learned) else Schedule(pace)
