"""When does the next request depart? A pace, as the book uses it.

A `Timetable` is any pace that is a function of age: the request departs when its first passenger is
due.

`Steered` is `Learned` at work. It decides three things:

- An id is due when the expected waiting (see `durations`) has reached a price, the same for all.
- Where all open ids fit into one request, it departs when those aboard are worth its fare, that is
  when their ripeness sums up to one each; ripeness grows with the square of the time since the last
  look, and is one when the id is due. Otherwise it departs when the first is due, and its seats go
  to those due next.
- The price is the one at which looks would be as far apart on average as those of `Every` are, made
  dearer or cheaper by the balance of requests: ours against those of a shadow of `Every`. So what
  is spent is the same in the long run; the balance is bounded, and what is beyond it forgotten.

An id that nobody has asked about does not leave alone where requests are frequent: it waits for the
next departure, until as much time has passed since the last one as `Every` leaves between two, half
an interval at most. One that is urgent leaves at once.

Nobody is silent for longer than LONGEST intervals, so that a wrong estimate can delay news and
never lose it; nor for longer than one until FEW ends were seen.
"""

from math import exp, inf, sqrt

from luma_async.scheduling.hazard import OLDEST, DurationCounter, Hazard, cell_of
from luma_async.scheduling.pace import MAX_INTERVALS_SILENT, Backoff, Every, Learned, Pace, rest
from luma_async.scheduling.request_budget import FixedIntervalBudget

MAX_THRESHOLD_STEP = 0.05
MIN_ENDS_TO_TRUST = 20.0
MIN_DELAY_SHARE = 0.01
BUDGET_GAIN = 0.1
MAX_BUDGET_DEBT = 30.0


class Schedule:
    """What the book asks of a pace, and tells it; here of one that is a function of age."""

    __slots__ = ("_pace",)

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    @property
    def pace(self) -> Pace:
        """The pace, as far as it has learned."""
        return self._pace

    @property
    def linger_until(self) -> float:
        """Until when an id that was never asked about waits for the company of others."""
        return -inf

    @property
    def uses_task_age(self) -> bool:
        """Whether an id is as old as its task; if not, it is as old as the wait for it."""
        return False

    def group_key(self, born: float, departed: float) -> float:
        """Return what ids have in common that rest equally long; ids born between two are of it."""
        monotonic = type(self._pace) in (Every, Backoff)
        return rest(self._pace, departed - born) if monotonic else born

    def delay(self, born: float, departed: float, count: int = 1) -> float:
        """Return the seconds from a look, which departed then, at so many ids of such an age."""
        return rest(self._pace, departed - born)

    def base_delay(self, born: float, departed: float) -> float:
        """Return the same for an id that has no part in what the others do."""
        return rest(self._pace, departed - born)

    def start_busy_period(self, phase: float) -> None:
        """Take note of a busy period, whose first rest is to be cut to such a share."""

    def expedite(self, due: float) -> None:
        """Take note that an id has to be asked about by then."""

    def send_at(self, first: float) -> float:
        """Return when a request departs; `first` is when the first id is due."""
        return first

    def on_added(self, fresh: int, now: float) -> None:
        """Take note of ids that somebody wants for the first time."""

    def on_removed(self, ended_at: float | None = None) -> None:
        """Take note of an id that has ended at about that time, or that nobody wants any more."""

    def on_sent(self, now: float, *, open_ids: int, seats: int, whole: bool, again: bool) -> None:
        """Take note of a departure.

        `whole`, where nobody was left behind; `again`, where it asks anew what brought no answer.
        """

    def on_answer(self, departed: float, now: float) -> None:
        """Take note of an answer."""

    def observe_open(self, born: float, last: float, departed: float, count: int = 1) -> None:
        """Take note of a look, after a last one, that showed so many ids of an age still open."""

    def observe_end(self, born: float, last: float, departed: float) -> None:
        """Take note of a look, after a last one, that showed the end of an id."""


class AdaptiveSchedule(Schedule):
    """`Learned` at work; `known` is the true hazard, where somebody knows it."""

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
        self, pace: Learned, seats: int, spacing: float, *, known: Hazard | None = None
    ) -> None:
        self._interval = pace.interval
        self._known = known
        self._counter = DurationCounter(pace.seen)
        self._budget = FixedIntervalBudget(pace.interval, seats, spacing)
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
        spent = f"{self._spent:.0f} requests spent, {self._budget.requests} by Every"
        return f"<Steered: {self.pace!r}, {spent}>"

    @property
    def pace(self) -> Learned:
        """The pace, with what it has learned."""
        return Learned(self._interval, self._counter.counts())

    @property
    def linger_until(self) -> float:
        """Until when an id that was never asked about waits for the company of others."""
        return self._sent_at + min(self._budget.between, self._interval / 2.0)

    @property
    def uses_task_age(self) -> bool:
        """Whether an id is as old as its task."""
        return True

    def group_key(self, born: float, departed: float) -> float:
        """Return the cell of age."""
        return cell_of(departed - born)

    def delay(self, born: float, departed: float, count: int = 1) -> float:
        """Return when the waiting will have reached the price, and add to the ripeness aboard."""
        age = min(departed - born, 2.0**OLDEST)
        seconds = self._hazard.delay(age, self._delay_threshold, self._longest)
        seconds = max(seconds, MIN_DELAY_SHARE * self._longest) * self._jitter
        ripeness = 1.0
        if seconds >= self._longest:
            ripeness = min(1.0, self._hazard.expected_delay(age, seconds) / self._delay_threshold)
        weight = count * ripeness / (seconds * seconds)
        later = departed - self._sent_at
        square, linear, constant = self._urgency_poly
        self._urgency_poly = (
            square + weight,
            linear + weight * later,
            constant + weight * later * later,
        )
        self._batch_ids += count
        return seconds

    def base_delay(self, born: float, departed: float) -> float:
        """Return the interval."""
        return self._interval

    def start_busy_period(self, phase: float) -> None:
        """Cut the rests after the next departure, so that a fleet does not knock together."""
        self._next_jitter = min(phase, 1.0)

    def expedite(self, due: float) -> None:
        """Depart by then, off the balance: `Every` would not have."""
        self._expedited = min(self._expedited, due)

    def send_at(self, first: float) -> float:
        """Return when those aboard are worth the fare, or the first is due where not all fit."""
        if not self._fits_one_batch or first == inf:
            return first
        square, linear, constant = self._urgency_poly
        root = linear * linear - square * (constant - self._batch_ids)
        if root < 0.0:
            return first
        if not square:
            return min(self._latest, self._expedited)
        return min(self._latest, self._expedited, self._sent_at + (linear + sqrt(root)) / square)

    def on_added(self, fresh: int, now: float) -> None:
        """Let the shadow watch them too."""
        self._budget.add(fresh, now)

    def on_removed(self, ended_at: float | None = None) -> None:
        """Let the shadow forget it too; where nobody told, those left go by their own dues."""
        self._budget.remove(ended_at)
        self._fits_one_batch = self._fits_one_batch and ended_at is not None

    def on_sent(self, now: float, *, open_ids: int, seats: int, whole: bool, again: bool) -> None:
        """Draw the balance, set the price, and begin to count who is aboard anew.

        What was saved while nobody answered is not spent afterwards.
        """
        self._budget.seats = seats
        self._budget.advance(now)
        bound = MAX_BUDGET_DEBT * max(1.0, open_ids / seats)
        spent = self._spent + (not again and now < self._expedited)
        balance = spent - self._budget.requests
        balance = max(0.0 if again else -bound, min(balance, bound))
        self._spent = self._budget.requests + balance
        self._set_delay_threshold(balance / bound)
        self._latest = now + self._longest
        self._expedited = inf
        self._jitter, self._next_jitter = self._next_jitter, 1.0
        self._sent_at = now
        self._fits_one_batch = whole and open_ids <= seats
        self._batch_ids = 0
        self._urgency_poly = (0.0, 0.0, 0.0)

    def on_answer(self, departed: float, now: float) -> None:
        """Let the shadow know how long answers take."""
        self._budget.advance(now)
        self._budget.observe_round_trip(now - departed)

    def observe_open(self, born: float, last: float, departed: float, count: int = 1) -> None:
        """Learn from those that have not ended, unless they are older than any cell."""
        if last < departed < born + 2.0**OLDEST:
            self._counter.observe_open(last - born, departed - born, count)

    def observe_end(self, born: float, last: float, departed: float) -> None:
        """Learn from an end, unless it is older than any cell."""
        if last < departed < born + 2.0**OLDEST:
            self._counter.observe_end(last - born, departed - born)
        if self._counter.news > MAX_THRESHOLD_STEP * self._counter.ends:
            self._learn()

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


def schedule_for(pace: Pace, seats: int, spacing: float) -> Schedule:
    """Return the timetable that a pace asks for."""
    return AdaptiveSchedule(pace, seats, spacing) if isinstance(pace, Learned) else Schedule(pace)
